"""Where a connected graph of images is cut, so that few pairs are lost and each part is connected.

A part is cut into two, and each of these again, until each fits into a tile. A cut is the one that
the fewest pairs cross of all that are near a line of a fixed grid (that of the quadtree of Web
Mercator): a minimum cut, found as a maximum flow (Ford and Fulkerson, 1956). Coarse lines come
first: a collection that grows keeps them, and cuts near them depend on nothing that is far from
them, so that parts far from what is new stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    maximum_flow,
    reverse_cuthill_mckee,
)

from vladmap.mapping.arrays import Array, Bools, Indices

MOST, FULL = 0.85, 0.9
"""Of a tile's bound, the share that its core is to have at most, and the share that it may have if
there are fewer tiles then; the rest is left to its overlap."""
# Cuts near coarse lines lead to at most so many tiles, over images / bound.
_ALLOWED = 1.5
# What comes to more tiles than this is cut near the coarsest line, which stays as a collection
# grows; of what comes to fewer, so many lines along each axis are tried, and the best cut wins.
_FREE = 4
_LINES = 3
# A cut may leave its line by so many images, as a share of the bound.
_BAND = 0.2
# No less than these shares of a part, or of the bound, is cut off if it can be helped.
_LEAST_SHARE = 0.25
_LEAST = 0.5
# A line that is finer by one level has to lose fewer pairs by this share; a cut that leaves its
# line, by a fifth.
_PER_LEVEL = 0.1
_CAPACITY, _CAPACITY_AT_LINE = 5, 4
_MAX_LEVEL = 30
_MAX_LATITUDE = 85.0511


@dataclass(frozen=True)
class _Part:
    """Some images: their rows in the collection (k,), places along each axis, and their pairs.

    `axes` are of whole numbers (k,), whose bits say which lines of the grid lie between two of
    them. `graph` (k, k) is symmetric; it holds the number of pairs.
    """

    rows: Indices
    axes: list[Indices]
    graph: sparse.csr_array

    def some(self, inside: Indices) -> _Part:
        axes = [axis[inside] for axis in self.axes]
        return _Part(self.rows[inside], axes, self.graph[inside][:, inside])


@dataclass(frozen=True)
class _Line:
    """A line between the first `at` images of an `order` (k,) and the others.

    `level` is high where the line is coarse, `tiles` the number of tiles that it leads to. A cut
    near the line has at least and at most `near` images before it; in `fitting` are those counts
    that lead to no more tiles.
    """

    order: Indices
    at: int
    level: int
    tiles: int
    near: tuple[int, int]
    fitting: tuple[int, int]


@dataclass(frozen=True)
class _Cut:
    """The first `side` (k,) of a cut, the `tiles` that it leads to, and how `bad` it is: pairs lost
    for each image of the smaller side."""

    side: Bools
    tiles: int
    bad: float


@dataclass(frozen=True)
class _Budget:
    """How many tiles of at most `bound` images, cores of at most `core`, may come of images: as
    many as must be, or `share` times images / bound if that is more."""

    bound: int
    core: int
    share: float = 1.0

    def tiles(self, images: Indices) -> Indices:
        few = (self.share * images / self.bound).astype(np.int64)
        return np.maximum(-(-images // self.core), few)

    def tiles_of(self, count: int) -> int:
        return int(self.tiles(np.array([count]))[0])


def cut_into_cores(
    members: Indices, latitude: Array, longitude: Array, graph: sparse.csr_array, max_images: int
) -> list[Indices]:
    """Cut one connected component of the graph into connected cores of tiles.

    `members` (m,) are rows of `latitude` and `longitude` (n,), in degrees, either all known or all
    NaN, and of `graph` (n, n), the symmetric numbers of pairs; so are the cores. A core has at most
    FULL of `max_images`.
    """
    largest = _core(FULL, max_images)
    if len(members) <= largest:
        return [members]
    cores: list[Indices] = []
    part = _Part(members, [], graph[members][:, members])
    if np.isfinite(latitude[members]).all():
        part.axes.extend(_grid_places(latitude[members], longitude[members]))
    waiting = [part]
    while waiting:
        part = waiting.pop()
        if len(part.rows) <= largest:
            cores.append(part.rows)
        else:
            before = _best_cut(part, max_images)
            waiting += [part.some(np.flatnonzero(side)) for side in (before, ~before)]
    return cores


def _core(share: float, max_images: int) -> int:
    return max(1, int(share * max_images))


def _grid_places(latitude: Array, longitude: Array) -> Iterator[Indices]:
    """Web Mercator's x and y as whole numbers, so that each bit stands for a level of the grid."""
    x = (longitude + 180.0) / 360.0
    sine = np.sin(np.radians(np.clip(latitude, -_MAX_LATITUDE, _MAX_LATITUDE)))
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)
    steps = 1 << _MAX_LEVEL
    for value in (x, y):
        yield (value * steps).clip(0, steps - 1).astype(np.int64)


