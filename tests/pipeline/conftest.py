"""What the tests of whole pipelines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drives import write_drive
from tests.pipeline.test_stages import build


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A collection that grew once, and its atlas up to the pairs: two generations."""
    folder = tmp_path_factory.mktemp("grown")
    for start, count in ((0, 8), (8, 4)):
        write_drive(folder / "photos", count, start=start)
        build(folder / "photos", folder / "atlas")
    return folder / "photos", folder / "atlas"
