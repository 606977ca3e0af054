"""Which of a tile's reconstructions hold, and which of their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vladmap.features.colmap import pycolmap
from vladmap.mapping import reasons as why
from vladmap.mapping.evidence import keep_evident
from vladmap.mapping.mapper import (
    MapperOptions,
    image_names,
)
from vladmap.mapping.placement import calibrate, place
from vladmap.mapping.soundness import (
    PairMatches,
    contradicted,
    misplaced_images,
    remove_images,
    unexplained_images,
)

# Removing images moves the others a little, so the rest is tested again, at most so many times.
_SOUND_ROUNDS = 3


@dataclass(frozen=True)
class TileImages:
    """The images of one tile and how they are mapped.

    `by_name` gives each COLMAP image name its row of IMAGES, `long_side_px` is that of the largest.
    """

    by_name: Mapping[str, Mapping[str, Any]]
    long_side_px: int
    options: MapperOptions


@dataclass
class SoundModels:
    """Models that passed every test, each with its figures of `mapping.placement.place`.

    `dropped` gives the reason for each image name that was removed from its model, `left_out` the
    models of which too many images failed.
    """

    models: list[tuple[pycolmap.Reconstruction, dict[str, Any]]]
    dropped: dict[str, str]
    left_out: list[dict[str, Any]]

    def images(self) -> int:
        """Return how many images are in at least one of the models."""
        return len({name for model, _ in self.models for name in image_names(model)})


def sound_models(
    mapped: Sequence[pycolmap.Reconstruction],
    pairs: PairMatches,
    tile: TileImages,
    *,
    calibrated: bool = False,
) -> SoundModels:
    """Calibrate and georegister models of any mapper, and remove what evidence contradicts.

    An image is removed if too few points with parallax hold it, if the model does not explain most
    of its pairs, or if GPS and its sequence place it elsewhere. A model is left out if more than
    30 % of its images are contradicted, or if fewer than `min_model_size` are left. Models that are
    `calibrated` already keep their intrinsics.
    """
    smallest = tile.options.min_model_size
    evident = keep_evident(mapped, smallest)
    dropped, held, left_out = dict(evident.dropped), [], []
    for each in evident.models:
        model = each if calibrated else calibrate(each, tile.long_side_px)
        whole = model.num_reg_images()
        taken = _take_out_contradicted(model, pairs, tile)
        if contradicted(len(taken), whole):
            reasons = Counter(taken.values()).most_common()
            counted = ", ".join(f"{count}: {reason}" for reason, count in reasons)
            names = sorted(set(image_names(model)) | set(taken))
            left_out.append({"images": whole, "names": names, "reason": counted})
            taken = dict.fromkeys(names, f"{why.MODEL_BY_ALL}: of {whole} images {counted}")
        else:
            held.append(model)
        dropped |= taken
    # Calibration moved points, and removed images took theirs along: evidence is counted again.
    final = keep_evident(held, smallest)
    models = [
        (model, place(model, tile.by_name, tile.options.gps_sigma_m)) for model in final.models
    ]
    return SoundModels(models, dropped | final.dropped, left_out)


def _take_out_contradicted(
    model: pycolmap.Reconstruction, pairs: PairMatches, tile: TileImages
) -> dict[str, str]:
    """Remove from a model, in place, the images that evidence contradicts; return the reasons."""
    whole = model.num_reg_images()
    taken: dict[str, str] = {}
    for _ in range(_SOUND_ROUNDS):
        placed = place(model, tile.by_name, tile.options.gps_sigma_m)
        wrong = dict.fromkeys(unexplained_images(model, pairs), why.BY_PAIRS)
        if placed["georegistered"]:
            misplaced = misplaced_images(
                model, tile.by_name, placed["origin"], tile.options.gps_sigma_m
            )
            wrong |= dict.fromkeys(misplaced, why.BY_GPS)
        taken |= wrong
        if not wrong or contradicted(len(taken), whole):
            break
        remove_images(model, sorted(wrong))
        if model.num_reg_images() == 0:
            break
    return taken
