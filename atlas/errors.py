"""What a reader of an atlas can run into. All are `UserError`: a sentence that says the way out."""

from __future__ import annotations

from vladmap.schemas.rejects import UserError


class AtlasError(UserError):
    """An atlas cannot give what it was asked for: the base of what `vladmap.Atlas` raises."""


class NotAnAtlas(AtlasError):
    """The path holds no atlas, or one that a newer vladmap wrote."""


class NotBuiltYet(AtlasError):
    """The stage that makes what was asked for has not run."""


class NotInAtlas(AtlasError):
    """The atlas has other models, features, images or columns than the one asked for."""


class DamagedAtlas(AtlasError):
    """A file is not what the ledger says: it is missing, cut short, changed, or leads elsewhere."""


class MissingPhotograph(AtlasError):
    """A photograph cannot be read where it was, or is not the one that the atlas was made of."""
