"""vladmap: photographs to descriptors, a retrieval index and georeferenced COLMAP models.

`Atlas(path)` opens what `vladmap build` made, `load_model(name)` a model that describes
photographs. Nothing slow is imported before it is asked for.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

_CHECKOUT = Path(__file__).resolve().parents[1]

# In a checkout the rooms lie beside this folder, at the top of the project; installed, inside it.
if (_CHECKOUT / "beam_requirements.txt").is_file():
    __path__.append(str(_CHECKOUT))

if TYPE_CHECKING:
    from vladmap.atlas.errors import AtlasError
    from vladmap.door import Atlas
    from vladmap.models.registry import load_model
    from vladmap.schemas.rejects import UserError

__all__ = ["Atlas", "AtlasError", "UserError", "load_model"]

_HOMES = {
    "Atlas": "vladmap.door",
    "AtlasError": "vladmap.atlas.errors",
    "UserError": "vladmap.schemas.rejects",
    "load_model": "vladmap.models",
}


def __getattr__(name: str) -> Any:
    """What is public, imported when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
