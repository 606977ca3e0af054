"""What a photograph gets from the others of its collection: zones and sequences (issue 19, 7)."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import ExifTags

from tests.photos.bad_photos import encode, exif_block, gps_tags, texture
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import STAGES

CASES = Path(__file__).parents[1] / "cases" / "time"
B, G = ExifTags.Base, ExifTags.GPS


def ingested(photos: Path, atlas: Path) -> dict[str, dict[str, Any]]:
    """Rows of `images/` by name."""
    options = BuildOptions(images=str(photos), atlas=str(atlas), max_reject_rate=1.0)
    STAGES["ingest"].work(Run(AtlasStore.open(str(atlas), create=True), options))
    return {row["name"]: row for row in pq.read_table(atlas / "images").to_pylist()}


def photo(
    path: Path, seed: int, local: str, clock: tuple[int, int, int] | None, model: str
) -> None:
    gps = gps_tags(48.2, 16.37)
    if clock is not None:
        gps |= {G.GPSDateStamp: "2024:03:09", G.GPSTimeStamp: clock}
    exif = exif_block(
        base={B.Make: "ACME", B.Model: model}, details={B.DateTimeOriginal: local}, gps=gps
    )
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(texture(seed), exif=exif))


def test_a_frame_without_a_gps_clock_stays_in_its_drive(tmp_path: Path) -> None:
    """Issue 19, 7: `time/`: rollover1, rollover2, no_fix_between are one sequence, 2 s apart."""
    (tmp_path / "photos").mkdir()
    for path in CASES.glob("*.jpg"):
        shutil.copy(path, tmp_path / "photos")
    rows = ingested(tmp_path / "photos", tmp_path / "atlas")
    drive = [rows[f"{name}.jpg"] for name in ("rollover1", "rollover2", "no_fix_between")]
    assert len({row["sequence_id"] for row in drive}) == 1
    first = drive[0]["sequence_index"]
    assert [row["sequence_index"] - first for row in drive] == [0, 1, 2]
    expected = [datetime(2024, 3, 9, 7, 15, second, tzinfo=UTC) for second in (0, 2, 4)]
    for row, right in zip(drive, expected, strict=True):
        assert abs(row["captured_at"] - right) <= timedelta(seconds=2)
    assert [row["time_source"] for row in drive] == ["gps_zone", "gps_zone", "neighbours"]
    assert drive[2]["captured_local"] == datetime(2024, 3, 9, 8, 15, 4)


def test_a_zone_holds_for_the_camera_and_the_folder_alone(tmp_path: Path) -> None:
    """Issue 19, 7: another camera and another folder keep their own unknown zones."""
    photos = tmp_path / "photos"
    photos.mkdir()
    photo(photos / "a" / "1.jpg", 1, "2024:03:09 08:15:00", (7, 15, 0), "P1")
    photo(photos / "a" / "2.jpg", 2, "2024:03:09 08:15:02", None, "P1")
    photo(photos / "a" / "3.jpg", 3, "2024:03:09 08:15:04", None, "P2")
    photo(photos / "b" / "4.jpg", 4, "2024:03:09 08:15:06", None, "P1")
    rows = ingested(photos, tmp_path / "atlas")
    assert {name: row["time_source"] for name, row in rows.items()} == {
        "a/1.jpg": "gps_zone", "a/2.jpg": "neighbours",
        "a/3.jpg": "assumed_utc", "b/4.jpg": "assumed_utc",
    }  # fmt: skip
    assert rows["a/2.jpg"]["captured_at"] == datetime(2024, 3, 9, 7, 15, 2, tzinfo=UTC)
    assert rows["a/3.jpg"]["captured_at"] == datetime(2024, 3, 9, 8, 15, 4, tzinfo=UTC)


def test_what_was_taken_for_granted_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 3 and 7."""
    photos = tmp_path / "photos"
    photos.mkdir()
    photo(photos / "a" / "1.jpg", 1, "2024:03:09 08:15:00", None, "P1")
    for name in ("p00.jpg", "p01.jpg"):
        shutil.copy(CASES.parent / "panoramas" / name, photos / "a")
    with caplog.at_level("INFO", "vladmap"):
        rows = ingested(photos, tmp_path / "atlas")
    assert rows["a/p00.jpg"]["projection"] == rows["a/p01.jpg"]["projection"] == "equirectangular"
    assert "2 photographs are panoramas" in caplog.text
    assert "3 photographs have a capture time without a zone" in caplog.text
