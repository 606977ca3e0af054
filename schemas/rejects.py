"""Why an image was not used: one closed list of reasons, shared by every stage."""

from __future__ import annotations

import enum


class RejectReason(enum.StrEnum):
    """The `reason` column of `rejects/`; the `detail` column has the sentence for people."""

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
    is not the picture of one lens. `no_pair`: it is in no candidate pair. `no_verified_pair`: none
    of its candidate pairs has a two-view geometry. `pairs_not_trusted`: it has verified pairs, but
    all were judged to join different places that look alike. `tile_failed`: its tile has no model.
    `left_out_by_mapper`: COLMAP did not register it. `too_few_points`: it was registered, with too
    few points that have parallax. `contradicted`: it was registered, but GPS, its drive, its pairs
    or another tile contradict its pose. `model_too_small`: it was registered in a model of too few
    images. `model_left_out`: its model is contradicted as a whole, or was not merged into the map.
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


class PoseDoubt(enum.StrEnum):
    """Why a photograph of the map must not be used.

    `loose`: its predicted error is large. `torn`: the map contradicts the pairs that should join it
    to the rest. `jump`: its drive jumps in the map, and it lies on the smaller side.
    """

    LOOSE = "loose"
    JUMP = "jump"
    TORN = "torn"


class PhotoError(Exception):
    """One photograph cannot be used.

    `detail` is a sentence for people. The functions that read photographs raise it, and the stage
    that called them turns it into a reject row.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[PhotoError], tuple[RejectReason, str]]:
        # By default an exception is unpickled from its message alone, which fails for two arguments
        # and would break the process pool.
        return type(self), (self.reason, self.detail)


class UserError(Exception):
    """An error that the user can correct: printed as one line, with exit code 2."""


class DamagedFile(OSError):
    """A file of an atlas whose bytes differ from those committed, or cannot be interpreted."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}")
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, str]]:
        return type(self), (self.path, self.why)
