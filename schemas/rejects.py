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
    TOO_SMALL = "too_small"
    DECODE_FAILED = "decode_failed"
    MISSING = "missing"
    CHANGED = "changed"
    NO_DESCRIPTOR = "no_descriptor"
    NO_FEATURES = "no_features"
    CRASHED = "crashed"
    TILE_FAILED = "tile_failed"


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