def _best_cut(part: _Part, max_images: int) -> Bools:
    """Return which images, (k,), are on the first side of the best cut; both are connected.

    What comes to many tiles is cut near the coarsest line. The rest is cut where it is best, along
    the grid, or if that tears sides apart so that more tiles come of them, in an order along the
    graph, or into fuller cores. Without places, or if all are the same, the graph's order is all.
    """
    budget = _Budget(max_images, _core(MOST, max_images))
    count = len(part.rows)
    placed = any(np.ptp(axis) for axis in part.axes)
    if placed and budget.tiles_of(count) > _FREE:
        return _near_the_coarsest(part, replace(budget, share=_ALLOWED))
    rank = _along_graph(part.graph)
    tries = [(part.axes, budget)] if placed else []
    tries += [([rank, rank], budget)]
    tries += [(part.axes, _Budget(max_images, _core(FULL, max_images)))] if placed else []
    found: list[_Cut] = []
    for axes, each in tries:
        found.append(_best_of(_lines_of(axes, each), part.graph, each))
        if found[-1].tiles <= budget.tiles_of(count):
            break
    return min(found, key=lambda cut: (cut.tiles, cut.bad)).side


def _near_the_coarsest(part: _Part, budget: _Budget) -> Bools:
    """Return the first side (k,) of the best cut near the coarsest line that leads to few tiles."""
    line = _coarsest(_lines_of(part.axes, budget))
    cuts = (_cut(part.graph, line, band, budget) for band in (line.near, line.fitting))
    first = next(cuts)
    if first.tiles <= line.tiles:
        return first.side
    return min(first, next(cuts), key=lambda cut: (cut.tiles, cut.bad)).side


def _best_of(lines: Sequence[_Line], graph: sparse.csr_array, budget: _Budget) -> _Cut:
    """Return the best of the cuts near some lines that lead to no more tiles than these."""
    level = _coarsest(lines).level
    cuts = [(_cut(graph, line, line.fitting, budget), level - line.level) for line in lines]
    return min(
        (replace(cut, bad=cut.bad * (1 + _PER_LEVEL) ** finer) for cut, finer in cuts),
        key=lambda cut: (cut.tiles, cut.bad),
    )


def _coarsest(lines: Sequence[_Line]) -> _Line:
    return max(lines, key=lambda line: (-line.tiles, line.level))


def _cut(graph: sparse.csr_array, line: _Line, band: tuple[int, int], budget: _Budget) -> _Cut:
    """Return the minimum cut in a band about a line, with both sides connected."""
    side = _connected_sides(graph, _minimum_cut(graph, line, band))
    sizes = np.array([side.sum(), (~side).sum()])
    return _Cut(side, int(budget.tiles(sizes).sum()), _crossing(graph, side) / int(sizes.min()))


