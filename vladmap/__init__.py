"""vladmap: photographs to descriptors, a retrieval index and georeferenced COLMAP models."""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]

# In a checkout the rooms lie beside this folder, at the top of the project; installed, inside it.
if (_CHECKOUT / "beam_requirements.txt").is_file():
    __path__.append(str(_CHECKOUT))
