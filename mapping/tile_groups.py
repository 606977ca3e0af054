"""Which tiles make one map: groups in which everything still agrees after one alignment of all.

Two tiles that agree are a hypothesis; a ring of them is a test. A group is aligned as a whole, and
a tile whose images then lie elsewhere than the other tiles have them, or that GPS contradicts now
and did not before, is left alone: the rest stays together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from vladmap.mapping.arrays import Array, Indices, Origin
from vladmap.mapping.georegister import Similarity
from vladmap.mapping.gps_fit import fit_to_gps, newly_misplaced
from vladmap.mapping.graph import connected_components
from vladmap.mapping.image_poses import MAX_TURN_DEG, SettledPoses, candidates_of, settle
from vladmap.mapping.tile_agreement import (
    MAX_SHIFT_M,
    MAX_TORN,
    Agreement,
    Part,
    Shared,
    overlap_of,
)
from vladmap.mapping.tile_alignment import Anchors, Meetings, Turns, align
from vladmap.mapping.tile_arrays import between_frames

# Standard deviations of what a common image says, as a share of the distance from which on it
# differs, and in degrees. The points of a pair share the errors of its images: together they count
# as so many.
_CENTRE_SHARE = 0.1
_TURN_DEG = 0.3
_POINTS_COUNT = 10.0
# GPS errors are shared along streets: where GPS has a tile is known to so many metres at best. It
# holds the whole in place and moves no seam.
_GPS_SIGMA_M = (10.0, 10.0, 20.0)
_FIXED_SHARE = 1e-3
# A seam of which a larger share of the images differs is torn.
_TORN_SEAM = 0.5

_SAME = Similarity(1.0, np.eye(3), np.zeros(3))


@dataclass(frozen=True)
class Group:
    """Tiles of one map: the numbers of the parts, largest first, and their common frame.

    `similarities` carry each part there. If `georegistered`, it is the east-north-up frame at
    `origin`. `limit` is the distance from which on two poses of one image differ; `poses` are one
    for each image.
    """

    members: list[int]
    similarities: list[Similarity]
    origin: Origin
    georegistered: bool
    limit: float
    poses: SettledPoses


def consistent_groups(
    parts: Sequence[Part],
    agreements: Sequence[Agreement],
    names: Sequence[str],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> list[Group]:
    """Return the groups of parts that agree, each part in one of them, largest first.

    Agreements between parts that come to different groups are changed into refusals, in place, with
    the reason.
    """
    left = list(range(len(parts)))
    groups: list[Group] = []
    alone: dict[int, str] = {}
    while left:
        members = _largest_component(parts, agreements, left)
        group = _aligned(parts, agreements, members)
        while objection := _objection(parts, agreements, group, names, by_name, gps_sigma_m):
            worst, alone[worst] = objection
            members = [part for part in group.members if part != worst]
            group = _aligned(parts, agreements, _largest_component(parts, agreements, members))
        groups.append(group)
        left = [part for part in left if part not in set(group.members)]
    group_of = {part: number for number, group in enumerate(groups) for part in group.members}
    for each in agreements:
        if each.shared is not None and group_of[each.a] != group_of[each.b]:
            reason = alone.get(each.b) or alone.get(each.a) or "they are parts of different maps"
            each.decision.update(merged=False, reason=reason)
    return sorted(groups, key=lambda group: group.members)


def _largest_component(
    parts: Sequence[Part], agreements: Sequence[Agreement], among: Sequence[int]
) -> list[int]:
    """Return the parts, of some, that agreements join to the most images."""
    edges = _edges(agreements, among)
    label = connected_components(len(among), edges.first, edges.second)
    images = np.bincount(label, [len(parts[part].arrays.image) for part in among])
    return [among[row] for row in np.flatnonzero(label == np.argmax(images)).tolist()]


@dataclass(frozen=True)
class _Edges:
    """The agreements among some parts: `first` and `second` (m,) are rows of these parts."""

    first: Indices
    second: Indices
    shared: list[Shared]


def _edges(agreements: Sequence[Agreement], among: Sequence[int]) -> _Edges:
    row_of = {part: row for row, part in enumerate(among)}
    inside = [
        (row_of[each.a], row_of[each.b], each.shared)
        for each in agreements
        if each.shared is not None and each.a in row_of and each.b in row_of
    ]
    first, second = np.array([each[:2] for each in inside], np.int64).reshape(-1, 2).T
    return _Edges(first, second, [each[2] for each in inside])


def _aligned(
    parts: Sequence[Part], agreements: Sequence[Agreement], members: Sequence[int]
) -> Group:
    """Return the group of parts that agreements join, all in one frame."""
    tiles = [parts[part] for part in members]
    edges = _edges(agreements, members)
    root = next((row for row, part in enumerate(tiles) if part.tile.georegistered), 0)
    base = tiles[root].tile
    similarities, limit = [_SAME], MAX_SHIFT_M
    if edges.shared:
        similarities = _along_tree(len(members), root, edges)
        scales = [similarities[row].scale for row in edges.first.tolist()]
        limits = [scale * each.limit for scale, each in zip(scales, edges.shared, strict=True)]
        limit = MAX_SHIFT_M if base.georegistered else float(np.median(limits))
        similarities = align(
            similarities,
            np.array([part.arrays.centres.mean(axis=0) for part in tiles]),
            _meetings(tiles, edges, np.array(scales), limit),
            _turns(tiles, edges),
            _anchors(tiles, root, limit),
        )
    poses = settle(candidates_of([part.arrays for part in tiles], similarities), limit)
    return Group(list(members), similarities, base.origin, base.georegistered, limit, poses)


def _along_tree(count: int, root: int, edges: _Edges) -> list[Similarity]:
    """Return the similarities to the frame of the root, along the tree of most common images."""
    weight = np.array([1.0 / (1.0 + len(each.images)) for each in edges.shared])
    graph = sparse.csr_array((weight, (edges.first, edges.second)), shape=(count, count))
    order, before = breadth_first_order(minimum_spanning_tree(graph), root, directed=False)
    ends = zip(edges.first.tolist(), edges.second.tolist(), strict=True)
    to_first = {pair: each.similarity for pair, each in zip(ends, edges.shared, strict=True)}
    found = {root: _SAME}
    for row in order.tolist()[1:]:
        known = int(before[row])
        step = to_first.get((known, row))
        found[row] = found[known].after(step or to_first[row, known].inverse())
    return [found[row] for row in range(count)]


def _meetings(tiles: Sequence[Part], edges: _Edges, scale: Array, limit: float) -> Meetings:
    """Return the centres of common images and the common points of tiles that agree.

    `scale` (m,) is that of the first tile of each edge.
    """
    at_a, at_b, sigma = [], [], []
    for row, each in enumerate(edges.shared):
        ours, theirs = tiles[edges.first[row]].arrays, tiles[edges.second[row]].arrays
        at_a += [ours.centres[ours.rows_of(each.images)], each.points_a]
        at_b += [theirs.centres[theirs.rows_of(each.images)], each.points_b]
        many = max(1.0, len(each.points_a) / _POINTS_COUNT)
        apart = max(_CENTRE_SHARE * limit, scale[row] * each.sigma)
        sigma += [
            np.full(len(each.images), _CENTRE_SHARE * limit),
            np.full(len(each.points_a), apart * np.sqrt(many)),
        ]
    counts = [len(each.images) + len(each.points_a) for each in edges.shared]
    return Meetings(
        np.repeat(edges.first, counts),
        np.repeat(edges.second, counts),
        np.concatenate(at_a),
        np.concatenate(at_b),
        np.concatenate(sigma),
    )


def _turns(tiles: Sequence[Part], edges: _Edges) -> Turns:
    """Return the directions of the common images of tiles that agree."""
    ends = []
    for side in (edges.first, edges.second):
        arrays = [tiles[row].arrays for row in side.tolist()]
        pairs = zip(arrays, edges.shared, strict=True)
        ends.append([part.rotations[part.rows_of(each.images)] for part, each in pairs])
    counts = [len(each.images) for each in edges.shared]
    return Turns(
        np.repeat(edges.first, counts),
        np.repeat(edges.second, counts),
        np.concatenate(ends[0]),
        np.concatenate(ends[1]),
        np.full(sum(counts), np.radians(_TURN_DEG)),
    )


def _anchors(tiles: Sequence[Part], root: int, limit: float) -> Anchors:
    """Return where GPS alone has each tile, as six places about its middle.

    Without GPS, the root stays where it is.
    """
    placed = any(part.gps.placement is not None for part in tiles)
    rows, at, target, sigma = [], [], [], []
    for row, part in enumerate(tiles):
        if part.gps.placement is not None:
            to_root = between_frames(part.gps.origin, tiles[root].tile.origin)
            there = to_root.after(part.gps.placement)
            spread = np.array(_GPS_SIGMA_M)
        elif row == root and not placed:
            there, spread = _SAME, np.full(3, _FIXED_SHARE * limit)
        else:
            continue
        places = _six_places(part.arrays.centres)
        rows.append(row)
        at.append(places)
        target.append(there.apply(places))
        sigma.append(np.tile(np.sqrt(len(places)) * spread, (len(places), 1)))
    return Anchors(
        np.repeat(np.array(rows, np.int64), 6),
        np.concatenate(at),
        np.concatenate(target),
        np.concatenate(sigma),
    )


def _six_places(centres: Array) -> Array:
    """Return places (6, 3) with the mean and, along the axes, the spread of n centres."""
    middle = centres.mean(axis=0)
    _, values, axes = np.linalg.svd((centres - middle) / np.sqrt(len(centres)), full_matrices=False)
    reach = np.zeros((3, 3))
    reach[: len(axes)] = np.sqrt(3.0) * np.maximum(values, 0.05 * values[0])[:, None] * axes
    return np.concatenate([middle + reach, middle - reach])


def _objection(
    parts: Sequence[Part],
    agreements: Sequence[Agreement],
    group: Group,
    names: Sequence[str],
    by_name: Mapping[str, Mapping[str, Any]],
    gps_sigma_m: float,
) -> tuple[int, str] | None:
    """Return the part that contradicts its group most, and how; None where all agree."""
    if len(group.members) == 1:
        return None
    torn = _torn(parts, agreements, group)
    if torn is not None:
        return torn
    images = group.poses.image
    held = [names[number] for number in images.tolist()]
    joint = fit_to_gps(held, group.poses.centres, group.poses.rotations, by_name, gps_sigma_m)
    new = newly_misplaced(joint, [parts[part].gps for part in group.members], len(held))
    if not new:
        return None
    wrong = images[np.array([name in new for name in held], bool)]
    shares = [float(np.isin(parts[part].arrays.image, wrong).mean()) for part in group.members]
    row = _worst(parts, group.members, np.array(shares))
    count = int(np.isin(parts[group.members[row]].arrays.image, wrong).sum())
    return group.members[row], (
        f"GPS and drives would contradict {count} of {len(parts[group.members[row]].arrays.image)} "
        f"images of {parts[group.members[row]].tile.name} among tiles that agree with it"
    )


def _torn(
    parts: Sequence[Part], agreements: Sequence[Agreement], group: Group
) -> tuple[int, str] | None:
    """Return the part whose common images lie elsewhere in most of its neighbours; None if none."""
    row_of = {part: row for row, part in enumerate(group.members)}
    common, differing = np.zeros((2, len(group.members)), np.int64)
    torn = np.zeros(len(group.members), bool)
    for each in agreements:
        if each.a not in row_of or each.b not in row_of:
            continue
        rows = [row_of[each.a], row_of[each.b]]
        ours, theirs = (parts[part].arrays for part in (each.a, each.b))
        to_ours, to_theirs = (group.similarities[row] for row in rows)
        wrong = overlap_of(ours, theirs, to_ours, to_theirs, group.limit).differs()
        common[rows] += len(wrong)
        differing[rows] += wrong.sum()
        torn[rows] |= wrong.mean() > _TORN_SEAM
    share = differing / np.maximum(common, 1)
    if not (torn | (share > MAX_TORN)).any():
        return None
    metres = " m" if group.georegistered else ""
    row = _worst(parts, group.members, np.where(torn | (share > MAX_TORN), share, -1.0))
    name, over = parts[group.members[row]].tile.name, f"{group.limit:.2f}{metres}"
    return group.members[row], (
        f"{differing[row]} of {common[row]} images of {name} lie over {over} or "
        f"{MAX_TURN_DEG:.0f} degrees from where other tiles have them"
    )


def _worst(parts: Sequence[Part], members: Sequence[int], share: Array) -> int:
    """Return the row of the largest share; of equal ones that which GPS bears out least."""
    gps = np.array([parts[part].gps.median for part in members])
    images = np.array([len(parts[part].arrays.image) for part in members])
    order: Indices = np.lexsort((-np.arange(len(members)), images, -gps, -np.round(share, 6)))
    return int(order[0])
