"""The lens: exposure, noise, blur and distortion, each on a picture worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vladmap.simulation.lens import Lenses, draw_lenses, expose


def plain(count: int = 1, **settings: float) -> Lenses:
    """A perfect lens that aims at middle grey."""
    usual = {
        "exposure": 0.5, "saturation": 1.0, "contrast": 1.0, "distortion": 0.0, "vignette": 0.0,
        "focus": 0.0, "motion": 0.0, "motion_deg": 0.0, "noise": 0.0, "bloom": 0.0, "flakes": 0.0,
        "streaks": 0.0,
    }  # fmt: skip
    arrays = {name: np.full(count, value) for name, value in {**usual, **settings}.items()}
    return Lenses(white=np.ones((count, 3)), seeds=np.arange(count), **arrays)


def scene() -> torch.Tensor:
    """Vertical stripes, dark and bright, 8 px wide."""
    stripes = torch.where((torch.arange(64) // 8) % 2 == 0, 0.04, 0.36)
    return stripes.expand(1, 3, 48, 64).contiguous()


def test_a_perfect_lens_aims_at_the_grey_asked_for() -> None:
    # Display values 0.2 and 0.6, mean 0.4; to reach 0.5 both grow by 1.25: 0.25 and 0.75.
    picture = expose(scene(), plain())
    assert picture.shape == (1, 48, 64, 3)
    assert picture.dtype == torch.uint8
    np.testing.assert_allclose(picture[0, 24, [4, 12], 0].numpy(), [64, 191], atol=1)


def test_exposure_does_not_depend_on_the_strength_of_the_light() -> None:
    bright, dim = expose(scene(), plain()), expose(0.1 * scene(), plain())
    assert (bright.int() - dim.int()).abs().max() <= 1


def test_white_balance_saturation_and_vignette() -> None:
    warm = replace(plain(), white=np.array([[1.2, 1.0, 0.8]]))
    red, green, blue = expose(scene(), warm)[0].double().mean((0, 1))
    assert red > green > blue
    grey = expose(scene(), replace(warm, saturation=np.zeros(1)))[0].int()
    assert (grey[..., 0] - grey[..., 2]).abs().max() <= 1
    corner = expose(torch.full((1, 3, 48, 64), 0.3), plain(vignette=0.5))[0].int()
    assert corner[0, 0, 0] < 0.8 * corner[24, 32, 0]


def test_noise_has_the_strength_asked_for_and_comes_from_the_seed() -> None:
    lens = plain(2, noise=0.05)
    flat = torch.full((2, 3, 48, 64), 0.25)
    pictures = expose(flat, lens).double() / 255
    # At display value 0.5, gain 1: 0.05 * (0.3 + 0.5).
    assert float(pictures.std()) == pytest.approx(0.04, rel=0.15)
    assert not torch.equal(pictures[0], pictures[1])
    assert torch.equal(expose(flat, lens), expose(flat, lens))


def test_motion_softens_along_its_way_only() -> None:
    sharp, along, across = (
        expose(scene(), plain(motion=length, motion_deg=angle))
        for length, angle in ((0.0, 0.0), (6.0, 90.0), (6.0, 0.0))
    )
    assert (along.int() - sharp.int()).abs().max() <= 2
    steps = [int(picture[0, 24].int().diff(dim=0).abs().max()) for picture in (sharp, across)]
    assert steps[1] < 0.5 * steps[0]


def test_barrel_distortion_bends_lines_outwards_and_keeps_the_picture_full() -> None:
    line = torch.full((1, 3, 96, 128), 0.04)
    line[..., 110:114] = 0.8
    picture = expose(line, plain(distortion=-0.15))[0, :, 64:, 0].int()
    column = picture.argmax(1)
    assert column[48] > column[2] + 2  # its middle is further out than its ends
    assert picture.min() > 20  # no black rim


def test_flakes_whiten_more_of_the_picture_the_more_there_are() -> None:
    dark = torch.full((1, 3, 96, 128), 0.2)
    dark[:, :, 48:] = 0.02
    few, many = (
        int((expose(dark, plain(flakes=share))[0, 50:, :, 0] > 120).sum())
        for share in (0.002, 0.03)
    )
    assert 0 < few < 0.3 * many


def test_a_batch_equals_its_single_pictures() -> None:
    lenses = draw_lenses(
        3, np.random.default_rng(0), exposure=0.4, dark=True, flakes=0.01, streaks=0.02
    )
    light = torch.rand((3, 3, 48, 64), generator=torch.Generator().manual_seed(0))
    batch = expose(light, lenses).int()
    for k in range(3):
        single = expose(light[k : k + 1], lenses[k : k + 1])[0].int()
        assert (batch[k] - single).abs().max() <= 1
