"""The errors that reading an atlas raises. All are UserError: one sentence, with the way out."""

from __future__ import annotations

from vladmap.schemas.rejects import UserError


class AtlasError(UserError):
    """The base of the errors that `vladmap.Atlas` raises."""


class NotAnAtlas(AtlasError):
    """There is no atlas at the path, or one that a newer vladmap wrote."""


class NotBuiltYet(AtlasError):
    """The stage that makes what is asked for has not run."""


class NotInAtlas(AtlasError):
    """The atlas does not have the model, kind of features, image or column that is asked for."""


class DamagedAtlas(AtlasError):
    """A file is not as committed: it is missing, truncated, changed, or a link out of the atlas."""


class MissingPhotograph(AtlasError):
    """A photograph cannot be read at its place, or is not the one that the atlas was made from."""
