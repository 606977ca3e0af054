"""Trees of many small quads: in leaf, in autumn's colours, or bare."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vladmap.simulation.materials import Material
from vladmap.simulation.quads import UP, Quads, Vector

Season = Literal["leaf", "autumn", "bare"]

ROUND, CONIFER, COLUMN = 0, 1, 2

_BRANCHES = 34  # at most
_CLUSTERS = 60  # of leaves a tree, where nothing else is asked for
_GREENS = np.array([[0.31, 0.46, 0.18], [0.4, 0.52, 0.25], [0.28, 0.42, 0.22], [0.47, 0.55, 0.26]])
_AUTUMN = np.array([[0.72, 0.5, 0.16], [0.7, 0.36, 0.14], [0.55, 0.26, 0.14], [0.6, 0.52, 0.22]])
_NEEDLES = np.array([0.2, 0.32, 0.21])
_BARK = np.array([0.34, 0.29, 0.25])

Array = NDArray[np.float64]


def draw_tree(rng: np.random.Generator) -> Vector:
    """(4,): height (m), crown radius (m), kind of a tree and its detail: clusters of leaves."""
    kind = int(rng.choice([ROUND, ROUND, ROUND, CONIFER, COLUMN]))
    height = float(rng.uniform(4.5, 12.0))
    slender = {ROUND: rng.uniform(0.26, 0.38), CONIFER: 0.22, COLUMN: 0.14}[kind]
    return np.array([height, max(0.9, height * slender), kind, _CLUSTERS])


def grow(trees: Array, seed: int, season: Season, fullness: float = 1.0) -> Quads | None:
    """The quads of (T, 7) trees as in `City.trees`; None of no trees.

    A seed's tree keeps its trunk, its branches and the places of its leaves in all seasons.
    `fullness`: the share of the leaves that are there, 0 to 1. Conifers stay green.
    """
    if len(trees) == 0:
        return None
    parts: list[tuple[Array, ...]] = []
    for number, tree in enumerate(trees):
        rng = np.random.default_rng([seed, 31, number])
        leaves = _leaves(tree, rng, season, fullness)
        evergreen = tree[5] == CONIFER
        count = min(_BRANCHES, 6 + int(tree[6]) // 6)
        branches = _branches(tree, rng, 0 if evergreen or season == "leaf" else count)
        parts.extend((branches,) if season == "bare" and not evergreen else (branches, leaves))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    corner, u, v, extent, tint = columns
    return Quads.plain(corner, u, v, extent, Material.GRASS, tint)


def _leaves(
    tree: Array, rng: np.random.Generator, season: Season, fullness: float
) -> tuple[Array, ...]:
    foot, (height, radius, kind), count = tree[:3], tree[3:6], int(tree[6])
    outward = rng.normal(size=(count, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    depth = rng.uniform(0.55, 1.0, count) ** 0.5
    low = 0.12 if kind == CONIFER else 0.3
    middle, half = height * (1 + low) / 2, height * (1 - low) / 2
    place = outward * depth[:, None] * np.array([radius, radius, half])
    if kind == CONIFER:  # a cone: narrower the higher
        share = rng.uniform(0, 1, count) ** 1.6  # most of it is low
        turn = rng.uniform(0, 2 * np.pi, count)
        across = radius * (1 - share) * depth
        place = np.stack([across * np.cos(turn), across * np.sin(turn)], 1)
        place = np.column_stack([place, (2 * share - 1) * half])
        outward = np.column_stack([np.cos(turn), np.sin(turn), np.full(count, 0.5)])
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    normal = outward + 0.55 * rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    size = rng.uniform(0.6, 1.3, (count, 2)) * np.sqrt(9.0 * radius * half / count)
    u, v = _across(normal, rng.uniform(0, 2 * np.pi, count))
    corner = foot + [0, 0, middle] + place - 0.5 * (u * size[:, :1] + v * size[:, 1:])
    green, brown = _GREENS[rng.integers(4)], _AUTUMN[rng.integers(4)]
    turned = np.clip(rng.normal(0.8, 0.2, (count, 1)), 0, 1) if season == "autumn" else 0.0
    colour = green + turned * (brown - green)
    if kind == CONIFER:
        colour = _NEEDLES
    # Deep in the crown little light arrives.
    light = rng.uniform(0.7, 1.15, count) * (0.55 + 0.45 * (depth - 0.74) / 0.26)
    tint = np.broadcast_to(colour, (count, 3)) * light[:, None].clip(0.3)
    there = rng.random(count) < fullness
    return corner[there], u[there], v[there], size[there], tint[there]


def _branches(tree: Array, rng: np.random.Generator, count: int) -> tuple[Array, ...]:
    """A trunk and `count` branches and twigs: prisms of three sides each."""
    foot, (height, radius, kind) = tree[:3], tree[3:6]
    trunk = 0.035 * height
    start = np.array([[0, 0, 0]])
    end = np.array([[0, 0, height * (0.95 if kind == CONIFER or count else 0.55)]])
    width = np.array([trunk])
    if count:
        primary = max(1, count // 4)
        rise = rng.uniform(0.28, 0.75, primary)
        turn = np.arange(primary) * 2.4 + rng.uniform(0, 6)
        reach = radius * rng.uniform(0.7, 1.0, primary)
        from_trunk = np.column_stack([np.zeros((primary, 2)), rise * height])
        lift = np.minimum(height * rng.uniform(0.15, 0.35, primary), height * (1.0 - rise))
        to = np.column_stack([reach * np.cos(turn), reach * np.sin(turn), rise * height + lift])
        parent = rng.integers(primary, size=count - primary)
        share = rng.uniform(0.3, 0.95, (count - primary, 1))
        at = from_trunk[parent] + share * (to - from_trunk)[parent]
        twig = at + radius * np.array([0.45, 0.45, 0.35]) * rng.normal(size=at.shape)
        twig[:, 2] = np.minimum(np.maximum(twig[:, 2], at[:, 2]), height)
        start = np.concatenate([start, from_trunk, at])
        end = np.concatenate([end, to, twig])
        width = np.concatenate([width, np.full(primary, 0.3 * trunk), np.full(len(at), 0.05)])
    axis = end - start
    length = np.linalg.norm(axis, axis=1)
    v = axis / np.maximum(length, 1e-6)[:, None]
    first, second = _across(v, rng.uniform(0, 2 * np.pi, len(v)))
    corners, us = [], []
    for k in range(3):
        a, b = (2 * np.pi / 3 * step for step in (k, k + 1))
        ends = [
            width[:, None] / np.sqrt(3.0) * (np.cos(angle) * first + np.sin(angle) * second)
            for angle in (a, b)
        ]
        corners.append(foot + start + ends[0])
        us.append((ends[1] - ends[0]) / width[:, None])
    extent = np.tile(np.column_stack([width, length]), (3, 1))
    tint = np.tile(_BARK * rng.uniform(0.8, 1.15, (len(v), 1)), (3, 1))
    return np.concatenate(corners), np.concatenate(us), np.tile(v, (3, 1)), extent, tint


def _across(normal: Array, turn: Array) -> tuple[Array, Array]:
    """Unit vectors u and v across each normal, u x v = normal, turned about it."""
    helper = np.where(np.abs(normal[:, 2:]) < 0.9, UP, np.array([1.0, 0.0, 0.0]))
    a = np.cross(helper, normal)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(normal, a)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    return cos * a + sin * b, cos * b - sin * a
