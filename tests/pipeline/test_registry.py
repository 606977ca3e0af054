"""The registry of stages: what is declared holds, and a new stage is one module and one line."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.drives import write_drive
from tests.pipeline import toy_stage
from vladmap.atlas import layout
from vladmap.atlas.store import AtlasStore
from vladmap.jobs.main import load, main
from vladmap.pipeline.build import kept_options, run_stages
from vladmap.pipeline.command_options import stages_with
from vladmap.pipeline.ledgers import identity
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Stage
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.stages.describe import VOCABULARY

NAMES = [option.name for option in fields(BuildOptions)]
EVERYONES = {option.name for option in fields(BuildOptions) if option.metadata["everyones"]}


def test_a_stage_stands_behind_the_stages_that_it_needs_so_there_is_no_circle() -> None:
    order = list(STAGES)
    for name, stage in STAGES.items():
        assert stage.name == name
        assert {*stage.needs} <= {*order[: order.index(name)]}
        assert list(stage.needs) == [before for before in order if before in stage.needs]


def test_every_option_is_everyones_or_read_by_some_stage_and_every_stage_reads_known_ones() -> None:
    read = {name for stage in STAGES.values() for name in stage.options}
    assert read | EVERYONES == set(NAMES)
    assert not read & EVERYONES
    for stage in STAGES.values():
        assert len(set(stage.options)) == len(stage.options)


def test_no_two_steps_have_the_same_ledger_or_the_same_label() -> None:
    steps = [step for stage in STAGES.values() for step in stage.steps]
    options = BuildOptions()
    assert len({step.ledger_name(options) for step in steps}) == len(steps)
    assert len({step.title for step in steps}) == len(steps)


def test_steps_that_share_a_name_share_a_version() -> None:
    versions: dict[str, set[int]] = {}
    for stage in STAGES.values():
        for step in stage.steps:
            versions.setdefault(step.name, set()).add(step.version)
    assert {name for name, known in versions.items() if len(known) > 1} == set()


@pytest.mark.parametrize("name", list(STAGES))
def test_the_examples_of_a_stage_are_command_lines_of_its_job(name: str) -> None:
    assert STAGES[name].examples
    for example in STAGES[name].examples:
        command, job, *words = shlex.split(example)
        assert (command, job) == ("vladmap", name)
        load(name).command_line().parse_args(words)  # exits where a word is unknown


class Watched(BuildOptions):
    """Options that know which of them were read."""

    read: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in NAMES:
            Watched.read.add(name)
        return super().__getattribute__(name)


@pytest.mark.slow
@pytest.mark.parametrize("rerank", ["none", "features", "rapid"])
def test_a_stage_reads_only_the_options_that_it_declares(rerank: str, atlas_copy: Path) -> None:
    """Else the command line of its job lacks them, and it takes their defaults unseen."""
    atlas = AtlasStore.open(str(atlas_copy), create=True)
    options = kept_options(atlas)
    assert options is not None
    values = {**vars(options), "atlas": str(atlas_copy), "relearn": True, "rerank": rerank}
    values |= {"rerank_candidates": 4, "patch_dimension": 16, "clusters": 8, "threads": 1}
    run = Run(atlas, Watched(**values))
    with atlas.locked():
        for stage in STAGES.values():
            Watched.read.clear()
            stage.work(run)
            if stage.estimate is not None:
                stage.estimate(run, 30)
            assert Watched.read <= {*stage.options, *EVERYONES}, stage.name


@pytest.fixture
def registered() -> Iterator[None]:
    """The toy stage's line stands in the registry, before the report's."""
    registered = dict(STAGES)
    report = STAGES.pop("report")
    STAGES.update(names=toy_stage.STAGE, report=report)
    yield
    STAGES.clear()
    STAGES.update(registered)


@pytest.fixture
def ingested(tmp_path: Path) -> Path:
    write_drive(tmp_path / "drive", 5)
    words = ["--images", str(tmp_path / "drive"), "--atlas", str(tmp_path / "atlas"), "-q"]
    assert main(["ingest", *words, "--shard-images", "3"]) == 0
    return tmp_path / "atlas"


@pytest.mark.usefixtures("registered")
def test_a_registered_stage_is_a_job_with_help_and_options_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = [line.split()[0] for line in lines if line.startswith("  ")]
    assert "  names        list the names of the photographs" in lines
    assert jobs.index("names") + 1 == jobs.index("report")
    with pytest.raises(SystemExit, match="0"):
        main(["names", "--help"])
    text = capsys.readouterr().out
    assert "usage: vladmap names" in text
    assert "vladmap names --atlas atlas" in text
    assert "--max-pixels" in text
    assert "--tile-images" not in text
    assert "names" in stages_with("--model")
    assert main(["names", "--atlas", "a", "--tile-images", "30"]) == 2
    assert "no option of `vladmap names`, but of reconstruct" in capsys.readouterr().err


@pytest.mark.usefixtures("registered")
def test_a_registered_stage_says_what_it_needs_and_estimates_its_work(
    ingested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["names", "--atlas", str(ingested), "--dry-run"]) == 0
    assert "names       5 lines" in capsys.readouterr().out
    build = ["build", "--images", str(tmp_path / "drive"), "--atlas", str(ingested)]
    assert main([*build, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "names       5 lines" in output
    assert f", names, report -> {ingested}" in output
    empty = AtlasStore.open(str(tmp_path / "empty"), create=True)
    empty.save()
    assert main(["names", "--atlas", empty.root]) == 2
    assert "names: " in (output := capsys.readouterr().err)
    assert "run `vladmap ingest` first" in output


@pytest.mark.medium
@pytest.mark.usefixtures("registered")
def test_a_registered_stage_is_kept_resumed_and_stale_by_its_inputs_settings_and_version(
    ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(**options: Any) -> int:
        atlas = AtlasStore.open(str(ingested), create=False)
        run = run_stages(atlas, BuildOptions(atlas=str(ingested), **options), (), ["names"])
        assert run.atlas.manifest["stages"]["names"] == identity(run, "names")
        assert (
            json.loads((ingested / "atlas.json").read_text())["stages"]
            == (run.atlas.manifest["stages"])
        )
        (result,) = run.results
        assert (result.stage, result.unit, result.elements + result.reused) == (
            "name list",
            "images",
            len(list((tmp_path / "drive").iterdir())),
        )
        return result.elements

    assert done() == 5
    assert done() == 0
    assert done(seed=3) == 5
    files = sorted((ingested / "work/names").iterdir())
    lines = [file.read_text().split() for file in files]
    assert sorted(name for names in lines for name in names) == [
        f"{number:04d}.jpg" for number in range(5)
    ]
    assert lines == [sorted(names, reverse=True) for names in lines]
    assert len(lines) > 1
    files[0].unlink()  # a shard that was lost is made again, alone
    assert done(seed=3) == len(lines[0])
    write_drive(tmp_path / "drive", 2, start=5)  # so are the new photographs, alone
    words = ["--images", str(tmp_path / "drive"), "--atlas", str(ingested), "-q"]
    assert main(["ingest", *words, "--shard-images", "3"]) == 0
    assert done(seed=3) == 2
    newer = replace(toy_stage.NAMES, version=2)
    monkeypatch.setattr(toy_stage, "NAMES", newer)
    monkeypatch.setitem(STAGES, "names", replace(toy_stage.STAGE, steps=(newer,)))
    assert done(seed=3) == 7
    assert done(seed=3) == 0


@pytest.mark.medium
@pytest.mark.usefixtures("registered")
def test_the_report_lists_a_registered_stage_in_its_place(ingested: Path) -> None:
    from vladmap.pipeline.report_data import gather

    for name in ("names", "report"):
        assert main([name, "--atlas", str(ingested), "-q"]) == 0
    atlas = AtlasStore.open(str(ingested), create=False)
    data = gather(Run(atlas, BuildOptions(atlas=str(ingested))), pictures=False)
    assert [timing["stage"] for timing in data.stages] == ["ingest", "name list"]
    assert "name list" in (ingested / "report/index.html").read_text()


def test_a_declaration_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        STAGES["merge"].name = "join"  # type: ignore[misc]
    assert {type(stage) for stage in STAGES.values()} == {Stage}


def test_readers_of_an_atlas_know_the_ledgers_by_the_names_that_the_stages_give_them() -> None:
    """The door lies below the stages, so both name the ledgers."""
    options = BuildOptions(model="vlad", features="xfeat")
    by_readers = {
        "ingest": layout.INGEST_LEDGER,
        "describe": layout.describe_ledger("vlad"),
        "index": layout.index_ledger("vlad"),
        "pair": layout.PAIR_LEDGER,
        "verify": layout.VERIFY_LEDGER,
        "merge": layout.MERGE_LEDGER,
    }
    for stage, ledger in by_readers.items():
        assert STAGES[stage].ledger_names(options)[-1] == ledger
    assert layout.features_ledger("xfeat") in STAGES["verify"].ledger_names(options)
    assert layout.weights_ledger("vlad") == VOCABULARY.ledger_name(options)
