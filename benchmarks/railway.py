"""Two drives along one made-up railway, in summer and in winter, as thumbnails of 64 x 32 pixels.

    python -m benchmarks.railway OUT [--frames 3576] [--seed 0]

writes OUT/database (summer) and OUT/queries (winter), whose files correspond frame by frame: a set
that is as hard for thumbnails as long real ones, where no real one may be had. It is no picture of
a real railway. Things stand beside a straight track and are seen from its middle; those of one
stretch come from a small stock, so that stretches look alike. In winter every thing has another
brightness, of which a share alone is left from summer; some things are under snow or gone, the
ground and the sky are others, light and exposure drift, tunnels are black but for noise, and the
camera is turned a little. `--alike` is the share that is left: with 0.2 some 18 % of single frames
are found within 3 frames, as published for thumbnails of real railways in two seasons.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 64, 32
_STEP_M = 16.0  # between frames: 1 a second
_SEEN_M = 400.0
_FOCAL_PX = 40.0
_HORIZON_PX = 13.0
_CAMERA_M = 3.0  # above the rails
_STOCK = 400
_THINGS_A_KM = 160
_TUNNELS = 6

Floats = NDArray[np.float64]


def things(length_m: float, rng: np.random.Generator) -> dict[str, Floats]:
    """What stands along the track: place, offset, width, height, bottom (metres), brightness."""
    stock = {
        "side": rng.choice([-1.0, 1.0], _STOCK) * rng.gamma(2.0, 6.0, _STOCK) + 0.0,
        "width": rng.gamma(2.0, 4.0, _STOCK),
        "height": rng.gamma(2.0, 5.0, _STOCK),
        "light": rng.normal(-0.6, 0.8, _STOCK),
        "winter": rng.normal(0.0, 1.0, _STOCK),
    }
    stock["side"] += np.sign(stock["side"]) * (3.0 + stock["width"] / 2)
    count = int(length_m / 1000 * _THINGS_A_KM)
    place = np.sort(rng.uniform(0, length_m, count))
    # A stretch of half a kilometre is made of 30 things of the stock; every third stretch repeats
    # what an earlier one is made of.
    stretch = (place / 500).astype(int)
    palettes = rng.integers(0, _STOCK, (stretch.max() + 1, 30))
    repeats = np.arange(3, len(palettes), 3)
    palettes[repeats] = palettes[(repeats * rng.uniform(0, 1, len(repeats))).astype(int)]
    chosen = palettes[stretch, rng.integers(0, 30, count)]
    return {"place": place} | {name: values[chosen] for name, values in stock.items()}


def drive(
    seen: dict[str, Floats],
    frames: int,
    *,
    winter: bool,
    alike: float,
    noise: float,
    seed: int,
) -> NDArray[np.uint8]:
    """(frames, 32, 64) uint8: what the camera sees on its way."""
    rng = np.random.default_rng([seed, 7, winter])
    light = seen["light"]
    shown = np.ones(len(light), bool)
    if winter:
        own = np.random.default_rng([seed, 8]).normal(0, 1, len(light))
        change = (seen["winter"] + own) / np.sqrt(2)
        light = -0.4 + alike * (light + 0.6) + 0.8 * np.sqrt(1 - alike**2) * change
        shown = np.random.default_rng([seed, 9]).uniform(0, 1, len(light)) > 0.25
    drift = np.cumsum(rng.normal(0, 1, (frames, 4)), axis=0)
    drift -= np.linspace(0, 1, frames)[:, None] * drift[-1:]
    drift /= np.abs(drift).max(axis=0) + 1e-9
    turn = 1.0 * drift[:, 0] + (0.7 if winter else 0.0)  # pixels
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    ground, sky = (0.9, 0.2) if winter else (-0.3, 0.8)
    base = np.where(rows > _HORIZON_PX, ground, sky + 0.02 * (_HORIZON_PX - rows))
    rail = np.abs(columns - WIDTH / 2) < 0.35 * (rows - _HORIZON_PX)
    base = np.where(rail & (rows > _HORIZON_PX), -0.6 if not winter else 0.3, base)
    dark = np.zeros(frames, bool)
    tunnels = np.random.default_rng([seed, 10])
    for start in tunnels.integers(0, max(1, frames - 40), _TUNNELS if frames > 400 else 0):
        dark[start : start + int(tunnels.integers(8, 40))] = True
    pictures = np.empty((frames, HEIGHT, WIDTH), np.uint8)
    for frame in range(frames):
        at = frame * _STEP_M
        first, last = np.searchsorted(seen["place"], [at + 4.0, at + _SEEN_M])
        picture = base.copy()
        for k in range(last - 1, first - 1, -1):  # the far ones first
            if not shown[k]:
                continue
            scale = _FOCAL_PX / (seen["place"][k] - at)
            middle = WIDTH / 2 + seen["side"][k] * scale + turn[frame]
            half = seen["width"][k] * scale / 2
            foot = _HORIZON_PX + _CAMERA_M * scale
            top = foot - seen["height"][k] * scale
            x0, x1 = round(max(0.0, middle - half)), round(min(float(WIDTH), middle + half))
            y0, y1 = round(max(0.0, top)), round(min(float(HEIGHT), foot))
            if x1 > x0 and y1 > y0:
                picture[y0:y1, x0:x1] = light[k]
        grey = 120 + 35 * (1 + 0.4 * drift[frame, 1]) * picture + 25 * drift[frame, 2]
        if dark[frame]:
            grey = np.full_like(grey, 4.0)
        grey = grey + rng.normal(0, noise if not dark[frame] else 1.0, grey.shape)
        pictures[frame] = np.clip(np.rint(grey), 0, 255)
    return pictures


def write(folder: Path, pictures: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=3576)
    parser.add_argument("--alike", type=float, default=0.2)
    parser.add_argument("--noise", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    rng = np.random.default_rng(parsed.seed)
    seen = things(parsed.frames * _STEP_M + _SEEN_M, rng)
    for part, winter in (("database", False), ("queries", True)):
        how = {"alike": parsed.alike, "noise": parsed.noise, "seed": parsed.seed}
        write(parsed.out / part, drive(seen, parsed.frames, winter=winter, **how))


if __name__ == "__main__":
    main()
