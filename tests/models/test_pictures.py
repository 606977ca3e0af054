from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.synthetic import photographs
from vladmap.models.training.pictures import Pictures, ahead, in_chunks
from vladmap.weights.preprocessing import InputSize


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{n}.png" for n in range(4)]
    for path, image in zip(found, photographs(4, 80, 60), strict=True):
        Image.fromarray(image).save(path)
    return found


@pytest.mark.parametrize("memory", [0, 2 * 40 * 30 * 3, 1 << 30])
def test_pictures_come_by_row_at_the_models_size_however_many_are_kept(
    paths: list[Path], memory: int
) -> None:
    pictures = Pictures(paths, InputSize(32, 40), threads=2, memory=memory)
    rows = np.array([2, 0, 2, 3])
    first, second = pictures.read(rows), pictures.read(rows)
    assert all(image.shape == (30, 40, 3) for image in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(first[0], first[2])
    assert len(pictures) == 4


def test_what_was_kept_is_not_read_again(paths: list[Path]) -> None:
    pictures = Pictures(paths, InputSize(32, 40))
    assert pictures.unreadable() == {}
    for path in paths:
        path.unlink()
    assert len(pictures.read(np.arange(4))) == 4


def test_what_does_not_decode_is_named_with_its_reason(paths: list[Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[3].unlink()
    done: list[int] = []
    bad = Pictures(paths, InputSize(32, 40)).unreadable(done.append)
    assert sorted(bad) == [1, 3]
    assert sum(done) == 4


def test_reading_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert [*ahead(range(7), lambda n: n * n)] == [n * n for n in range(7)]
    with pytest.raises(ZeroDivisionError):
        [*ahead([1, 0], lambda n: 1 / n)]
    assert [part.tolist() for part in in_chunks(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
