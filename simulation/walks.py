"""Ways through a street network: which crossings drives pass, and the lanes between them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from vladmap.simulation.camera import Array
from vladmap.simulation.city import CLOSED_BEFORE
from vladmap.simulation.layout import Street, ends_of, streets_of
from vladmap.simulation.route import LANE, TURN_RADIUS, direction

_TURNS_BEFORE = 9.0  # m from a house that closes a street
_U_TURN_RADIUS = LANE
_STEP = 0.1  # m between the points of a path
_RETURNS = 0.8  # of its length after which a tour goes back to where it began
_LAPS = 1.2  # at least
_TOGETHER = 2  # streets that a drive begins with, which another drove before

Node = tuple[float, float]  # a crossing, or where one turns in a dead end, in streets


@dataclass
class Network:
    """The crossings of a street network and how often each street was driven each way."""

    blocks: tuple[int, int]
    closed: frozenset[Street]
    pitch: tuple[float, float]
    driven: Counter[tuple[Node, Node]] = field(default_factory=Counter)
    walks: list[list[Node]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.next: dict[Node, list[Node]] = {}
        for street in streets_of(self.blocks):
            first: Node
            second: Node
            first, second = ends_of(street)
            if street in self.closed:
                axis = street[2]
                end = 1.0 - (CLOSED_BEFORE + _TURNS_BEFORE) / self.pitch[axis]
                second = (first[0] + end * (1 - axis), first[1] + end * axis)
            self.next.setdefault(first, []).append(second)
            self.next.setdefault(second, []).append(first)

    def place(self, node: Node) -> Array:
        """(2,) m east and north."""
        return np.array(node) * self.pitch

    def length(self, walk: Sequence[Node]) -> float:
        """m along the centre lines."""
        places = np.array([self.place(node) for node in walk])
        return float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())

    def add(self, walk: list[Node]) -> list[Node]:
        """Note that a walk was driven."""
        self.driven.update(pairwise(walk))
        self.walks.append(walk)
        return walk

    # --- ways to drive -------------------------------------------------------------------------

    def tour(self, length: float, rng: np.random.Generator) -> list[Node]:
        """Through the streets driven least, back to where it began, and that again."""
        walk = self._beginning(rng)
        while self.length(walk) < _RETURNS * length:
            self._go_on(walk, rng, opposite=False)
        first = list(walk)
        while self.length(walk) < length:
            walk += self._way(walk, first[0], first[1])
            walk += first[1:]
        return self.add(walk)

    def back(self, length: float, rng: np.random.Generator) -> list[Node]:
        """First where another drove, then against the direction of the drives before."""
        walk = self._beginning(rng)
        while self.length(walk) < length:
            self._go_on(walk, rng, opposite=True)
        return self.add(walk)

    def laps(self, length: float, rng: np.random.Generator) -> list[Node]:
        """Round a rectangle of blocks again and again, as far as can be as others drove."""
        best: list[tuple[int, float, list[Node]]] = []
        for ring in _rings(self.blocks):
            whole = all(after in self.next[before] for before, after in pairwise(ring))
            if whole and _LAPS * self.length(ring) <= length:
                run, start = self._shared_run(ring)
                turned = ring[start:-1] + ring[: start + 1]
                best.append((run, float(rng.random()), turned))
        if not best:
            return self.tour(length, rng)
        ring = max(best, key=lambda each: each[:2])[2]
        walk = list(ring)
        while self.length(walk) < length:
            walk += ring[1:]
        return self.add(walk)

    def _shared_run(self, ring: Sequence[Node]) -> tuple[int, int]:
        """How many streets of a ring, one after the other, were driven its way, and from where."""
        shared = np.array([self.driven[leg] > 0 for leg in pairwise(ring)])
        runs = [int(np.roll(shared, -start).cumprod().sum()) for start in range(len(shared))]
        return max(runs), int(np.argmax(runs))

    def _beginning(self, rng: np.random.Generator) -> list[Node]:
        """A few streets that an earlier drive drove, or of the first drive one at random."""
        if not self.walks:
            crossings = sorted(node for node in self.next if len(self.next[node]) > 1)
            first = crossings[rng.integers(len(crossings))]
            others = [node for node in self.next[first] if len(self.next[node]) > 1]
            return [first, others[rng.integers(len(others))]]
        other = self.walks[rng.integers(len(self.walks))]
        start = int(rng.integers(max(1, len(other) - _TOGETHER)))
        return other[start : start + _TOGETHER + 1]

    def _go_on(self, walk: list[Node], rng: np.random.Generator, *, opposite: bool) -> None:
        """One street more: the least driven, or that which was driven the other way alone."""
        here, before = walk[-1], walk[-2]
        choices = [node for node in self.next[here] if node != before] or [before]
        own = Counter(pairwise(walk))

        def cost(node: Node) -> tuple[float, ...]:
            along = self.driven[here, node] + own[here, node]
            against = self.driven[node, here] + own[node, here]
            chance = float(rng.random())
            if opposite:
                return (own[here, node], along > 0 or against == 0, along, chance)
            return (own[here, node], along + against, chance)

        walk.append(min(choices, key=cost))

    def _way(self, walk: Sequence[Node], goal: Node, then: Node) -> list[Node]:
        """The fewest streets from a walk's end to a crossing, so that it can go on to `then`
        without turning round."""
        first = (walk[-2], walk[-1])
        if first[1] == goal and first[0] != then:
            return []
        came: dict[tuple[Node, Node], tuple[Node, Node] | None] = {first: None}
        queue = deque([first])
        while queue:
            leg = queue.popleft()
            for node in self.next[leg[1]]:
                step = (leg[1], node)
                turns = node == leg[0] and len(self.next[leg[1]]) > 1
                if step in came or turns:
                    continue
                came[step] = leg
                if node == goal and (leg[1] != then or len(self.next[goal]) == 1):
                    way = []
                    at: tuple[Node, Node] | None = step
                    while at is not None and at != first:
                        way.append(at[1])
                        at = came[at]
                    return way[::-1]
                queue.append(step)
        raise AssertionError("a network's crossings are connected")


def lane_of(places: Array) -> tuple[Array, Array, Array]:
    """The right-hand lane along a walk of (P, 2) places: points (S, 2) in metres, every 0.1 m,
    headings (S,) in degrees, and the (S,) number of the leg that each lies on.

    Corners are rounded; where the walk turns back, so does the lane, to the left.
    """
    ahead = np.diff(places, axis=0)
    length = np.linalg.norm(ahead, axis=1)
    ahead /= length[:, None]
    right = np.stack([ahead[:, 1], -ahead[:, 0]], 1)
    heading = np.degrees(np.arctan2(ahead[:, 0], ahead[:, 1]))
    points: list[Array] = []
    headings: list[Array] = []
    legs: list[Array] = []

    def add(some: Array, turned: Array, leg: int) -> None:
        points.append(some)
        headings.append(turned)
        legs.append(np.full(len(some), leg))

    at = places[0] + LANE * right[0]
    for leg in range(len(ahead)):
        last = leg + 1 == len(ahead)
        turn = 0.0 if last else float((heading[leg + 1] - heading[leg] + 180.0) % 360.0 - 180.0)
        end = places[leg + 1] + LANE * right[leg]
        if abs(abs(turn) - 90.0) < 1e-6:
            end = end + LANE * right[leg + 1] - TURN_RADIUS * ahead[leg]
        way = float((end - at) @ ahead[leg])
        steps = np.arange(0.0, max(way, 0.0), _STEP)
        add(at + steps[:, None] * ahead[leg], np.full(len(steps), heading[leg]), leg)
        at = end
        if abs(turn) > 1.0:
            back = abs(turn) > 91.0
            radius, turn = (_U_TURN_RADIUS, -180.0) if back else (TURN_RADIUS, turn)
            side = 90.0 if turn > 0 else -90.0
            middle = at + radius * direction(heading[leg] + side)
            swept = np.linspace(0.0, turn, max(2, round(radius * np.radians(abs(turn)) / _STEP)))
            swept = swept[:-1]
            add(middle - radius * direction(heading[leg] + swept + side), heading[leg] + swept, leg)
            at = middle - radius * direction(heading[leg] + turn + side)
    return np.concatenate(points), np.concatenate(headings), np.concatenate(legs)


def _rings(blocks: tuple[int, int]) -> Iterator[list[Node]]:
    """The crossings around one to two by one to two blocks, both ways; the first again last."""
    for east, north in ((1, 1), (1, 2), (2, 1), (2, 2)):
        for i in range(blocks[0] - east + 1):
            for j in range(blocks[1] - north + 1):
                ring: list[Node] = [(i + k, j) for k in range(east)]
                ring += [(i + east, j + k) for k in range(north)]
                ring += [(i + east - k, j + north) for k in range(east)]
                ring += [(i, j + north - k) for k in range(north + 1)]
                yield ring
                yield ring[::-1]
