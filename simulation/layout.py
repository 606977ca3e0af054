"""What differs from block to block of a street network: parks, squares, dead ends, repetitions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Block = tuple[int, int]
Side = tuple[int, int, int]  # block (i, j) and its side: 0 south, 1 north, 2 east, 3 west
Street = tuple[int, int, int]  # from crossing (i, j): 0 eastwards, 1 northwards

_TREES = 0.2  # share of the sides of blocks with trees before them


@dataclass(frozen=True)
class Layout:
    """By default every block is built on all sides, each house is another, every street goes on.

    closed: streets that end at a house before their far end. repeated: blocks with the number of
    the block whose houses they have. terraces: sides whose houses are all alike. trees: sides with
    trees before them.
    """

    parks: frozenset[Block] = frozenset()
    squares: frozenset[Block] = frozenset()
    closed: frozenset[Street] = frozenset()
    repeated: dict[Block, int] = field(default_factory=dict)
    terraces: frozenset[Side] = frozenset()
    trees: frozenset[Side] = frozenset()


def draw_layout(
    seed: int, blocks: tuple[int, int], repeated: float = 0.0, terraces: float = 0.0
) -> Layout:
    """The layout of a network with east x north blocks to drive around and a ring around them.

    From four blocks on one is a square, one a park, and a street in twelve ends blindly; the
    crossings stay connected. Of the other blocks the share `repeated` has the houses of one of two
    designs for whole blocks, of the other sides the share `terraces` has one house repeated.
    """
    rng = np.random.default_rng([seed, 61])
    inner = [(i, j) for i in range(blocks[0]) for j in range(blocks[1])]
    chosen = [inner[k] for k in rng.permutation(len(inner))]
    squares = frozenset(chosen[: len(inner) // 4 and max(1, len(inner) // 12)])
    parks = frozenset(chosen[len(squares) : 2 * len(squares)])
    every = [(i, j) for i in range(-1, blocks[0] + 1) for j in range(-1, blocks[1] + 1)]
    built = [block for block in every if block not in squares | parks]
    count = round(repeated * len(built))
    alike = {built[k]: int(rng.integers(2)) for k in rng.permutation(len(built))[:count]}
    sides = [(*block, side) for block in built if block not in alike for side in range(4)]
    rows = rng.permutation(len(sides))[: round(terraces * len(sides))]
    planted = [(*block, side) for block in every for side in range(4) if rng.random() < _TREES]
    return Layout(
        parks,
        squares,
        _dead_ends(blocks, rng) if len(inner) >= 4 else frozenset(),
        alike,
        frozenset(sides[k] for k in rows),
        frozenset(planted),
    )


def streets_of(blocks: tuple[int, int]) -> list[Street]:
    """The streets between neighbouring crossings that drives take."""
    across = [(i, j, 0) for i in range(blocks[0]) for j in range(blocks[1] + 1)]
    upward = [(i, j, 1) for i in range(blocks[0] + 1) for j in range(blocks[1])]
    return across + upward


def ends_of(street: Street) -> tuple[Block, Block]:
    """The crossings that a street joins."""
    i, j, axis = street
    return (i, j), (i + 1 - axis, j + axis)


def _dead_ends(blocks: tuple[int, int], rng: np.random.Generator) -> frozenset[Street]:
    """Streets that can be closed one after the other while three others meet at either end."""
    streets = streets_of(blocks)
    degree: dict[Block, int] = {}
    for street in streets:
        for end in ends_of(street):
            degree[end] = degree.get(end, 0) + 1
    closed: list[Street] = []
    for k in rng.permutation(len(streets)):
        ends = ends_of(streets[k])
        if len(closed) < max(1, len(streets) // 12) and min(degree[end] for end in ends) > 2:
            closed.append(streets[k])
            for end in ends:
                degree[end] -= 2  # no other beside it
    return frozenset(closed)
