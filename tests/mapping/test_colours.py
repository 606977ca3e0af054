"""Colours of points: where they are taken from, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.mapping.test_tile_merge import HEIGHT, WIDTH, model_of, name_of
from vladmap.features.colmap import pycolmap
from vladmap.mapping.colours import PointColours, sample


def test_colours_are_bilinear_between_the_centres_of_pixels() -> None:
    picture = np.array([[[0, 0, 0], [100, 0, 0]], [[0, 100, 0], [100, 100, 50]]], np.uint8)
    places = np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [2.0, -1.0]])
    np.testing.assert_allclose(
        sample(picture, places),
        [[0, 0, 0], [100, 0, 0], [50, 50, 12.5], [0, 0, 0], [100, 100, 50], [100, 0, 0]],
    )


def test_a_picture_of_one_pixel_has_one_colour() -> None:
    grey = np.full((1, 1, 3), 7, np.uint8)
    np.testing.assert_array_equal(sample(grey, np.array([[0.1, 0.9], [1.0, 0.0]])), 7.0)


def picture(seed: int, scale: int = 1) -> np.ndarray:
    """Smooth colours, so that a reduced picture shows the same."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH // scale), np.linspace(0, 1, HEIGHT // scale))
    bands = [np.sin((seed + 1) * x * 3), np.cos(seed + y * 2), x * y]
    return np.rint(127 + 120 * np.stack(bands, axis=2)).clip(0, 255).astype(np.uint8)


def colour_points(
    models: list[pycolmap.Reconstruction], photographs: Iterable[tuple[str, np.ndarray]]
) -> int:
    colours = PointColours(models)
    for name, pixels in photographs:
        colours.add(name, pixels)
    return colours.finish()


def test_a_point_has_the_mean_colour_of_where_it_is_seen() -> None:
    """Issue 19, 13: points have colours, by hand for every point of a model."""
    model = model_of(range(6))
    assert not any(point.color.any() for point in model.points3D.values())
    shown = {name_of(number): picture(number) for number in range(6)}
    assert colour_points([model], shown.items()) == 0
    for number in sorted(model.points3D)[::40]:
        point = model.point3D(number)
        colours = []
        for element in point.track.elements:
            image = model.image(element.image_id)
            xy = image.points2D[element.point2D_idx].xy
            colours.append(sample(shown[image.name], xy[None] / [WIDTH, HEIGHT])[0])
        np.testing.assert_array_equal(point.color, np.rint(np.mean(colours, axis=0)))


def test_colours_agree_with_colmaps_own(tmp_path: Path) -> None:
    """Issue 19, 13: the same as extract_colors_for_all_images where pixels are stored upright."""
    ours, theirs = model_of(range(6)), model_of(range(6))
    for number in range(6):
        # Without loss, whatever the name says: COLMAP looks at the bytes.
        Image.fromarray(picture(number)).save(tmp_path / name_of(number), format="PNG")
    theirs.extract_colors_for_all_images(str(tmp_path))
    colour_points([ours], ((name_of(number), picture(number)) for number in range(6)))
    inside = [
        number
        for number, point in ours.points3D.items()
        # COLMAP passes over what is seen within the outer half of a border pixel.
        if all(
            0.5 <= xy[0] <= WIDTH - 1.5 and 0.5 <= xy[1] <= HEIGHT - 1.5
            for element in point.track.elements
            for xy in [ours.image(element.image_id).points2D[element.point2D_idx].xy]
        )
    ]
    assert len(inside) > 0.9 * ours.num_points3D()
    a, b = (np.array([model.point3D(n).color for n in inside], int) for model in (ours, theirs))
    assert np.abs(a - b).max() <= 1


def test_a_reduced_picture_gives_nearly_the_same_colours() -> None:
    full, reduced = model_of(range(6)), model_of(range(6))
    colour_points([full], ((name_of(number), picture(number)) for number in range(6)))
    colour_points([reduced], ((name_of(number), picture(number, 4)) for number in range(6)))
    a, b = (
        np.array([model.point3D(number).color for number in sorted(model.points3D)], int)
        for model in (full, reduced)
    )
    assert np.abs(a - b).max() <= 4


def test_points_that_no_photograph_shows_are_counted_and_black() -> None:
    """Issue 19, 13: a photograph that is gone costs its own share alone."""
    model = model_of(range(6))
    only = {number for number, point in model.points3D.items() if seen_by(point) == {5, 6}}
    assert only
    names = [name_of(number) for number in range(4)]
    left = colour_points([model], ((name, picture(1)) for name in names))
    black = {number for number, point in model.points3D.items() if not point.color.any()}
    assert left == len(black)
    assert only <= black


def seen_by(point: pycolmap.Point3D) -> set[int]:
    return {element.image_id for element in point.track.elements}


def test_an_image_of_two_models_is_wanted_once_and_colours_both() -> None:
    a, b = model_of(range(4)), model_of(range(2, 6))
    colours = PointColours([a, b])
    assert colours.names() == [name_of(number) for number in range(6)]
    for name in colours.names():
        colours.add(name, np.full((4, 4, 3), 9, np.uint8))
    assert colours.finish() == 0
    assert {tuple(p.color) for model in (a, b) for p in model.points3D.values()} == {(9, 9, 9)}


def test_nothing_to_colour_is_nothing() -> None:
    assert colour_points([], []) == 0
    assert PointColours([pycolmap.Reconstruction()]).finish() == 0
