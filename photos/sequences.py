"""Sequences: the images of one drive, in the order in which they were taken."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vladmap.geodesy.wgs84 import great_circle_m

MAX_GAP_S = 60.0
MAX_GAP_M = 600.0
"""The longest gaps within a drive: the defaults of Mapillary's tools."""


Column = Sequence[float | None] | np.ndarray


def sequence_group(path: str, make: str | None, model: str | None, given: str | None) -> str:
    """Key of the images among which sequences are formed: a given id, else folder and camera.

    `assign_sequences` never joins images of different keys, so a collection can be partitioned by
    this key, and each part assigned alone, with the same result.
    """
    if given:
        return f"given\0{given}"
    return f"folder\0{path.rpartition('/')[0]}\0{make or ''}\0{model or ''}"


def natural_key(path: str) -> str:
    """A key that sorts paths as people do: frame 9 before frame 10, case aside."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].lstrip("0").zfill(20), path.casefold())


def assign_sequences(
    image_ids: Sequence[str],
    paths: Sequence[str],
    captured_at: Sequence[datetime | None] | np.ndarray,
    latitude: Column,
    longitude: Column,
    make: Sequence[str | None],
    model: Sequence[str | None],
    given_sequence: Sequence[str | None],
    *,
    max_gap_s: float = MAX_GAP_S,
    max_gap_m: float = MAX_GAP_M,
) -> tuple[list[str], np.ndarray]:
    """Sequence id and position in it, for each of n images; the result has the input's order.

    Images with a given id form one sequence, which is never split. Other images are grouped by
    folder and camera. A group is ordered by capture time where all of its images have one, else by
    path with digits compared as numbers; ties are ordered by path, then by image id. It is split
    where consecutive known times differ by more than `max_gap_s` (in either direction, which is
    possible in the order of paths) or consecutive known positions by more than `max_gap_m`.

    The id of such a sequence is the BLAKE2b-128 of folder, make, model and the image_id of its
    first image, so that images that are added behind do not change it. Returns (list of n ids, (n,)
    int32 indices from 0). `captured_at` are datetimes (UTC) or datetime64, positions are WGS84
    degrees; None or NaN where unknown. The result does not depend on the order of the input.
    """
    count = len(image_ids)
    if count == 0:
        return [], np.zeros(0, np.int32)
    keys = [sequence_group(*row) for row in zip(paths, make, model, given_sequence, strict=True)]
    _, group = np.unique(np.array(keys, dtype=object), return_inverse=True)
    seconds = _epoch_seconds(captured_at)

    untimed = np.zeros(group.max() + 1, dtype=bool)
    np.logical_or.at(untimed, group, np.isnan(seconds))
    by_time = np.where(untimed[group], 0.0, seconds)
    by_name = _ranks(list(zip(map(natural_key, paths), paths, image_ids, strict=True)))
    order = np.lexsort((by_name, by_time, group))

    ordered_group = group[order]
    starts_group = np.ones(count, dtype=bool)
    starts_group[1:] = ordered_group[1:] != ordered_group[:-1]

    time_before, time_here = _known_neighbours(seconds[order], starts_group)
    lat = np.asarray(latitude, dtype=np.float64)[order]
    lon = np.asarray(longitude, dtype=np.float64)[order]
    unknown = np.isnan(lat) | np.isnan(lon)
    lat_before, lat_here = _known_neighbours(np.where(unknown, np.nan, lat), starts_group)
    lon_before, lon_here = _known_neighbours(np.where(unknown, np.nan, lon), starts_group)
    given = np.array([bool(name) for name in given_sequence])[order]
    with np.errstate(invalid="ignore"):
        broken = np.abs(time_here - time_before) > max_gap_s
        broken |= great_circle_m(lat_before, lon_before, lat_here, lon_here) > max_gap_m
    starts = starts_group | (broken & ~given)

    run = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    names = [_sequence_id(image_ids[i], paths[i], make[i], model[i], given_sequence[i])
             for i in order[first].tolist()]  # fmt: skip
    run_of_image = np.empty(count, dtype=np.int64)
    run_of_image[order] = run
    index = np.empty(count, dtype=np.int32)
    index[order] = np.arange(count) - first[run]
    return [names[r] for r in run_of_image.tolist()], index


def beside_in_sequence(
    sequence_id: Sequence[str | None],
    sequence_index: Column,
    captured_at: Sequence[datetime | None] | np.ndarray,
    reach: float,
) -> list[NDArray[np.int64]]:
    """For each of n images, the rows of the images near it in its sequence, including itself.

    Near means at most `reach` seconds before or after it, or, in a sequence with an image without a
    time, at most `reach` places. An image without a sequence has only itself. `captured_at` are
    datetimes (UTC) or datetime64, None or NaT where unknown. Rows ascend.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(sequence_id):
        if name is not None:
            groups[name].append(row)
    beside = [np.array([row], np.int64) for row in range(len(sequence_id))]
    seconds = _epoch_seconds(captured_at)
    places = np.asarray(sequence_index, dtype=np.float64)
    for members in groups.values():
        rows = np.array(members, np.int64)
        along = places[rows] if np.isnan(seconds[rows]).any() else seconds[rows]
        rows, along = rows[~np.isnan(along)], along[~np.isnan(along)]
        order = np.argsort(along, kind="stable")
        rows, along = rows[order], along[order]
        first = np.searchsorted(along, along - reach, side="left")
        end = np.searchsorted(along, along + reach, side="right")
        for row, low, high in zip(rows.tolist(), first.tolist(), end.tolist(), strict=True):
            beside[row] = np.sort(rows[low:high])
    return beside


def _sequence_id(
    image_id: str, path: str, make: str | None, model: str | None, given: str | None
) -> str:
    if given:
        return given
    key = f"{sequence_group(path, make, model, None)}\0{image_id}"
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _epoch_seconds(captured_at: Sequence[datetime | None] | np.ndarray) -> np.ndarray:
    """(n,) float64 seconds, NaN where unknown; microseconds stay exact to the year 2200."""
    if isinstance(captured_at, np.ndarray) and captured_at.dtype.kind == "M":
        micros = captured_at.astype("datetime64[us]")
        return np.where(np.isnat(micros), np.nan, micros.astype(np.int64) / 1e6)
    return np.array([np.nan if t is None else t.timestamp() for t in captured_at], np.float64)


def _ranks(keys: list[tuple[str, str, str]]) -> np.ndarray:
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return ranks


def _known_neighbours(
    values: np.ndarray, starts_group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(last known value before each place in its group, the place's own value); NaN where unknown.

    With these, an image without a time or position does not hide a gap between its neighbours.
    """
    places = np.arange(len(values))
    group_start = np.maximum.accumulate(np.where(starts_group, places, 0))
    last_known = np.maximum.accumulate(np.where(np.isnan(values), -1, places))
    before = np.concatenate(([-1], last_known[:-1]))
    usable = before >= group_start
    return np.where(usable, values[before], np.nan), values
