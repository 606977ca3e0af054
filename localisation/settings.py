"""How photographs are localised. This module imports nothing that is slow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LocaliseSettings:
    """What a user may choose.

    `reach_m`: where a photograph has GPS, only the photographs of the atlas within so many metres
    of it are looked at; 0 leaves GPS out. `candidates`: photographs of the atlas, the most alike
    first, whose local features are matched.
    """

    reach_m: float = 150.0
    candidates: int = 20
