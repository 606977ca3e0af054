"""What the tests of whole pipelines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MadeOnce
from tests.drives import write_drive
from tests.pipeline.test_stages import build


@pytest.fixture(scope="session")
def grown(made_once: MadeOnce) -> tuple[Path, Path]:
    """A collection that grew once, and its atlas up to the pairs: two generations."""

    def make(folder: Path) -> None:
        for start, count in ((0, 8), (8, 4)):
            write_drive(folder / "photos", count, start=start)
            build(folder / "photos", folder / "atlas")

    folder = made_once("grown", make)
    return folder / "photos", folder / "atlas"
