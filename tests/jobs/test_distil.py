from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.models.scenes import seen_twice
from tests.models.synthetic import photographs
from vladmap.jobs.main import main
from vladmap.models import load_model
from vladmap.models.aggregations.netvlad import NetVLAD
from vladmap.models.backbones.registry import Backbone
from vladmap.models.checkpoints.layouts import network
from vladmap.models.training.distillation import Distiller
from vladmap.weights.reading import read_weights

pytestmark = pytest.mark.medium

QUICK = [
    *("--size", "64x48", "--steps", "2", "--check", "1", "--clusters", "4", "--project", "8"),
    *("--scenes-a-step", "2", "--photographs-a-step", "2", "--crops", "60"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rendered scenes, photographs one of which is damaged, and frames to validate on."""
    root = tmp_path_factory.mktemp("sources")
    worlds = ["worlds", str(root / "worlds"), "--seeds", "0:1", "--places", "6", "--every", "2"]
    worlds += ["--aligned", "--conditions", "day", "night", "--size", "64x48", "--workers", "1"]
    assert main(worlds) == 0
    (root / "streets").mkdir()
    for n, pixels in enumerate(photographs(2, 96, 64)):
        Image.fromarray(pixels).save(root / "streets" / f"{n}.png")
    (root / "streets" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    for part, images in zip(("database", "queries"), seen_twice(0, 6), strict=True):
        (root / "seasons" / part).mkdir(parents=True)
        for n, pixels in enumerate(images):
            Image.fromarray(pixels).save(root / "seasons" / part / f"{n}.jpg")
    return {name: root / name for name in ("worlds", "streets", "seasons")}


def test_a_run_writes_models_that_load_its_curve_and_what_it_was_made_from(
    sources: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["distil", "--worlds", str(sources["worlds"]), "--photographs"]
    command += [str(sources["streets"]), "--validate", str(sources["seasons"]), *QUICK]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    output = capfd.readouterr()
    assert "torn.jpg is left out" in output.out + output.err
    with (tmp_path / "run" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["loss"] == ""
    assert float(rows[2]["loss"]) > 0
    record = json.loads((tmp_path / "run" / "distillation.json").read_text())
    assert (record["scenes"], record["photographs"]) == (3, 120)

    for name in ("best", "last"):
        path = tmp_path / "run" / f"{name}.safetensors"
        net = network(read_weights(path))
        assert isinstance(net.aggregation, NetVLAD)
        model = load_model("netvlad-lite", path)
        assert model.spec.dimension == 8
        assert model.describe(photographs(2, 96, 64)).shape == (2, 8)


def test_the_same_command_gives_the_same_bytes(sources: dict[str, Path], tmp_path: Path) -> None:
    command = ["distil", "--worlds", str(sources["worlds"]), *QUICK]
    files = []
    for run in ("a", "b"):
        assert main([*command, "--output", str(tmp_path / run)]) == 0
        files.append((tmp_path / run / "last.safetensors").read_bytes())
    assert files[0] == files[1]


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    sources: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["distil", "--worlds", str(sources["worlds"]), *QUICK]
    command += ["--validate", str(sources["seasons"]), "--steps", "3"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0

    run = ["--output", str(tmp_path / "run")]
    assert main([*command, *run, "--resume"]) == 2
    assert "no run to resume" in capsys.readouterr().err
    with monkeypatch.context() as stopped:
        stopped.setattr(Distiller, "learnt", _stop_after(1, Distiller.learnt))
        with pytest.raises(_StoppedError):
            main([*command, *run])
    assert not (tmp_path / "run" / "last.safetensors").exists()
    assert main([*command, *run]) == 2
    assert "go on by --resume" in capsys.readouterr().err
    assert main([*command, *run, "--rate", "1e-3", "--resume"]) == 2
    assert "other options" in capsys.readouterr().err
    assert main([*command, *run, "--resume"]) == 0
    for name in ("best.safetensors", "last.safetensors", "curve.csv", "distillation.json"):
        whole, resumed = (tmp_path / folder / name for folder in ("whole", "run"))
        assert whole.read_bytes() == resumed.read_bytes(), name


class _StoppedError(Exception):
    pass


def _stop_after(calls: int, method: Callable[[Distiller], Backbone]) -> Callable[..., Backbone]:
    """The method, which after so many calls ends the run as a kill would."""
    left = [calls]

    def stopping(self: Distiller) -> Backbone:
        if not left[0]:
            raise _StoppedError
        left[0] -= 1
        return method(self)

    return stopping


def test_what_is_missing_is_one_clear_line(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "run")]
    assert main(["distil", *output]) == 2
    assert "a step a scene" in capsys.readouterr().err
    fog = ["--worlds", str(sources["worlds"]), "--clear", "fog"]
    assert main(["distil", *fog, *output, *QUICK]) == 2
    assert "was not seen by fog" in capsys.readouterr().err
    assert main(["distil", "--worlds", str(sources["seasons"]), *output, *QUICK]) == 2
    assert "is not a folder of photographs" in capsys.readouterr().err
