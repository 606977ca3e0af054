from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.models.synthetic import photographs
from vladmap.evaluation.learning import ModelChoice, prepare_model
from vladmap.models.aggregated import AggregatedModel
from vladmap.models.whitening import LEAST_REDUCED

pytestmark = pytest.mark.medium


def test_reduced_descriptors_and_patches_of_a_collection_go_together(tmp_path: Path) -> None:
    """Patches are projected from their full length, whatever the descriptors are reduced to."""
    paths = []
    for n, pixels in enumerate(photographs(LEAST_REDUCED, 96, 72)):
        paths.append(tmp_path / f"{n}.png")
        Image.fromarray(pixels).save(paths[-1])
    model, learnt_from = prepare_model(
        ModelChoice("netvlad-lite", patch_size=5, patch_dimension=8), paths
    )
    assert isinstance(model, AggregatedModel)
    assert learnt_from == len(paths)
    assert model.spec.dimension <= LEAST_REDUCED - 1
    descriptors, patches = model.describe_with_patches(photographs(1, 96, 72), (5,))
    assert descriptors.shape == (1, model.spec.dimension)
    assert patches.descriptors[0].shape[2] == 8
