from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.models.synthetic import photographs, pytorch_netvlad_state, saved
from vladmap.jobs.main import main
from vladmap.models import MODEL_NAMES, load_model

pytestmark = pytest.mark.medium


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "pitts.pth.tar"
    path.write_bytes(saved({"state_dict": pytorch_netvlad_state(3, bias=True)}))
    return path


def test_every_model_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*MODEL_NAMES]


def test_a_checkpoint_is_described_by_its_content(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", str(checkpoint)]) == 0
    card = json.loads(capsys.readouterr().out.split(": ", 1)[1])
    assert card["format"] == "pytorch-NetVlad"
    assert card["backbone"] == "vgg16 conv5_3"
    assert (card["aggregation"]["clusters"], card["aggregation"]["dimension"]) == (3, 512)
    assert card["pca"] is None


def test_a_converted_checkpoint_gives_the_same_descriptors(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "pitts.safetensors"
    assert main(["convert", str(checkpoint), str(target)]) == 0
    with safe_open(target, "numpy") as file:
        card = json.loads(file.metadata()["vladmap"])
    assert card["aggregation"]["clusters"] == 3
    images = photographs(1, 96, 64)
    one, other = (load_model("netvlad", path).describe(images) for path in (checkpoint, target))
    assert np.array_equal(one, other)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("target", "says"),
    [("x.pth", "must be named"), ("no/where/x.safetensors", "cannot be written")],
)
def test_a_target_that_cannot_be_is_one_clear_line(
    target: str, says: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / target)]) == 2
    assert says in capsys.readouterr().err


def test_what_is_ours_already_is_not_converted_again(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.safetensors"
    assert main(["convert", str(checkpoint), str(target)]) == 0
    assert main(["convert", str(target), str(tmp_path / "b.safetensors")]) == 2
    assert "own format already" in capsys.readouterr().err