def _along_graph(graph: sparse.csr_array) -> Indices:
    """Places in an order in which neighbours in the graph are near each other."""
    order = np.asarray(reverse_cuthill_mckee(graph, symmetric_mode=True), np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _lines_of(axes: Sequence[Indices], budget: _Budget) -> list[_Line]:
    """The lines along both axes, (k,) each; those of one if they are the same."""
    x, y = axes
    lines = list(_lines(x, y, budget))
    return lines if x is y else lines + list(_lines(y, x, budget))


def _lines(axis: Indices, other: Indices, budget: _Budget) -> Iterator[_Line]:
    """The lines of the grid that lead to few tiles, of these the coarsest, of an axis (k,).

    Images at one place of it can be cut apart, too: they are ordered by the `other` axis.
    """
    count = len(axis)
    order = np.lexsort((other, axis))
    before = np.arange(1, count)
    smaller = np.minimum(before, count - before)
    tiles = budget.tiles(before) + budget.tiles(count - before)
    tiles = np.maximum(tiles, budget.tiles_of(count)) + (
        smaller < min(_LEAST_SHARE * count, _LEAST * budget.bound)
    )
    # Places differ from the bit on at which a line lies between them; 0 for the same place.
    _, level = np.frexp((axis[order][1:] ^ axis[order][:-1]).astype(np.float64))
    chosen = np.lexsort((-smaller, -level, tiles))[:_LINES]
    band = int(_BAND * budget.bound)
    for row in chosen.tolist():
        near = max(row - band, 0), min(row + band, count - 2)
        worse = np.flatnonzero(tiles > tiles[row])
        after = int(np.searchsorted(worse, row))
        fitting = (
            max(near[0], int(worse[after - 1]) + 1 if after else 0),
            min(near[1], int(worse[after]) - 1 if after < len(worse) else count - 2),
        )
        yield _Line(
            order,
            row + 1,
            int(level[row]),
            int(tiles[row]),
            (near[0] + 1, near[1] + 1),
            (fitting[0] + 1, fitting[1] + 1),
        )


def _minimum_cut(graph: sparse.csr_array, line: _Line, band: tuple[int, int]) -> Bools:
    """Return which images, (k,), are before the cut near a line that the fewest pairs cross.

    Pairs that cross the line itself count less: where all cuts are alike, it is the line.
    """
    place = np.empty(len(line.order), np.int64)
    place[line.order] = np.arange(len(line.order))
    least, most = band
    if least == most:
        return np.asarray(place < line.at, bool)
    # Nodes: all images that are surely before, all that are surely behind, and those in between.
    between = line.order[least:most]
    node = np.where(place < least, 0, np.where(place >= most, 1, 2 + place - least))
    edges = graph[between].tocoo()
    rows, columns = between[edges.row], edges.col
    over = (place[rows] < line.at) != (place[columns] < line.at)
    capacity = edges.data * np.where(over, _CAPACITY_AT_LINE, _CAPACITY)
    # Pairs among those in between are there from both ends, those with the others from one.
    ends, outside = (node[rows], node[columns]), node[columns] < 2
    size = 2 + len(between)
    capacities = sparse.csr_array(
        (
            np.concatenate([capacity, capacity[outside]]).astype(np.int32),
            (
                np.concatenate([ends[0], ends[1][outside]]),
                np.concatenate([ends[1], ends[0][outside]]),
            ),
        ),
        shape=(size, size),
    )
    capacities.sum_duplicates()
    left = sparse.csr_array(capacities - maximum_flow(capacities, 0, 1).flow)
    left.eliminate_zeros()
    # What can still be reached is before the cut, whichever maximum flow was found.
    reached = np.zeros(size, bool)
    reached[breadth_first_order(left, 0, return_predecessors=False)] = True
    return np.asarray(reached[node], bool)


def _connected_sides(graph: sparse.csr_array, side: Bools) -> Bools:
    """Return a cut (k,) both of whose sides are connected, as the graph is.

    All but the largest component of a side joins the other side, first of one, then of the other.
    """
    edges = graph.tocoo()
    for one in (True, False):
        inside = (side[edges.row] == one) & (side[edges.col] == one)
        among = sparse.csr_array(
            (edges.data[inside], (edges.row[inside], edges.col[inside])), shape=graph.shape
        )
        _, component = connected_components(among, directed=False)
        own = np.flatnonzero(side == one)
        sizes = np.bincount(component[own])
        side = side.copy()
        side[own[component[own] != np.argmax(sizes)]] = not one
    return side


def _crossing(graph: sparse.csr_array, side: Bools) -> int:
    """How many pairs a cut (k,) loses."""
    edges = graph.tocoo()
    return int(edges.data[side[edges.row] & ~side[edges.col]].sum())
