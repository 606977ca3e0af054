"""A photograph that is deleted costs the shard that it lay in, and no other."""

from __future__ import annotations

from pathlib import Path

import h3
import pytest

from tests.drives import write_drive
from tests.pipeline.test_stages import build, done
from vladmap.photos.ids import image_id
from vladmap.pipeline.ledgers import image_shards
from vladmap.pipeline.run import Run

pytestmark = pytest.mark.medium

FULL = 8


def write_country(folder: Path) -> dict[str, list[str]]:
    """Photographs in 21 cells, three in each of the seven cells of the next resolution; their names
    by cell.

    The first cell has twenty: three shards. The second and the third group have three photographs
    each, fewer than half a shard, and share one with the two that are left of the first. The other
    groups have four, just enough for one each.
    """
    coarse = h3.latlng_to_cell(48.2, 16.37, 6)
    counts: dict[str, int] = {}
    for number, parent in enumerate(sorted(h3.cell_to_children(coarse, 7))):
        first, *others = sorted(h3.cell_to_children(parent, 8))[:3]
        counts[first] = 20 if number == 0 else 1 if number < 3 else 2
        counts |= dict.fromkeys(others, 1)
    cells = [cell for cell, count in counts.items() for _ in range(count)]
    write_drive(folder, len(cells))
    rows = ["uri,longitude,latitude"]
    names: dict[str, list[str]] = {cell: [] for cell in counts}
    for number, cell in enumerate(cells):
        latitude, longitude = h3.cell_to_latlng(cell)
        rows.append(f"{number:04d}.jpg,{longitude:.6f},{latitude:.6f}")
        names[cell].append(f"{number:04d}.jpg")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return names


def delete(listed: Path, name: str) -> None:
    kept = [line for line in listed.read_text().splitlines() if not line.startswith(name)]
    listed.write_text("\n".join(kept) + "\n")


def identities(run: Run) -> dict[str, str]:
    """What the shards' photographs are to the stages that decode them."""
    return {shard: entry.identity("pixels") for shard, entry in image_shards(run).items()}


@pytest.mark.parametrize("group", ["of twenty", "with just enough"])
def test_a_deleted_photograph_costs_its_own_shard_only(group: str, tmp_path: Path) -> None:
    """Of twenty in one cell the first would have moved all that follow; a group of cells with just
    enough for a shard of its own would have joined, and moved, the others."""
    names = write_country(tmp_path / "photos")
    listed, atlas = tmp_path / "photos" / "list.csv", tmp_path / "atlas"
    run = build(listed, atlas, 1, shard_images=FULL)
    before = identities(run)
    by_id = sorted(list(names.values())[0 if group == "of twenty" else -1], key=image_id)
    delete(listed, by_id[0])
    after = identities(build(listed, atlas, 1, shard_images=FULL))
    assert set(after) == set(before)
    assert len([shard for shard in before if before[shard] != after[shard]]) == 1


def test_what_is_made_of_the_other_shards_stays(tmp_path: Path) -> None:
    names = write_country(tmp_path / "photos")
    listed, atlas = tmp_path / "photos" / "list.csv", tmp_path / "atlas"
    build(listed, atlas, 2, shard_images=FULL)
    delete(listed, next(iter(names.values()))[3])
    again = done(build(listed, atlas, 2, shard_images=FULL))
    assert again["ingest"] == 0
    assert 0 < again["describe"] < FULL
