"""Why an image was not used: one closed list of reasons, shared by every stage."""

from __future__ import annotations

import enum


class RejectReason(enum.StrEnum):
    """The `reason` column of `rejects/`; the `detail` column says it in words."""

    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not_a_file"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_LARGE = "too_large"
    TOO_COSTLY = "too_costly"
    TOO_SMALL = "too_small"
    DECODE_FAILED = "decode_failed"
    MISSING = "missing"
    CHANGED = "changed"
    NO_DESCRIPTOR = "no_descriptor"
    NO_FEATURES = "no_features"
    PANORAMA = "panorama"
    CRASHED = "crashed"
    TILE_FAILED = "tile_failed"


class UnregisteredReason(enum.StrEnum):
    """The `reason` column of `unregistered.parquet`, in the order in which a photograph can fail.

    `duplicate`: another photograph has the same bytes. `rejected`: see `rejects/`. `panorama`: it
    is no picture of one lens. `no_pair`: nothing is alike enough to be compared with it.
    `no_verified_pair`: what it was compared with shows another scene. `pairs_not_trusted`: it has
    verified pairs, and all were judged to join places that only look alike. `tile_failed`: its tile
    has no model. `left_out_by_mapper`: COLMAP found no place for it. `too_few_points`: it was
    placed, on too few points with parallax. `contradicted`: it was placed, and GPS, its drive, its
    pairs or another tile speak against the place. `model_too_small`: what it was placed with is too
    few images. `model_left_out`: it is in a model that is contradicted as a whole, or that did not
    come into the map.
    """

    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    PANORAMA = "panorama"
    NO_PAIR = "no_pair"
    NO_VERIFIED_PAIR = "no_verified_pair"
    PAIRS_NOT_TRUSTED = "pairs_not_trusted"
    TILE_FAILED = "tile_failed"
    LEFT_OUT_BY_MAPPER = "left_out_by_mapper"
    TOO_FEW_POINTS = "too_few_points"
    CONTRADICTED = "contradicted"
    MODEL_TOO_SMALL = "model_too_small"
    MODEL_LEFT_OUT = "model_left_out"


class PhotoError(Exception):
    """One photograph cannot be used.

    `reason` is the enum above, `detail` a sentence for people. Raised by the plain functions that
    read photographs and turned into a reject row by the stage that called them.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[PhotoError], tuple[RejectReason, str]]:
        # By default an exception is remade from its message alone, which breaks a pool's process.
        return type(self), (self.reason, self.detail)


class UserError(Exception):
    """What the person who started the run can mend: printed as one line, exit code 2."""


class DamagedFile(OSError):
    """A file of an atlas that is not as it was committed: its bytes, or what they mean."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}")
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, str]]:
        return type(self), (self.path, self.why)
