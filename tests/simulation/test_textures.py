"""Ripmap sampling."""

from __future__ import annotations

import torch

from vladmap.simulation.textures import TextureArray, fractal_noise


def sample(
    array: TextureArray, s: float, t: float, ds: float, dt: float, layer: int = 0
) -> list[float]:
    places = [torch.tensor([value]) for value in (s, t, ds, dt)]
    return [float(channel) for channel in array.sample(torch.tensor([layer]), *places)]


def ramp() -> torch.Tensor:
    """Two 8x8 layers; the first one's red grows to the right by texels, green upwards."""
    images = torch.zeros(2, 8, 8, 4)
    images[0, :, :, 0] = torch.arange(8) * 0.1
    images[0, :, :, 1] = torch.arange(8)[:, None] * 0.1
    images[1] = 1.0
    return images


def test_a_texel_s_centre_gives_the_texel_and_between_two_centres_their_mean() -> None:
    array = TextureArray.build(ramp(), wraps=False)
    red, green, _, _ = sample(array, 3.5 / 8, 1.5 / 8, 0.0, 0.0)
    assert abs(red - 0.3) < 0.003
    assert abs(green - 0.1) < 0.003
    assert abs(sample(array, 4.0 / 8, 1.5 / 8, 0.0, 0.0)[0] - 0.35) < 0.003


def test_borders_clamp_or_wrap() -> None:
    assert abs(sample(TextureArray.build(ramp(), wraps=False), 0.0, 0.5, 0.0, 0.0)[0]) < 0.003
    assert abs(sample(TextureArray.build(ramp(), wraps=True), 0.0, 0.5, 0.0, 0.0)[0] - 0.35) < 0.003


def test_a_wide_footprint_averages_its_own_axis_only() -> None:
    array = TextureArray.build(ramp(), wraps=False)
    red, green, _, _ = sample(array, 0.1, 1.5 / 8, 1.0, 1 / 8)
    assert abs(red - 0.35) < 0.003
    assert abs(green - 0.1) < 0.003


def test_layers_do_not_mix() -> None:
    array = TextureArray.build(ramp(), wraps=False)
    for footprint in (0.01, 0.3, 5.0):
        assert sample(array, 0.5, 0.5, footprint, footprint, layer=1) == [1.0] * 4


def test_noise_is_standardised_and_repeats_without_a_seam() -> None:
    noise = fractal_noise(64, (4, 8), (1.0, 0.5), torch.Generator().manual_seed(0))
    assert abs(float(noise.mean())) < 1e-5
    assert abs(float(noise.std()) - 1.0) < 1e-5
    inner = (noise[:, 1:] - noise[:, :-1]).abs().max()
    assert (noise[:, 0] - noise[:, -1]).abs().max() <= inner
