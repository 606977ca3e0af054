"""The atlas as its users hold it: all that can be read of it, and what can be asked with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vladmap.atlas import atlas

if TYPE_CHECKING:
    from vladmap.localisation.localiser import Localiser


class Atlas(atlas.Atlas):
    __doc__ = atlas.Atlas.__doc__

    def localiser(self, *, reach_m: float = 150.0, candidates: int = 20, **names: Any) -> Localiser:
        """What places photographs in this atlas: `localiser().locate("photo.jpg")`.

        It loads what it needs once. `reach_m` and `candidates` are those of `vladmap localise`;
        `names` are `model`, `features`, `matcher` and `device`, as there. Raises NotBuiltYet where
        the atlas has no index yet.
        """
        from vladmap.localisation.localiser import Localiser
        from vladmap.localisation.settings import LocaliseSettings

        return Localiser(self, settings=LocaliseSettings(reach_m, candidates), **names)
