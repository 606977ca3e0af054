"""What a changed option or a corrected fact makes stale: all that depends on it, and no more."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import MadeOnce
from tests.drives import write_drive
from tests.pipeline.test_stages import build, done, files
from vladmap.atlas import image_parts, storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.store import AtlasStore
from vladmap.models.checkpoints import vocabulary
from vladmap.pipeline import run
from vladmap.pipeline.ledgers import require
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages import STAGES
from vladmap.pipeline.staleness import changed_settings, propagated
from vladmap.retrieval.neighbours import STOP_COLUMNS
from vladmap.schemas.records import LedgerEntry, Task
from vladmap.schemas.rejects import UserError

pytestmark = pytest.mark.medium

BASE: dict[str, Any] = {"shard_images": 8, "clusters": 8, "gps_sigma_m": 4.0}

WORDS_OF_ITS_OWN = "other.safetensors"  # in the atlas
ALL_OF_INDEX = {"train index", "index", "index places", "merge index"}
WORDS = {"vocabulary"}

# Another value, and the pipelines that read the option themselves. What lies behind them goes stale
# through its inputs, if their results change.
STALE: dict[str, tuple[Any, set[str]]] = {
    "max_pixels": (100_000_000, {"ingest", "pair"}),
    "shard_images": (5, {"organise"}),
    "cell_resolution": (9, {"organise"}),
    "sequence_gap_s": (5.0, {"organise"}),
    "sequence_gap_m": (5.0, {"organise"}),
    "model": ("gem", {"describe"}),
    "checkpoint": (WORDS_OF_ITS_OWN, {"describe"}),
    "clusters": (9, WORDS),
    "whiten": (2, WORDS),
    "dimension": (3, WORDS),
    "learn": (True, {*WORDS, "describe"}),
    "vocabulary_images": (7, WORDS),
    "relearn": (True, {"vocabulary"}),
    "precision": ("bfloat16", {*WORDS, "describe"}),
    "compile": (True, {"describe"}),
    "decode": ("gpu", {"describe"}),
    "factory": ("IVF2,Flat", {*ALL_OF_INDEX, "pair"}),
    "near": (2, {"pair"}),
    "reach_m": (30.0, {"pair"}),
    "everywhere": (2, {"pair"}),
    "following": (2, {"pair"}),
    "rerank": ("features", {"pair"}),
    "rerank_candidates": (7, {"pair"}),
    "patch_size": (8, {*WORDS, "describe"}),
    "patch_dimension": (32, WORDS),
    "gps_sigma_m": (7.0, {"pair", "judge pairs", "reconstruct", "merge"}),
    "features": (
        "xfeat",
        {"features", "cameras", "verify", "judge pairs", "reconstruct", "merge"},
    ),
    "matcher": ("lighterglue", {"verify"}),
    "between_drives": ("xfeat", {"features between drives", "verify"}),
    "tile_images": (20, {"reconstruct"}),
    "seed": (1, {*WORDS, *ALL_OF_INDEX}),
}

# Beside these an option counts only together with another.
TOGETHER: dict[str, dict[str, Any]] = {
    "decode": {"device": "cuda"},
    "rerank_candidates": {"rerank": "features"},
    "matcher": {"features": "xfeat"},
    "patch_size": {"rerank": "rapid"},
    "patch_dimension": {"rerank": "rapid"},
    "learn": {"checkpoint": WORDS_OF_ITS_OWN},
}

# A dry run compares these by fingerprints: the bytes of a file, who decoded the photographs.
BY_FINGERPRINT = {"checkpoint", "decode", "relearn"}

WITHOUT_EFFECT = {
    "images": "names the collection; its files are the inputs",
    "atlas": "where the results stand",
    "max_reject_rate": "ends a run, changes no result",
    "device": "the same numbers but for rounding: describing a city again costs hours",
    "accelerator": "which workers Dataflow starts",
    "batch_size": "the same numbers but for rounding",
    "threads": "the same numbers",
    "tile_minutes": "a tile that is done is done; one given up is tried again with more",
}


class Recorder(Run):
    """A run that keeps its tasks instead of doing them."""

    def __init__(self, atlas: AtlasStore, options: BuildOptions) -> None:
        super().__init__(atlas, options)
        self.tasks: dict[str, Sequence[Task]] = {}
        self.atlas.forget = lambda *_: None  # type: ignore[method-assign]

    def execute(  # type: ignore[override]
        self, step: Step, tasks: Sequence[Task], transform: Any, **_: Any
    ) -> dict[str, LedgerEntry]:
        self.tasks[step.title] = tuple(tasks)
        if step.name == "merge":
            raise UserError("the last one: nobody reads what it would have made")
        if step.name == "vocabulary":
            # What is learnt is not known: that it is learnt anew is.
            return {"weights": self.atlas.ledger("vocabulary-netvlad-lite")["weights"]}
        return self.ledger(step)

    def pipeline(  # type: ignore[override]
        self, tasks: Sequence[Task], label: str, transform: Any, **_: Any
    ) -> None:
        self.tasks[label] = tuple(tasks)

    def forget_others(self, step: Step, shards: set[str]) -> None:
        pass


def tasks_with(atlas: Path, scratch: Path, **options: Any) -> dict[str, Sequence[Task]]:
    """The tasks of every pipeline that a run with these options would have, as far as it goes."""
    shutil.copytree(atlas, scratch, copy_function=shutil.copy)
    settings = BuildOptions(**{**BASE, "atlas": str(scratch), **options})
    if settings.checkpoint:
        settings = dataclasses.replace(settings, checkpoint=str(scratch / settings.checkpoint))
    recorder = Recorder(AtlasStore.open(str(scratch), create=True), settings)
    try:
        for name, stage in STAGES.items():
            require(recorder, name)
            stage.work(recorder)
    except UserError:
        pass  # the stage before has nothing yet of what was asked for
    return recorder.tasks


@pytest.fixture(scope="session")
def photos(made_once: MadeOnce) -> Path:
    return made_once("stale-photos", lambda folder: write_drive(folder, 24))


@pytest.fixture(scope="session")
def atlas(photos: Path, made_once: MadeOnce) -> Path:
    """Built up to verified pairs; one tile stands in the ledger by name."""
    return made_once("stale-atlas", lambda folder: write_atlas(photos, folder))


def write_atlas(photos: Path, folder: Path) -> None:
    finished = build(photos, folder, **BASE, threads=1)
    STAGES["verify"].work(finished)
    learnt = (folder / "index/netvlad-lite/model.safetensors").read_bytes()
    words = vocabulary.from_bytes(learnt)
    other = dataclasses.replace(words, centres=words.centres[::-1])
    (folder / WORDS_OF_ITS_OWN).write_bytes(vocabulary.to_bytes(other))
    task = Task("t0", "none", "tiles/t0/tile.json", "made")
    file = storage.commit_file(str(folder), task.output, b"{}", 1)
    commit_entry(str(folder), "reconstruct", task, [file], counts={"models": 1, "failed": 0})


def test_every_option_is_in_one_of_the_tables() -> None:
    """Issue 19, 12: a new option says what it makes stale, or why nothing."""
    named = [option.name for option in dataclasses.fields(BuildOptions)]
    assert sorted(named) == sorted([*STALE, *WITHOUT_EFFECT])


@pytest.mark.parametrize("option", sorted(STALE))
def test_a_changed_option_makes_stale_the_pipelines_that_read_it_and_no_others(
    option: str, atlas: Path, photos: Path, tmp_path: Path
) -> None:
    """Issue 19, 12: its value is in the fingerprint or the inputs of their tasks."""
    value, expected = STALE[option]
    others = {"images": str(photos), **TOGETHER.get(option, {})}
    before = tasks_with(atlas, tmp_path / "before", **others)
    after = tasks_with(atlas, tmp_path / "after", **others, **{option: value})
    changed = {
        label
        for label, tasks in after.items()
        if without_paths(before.get(label, ())) != without_paths(tasks)
    }
    assert changed == expected
    told = stale_by_settings(option, value, others)
    direct = {title for title, names in told.items() if names - {"inputs"}}
    assert direct & set(after) <= expected
    if option not in BY_FINGERPRINT:
        assert expected <= {title for title, names in told.items() if names}


def stale_by_settings(option: str, value: Any, others: dict[str, Any]) -> dict[str, set[str]]:
    """What a dry run makes of the options alone."""
    before = BuildOptions(**{**BASE, **others})
    return propagated(changed_settings(before, dataclasses.replace(before, **{option: value})))


def without_paths(tasks: Sequence[Task]) -> set[tuple[Any, ...]]:
    return {(task.shard, task.fingerprint, task.inputs) for task in tasks}


@pytest.mark.parametrize("option", sorted(set(WITHOUT_EFFECT) - {"images", "atlas"}))
def test_an_option_without_effect_on_results_makes_nothing_stale(
    option: str, atlas: Path, photos: Path, tmp_path: Path
) -> None:
    value = {
        "max_reject_rate": 0.9, "batch_size": 3, "threads": 1, "tile_minutes": 9.0,
        "device": "cuda", "accelerator": "type:nvidia-l4;count:1",
    }  # fmt: skip
    before = tasks_with(atlas, tmp_path / "before", images=str(photos))
    after = tasks_with(atlas, tmp_path / "after", images=str(photos), **{option: value[option]})
    assert before == after
    assert not any(stale_by_settings(option, value[option], {}).values())


def test_a_tile_that_was_given_up_is_tried_again_with_another_limit_and_one_that_is_done_is_not(
    atlas: Path, photos: Path, tmp_path: Path
) -> None:
    """Issue 19, 12: --tile-minutes is in no fingerprint, so a failure stood for ever.

    One that had too little memory is tried again always.
    """
    shutil.copytree(atlas, tmp_path / "atlas")
    forgotten: list[str] = []
    for name, failed in (("done", 0), ("failed", 1), ("starved", 1)):
        task = Task(name, "none", f"tiles/{name}/tile.json", "made")
        file = storage.commit_file(str(tmp_path / "atlas"), task.output, b"{}", 1)
        counts = {"models": 1 - failed, "failed": failed, "limit_s": 3600}
        counts["out_of_memory"] = int(name == "starved")
        commit_entry(str(tmp_path / "atlas"), "reconstruct", task, [file], counts=counts)
    for minutes in (60.0, 90.0):
        options = BuildOptions(**BASE, atlas=str(tmp_path / "atlas"), tile_minutes=minutes)
        recorder = Recorder(AtlasStore.open(options.atlas, create=False), options)
        recorder.atlas.forget = lambda _, names, *__: forgotten.extend(names)  # type: ignore[method-assign]
        STAGES["reconstruct"].work(recorder)
        assert forgotten == (["failed", "starved"] if minutes == 90.0 else ["starved"])
        forgotten.clear()


@pytest.mark.slow
def test_a_stage_reads_no_column_of_images_that_its_inputs_leave_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 12: what a stage reads and its identity leaves out would go stale unseen."""
    running: dict[str, Any] = {}
    read: dict[str, set[str]] = {}
    table, pipeline = storage.read_table, run.Run.pipeline

    def spy_table(path: str, columns: list[str] | None = None) -> Any:
        if "/images/cell=" in path and "label" in running:
            names = set(columns or pq.read_schema(path).names)
            read.setdefault(running["label"], set()).update(names)
        return table(path, columns)

    def spy_pipeline(
        self: Run, tasks: Sequence[Task], label: str, transform: Any, **how: Any
    ) -> None:
        keys = {key for task in tasks for key, _ in task.inputs if key.startswith("ingest/")}
        running.update(label=label)
        parts[label] = {key.partition(":")[2] for key in keys}
        pipeline(self, tasks, label, transform, **how)
        running.clear()

    parts: dict[str, set[str]] = {}
    monkeypatch.setattr(storage, "read_table", spy_table)
    monkeypatch.setattr(run.Run, "pipeline", spy_pipeline)
    STAGES["verify"].work(
        build(photos, tmp_path / "atlas", **BASE, everywhere=2, rerank="features", threads=1)
    )
    assert {"describe", "index places", "pair", "features", "cameras", "verify"} <= set(read)
    # A camera's choice stands: it is made again where more of its images are there to try.
    del read["cameras"]
    for label, columns in read.items():
        allowed = {"uri"}.union(*(image_parts.PARTS[part] for part in parts[label]))
        if label == "pair":
            allowed |= set(STOP_COLUMNS)  # in its fingerprint: digests of `neighbour_ids`
        assert columns <= allowed, label


def manifest(folder: Path, name: str, rows: Sequence[str]) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join(["uri,longitude,latitude,heading_deg", *rows]) + "\n")
    assert path.name == name
    return path


def pairs_of(atlas: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(atlas).items() if name.startswith("pairs/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", [{"sequence_gap_m": 1.0}, {"sequence_gap_s": 0.5}, {"following": 1}]
)
def test_pairs_after_other_sequences_are_those_of_an_atlas_built_anew(
    changed: dict[str, Any], atlas: Path, photos: Path, tmp_path: Path
) -> None:
    """Issue 19, 12: --sequence-gap-* reaches the pairs."""
    shutil.copytree(atlas, tmp_path / "old")
    run = build(photos, tmp_path / "old", **BASE, **changed)
    assert done(run)["describe"] == 0
    assert done(run)["pair"] > 0
    build(photos, tmp_path / "new", **BASE, **changed)
    assert pairs_of(tmp_path / "old") == pairs_of(tmp_path / "new")
    assert pairs_of(tmp_path / "old") != pairs_of(atlas)


@pytest.mark.slow
def test_a_corrected_position_reaches_the_pairs_though_no_descriptor_changes(
    photos: Path, tmp_path: Path
) -> None:
    """Issue 19, 12: pairs depended on descriptors alone, whose bytes stay."""
    folder = tmp_path / "drive"
    shutil.copytree(photos, folder)
    names = sorted(path.name for path in folder.iterdir())
    rows = [f"{name},16.37,{48.2 + 2e-5 * n:.6f},90" for n, name in enumerate(names)]
    build(manifest(folder, "list.csv", rows), tmp_path / "old", **BASE)
    rows[3] = rows[3].replace(",16.37,", ",16.3702,")
    run = build(manifest(folder, "list.csv", rows), tmp_path / "old", **BASE)
    assert done(run)["describe"] == 0
    build(manifest(folder, "list.csv", rows), tmp_path / "new", **BASE)
    assert pairs_of(tmp_path / "old") == pairs_of(tmp_path / "new")


@pytest.mark.slow
def test_a_corrected_heading_reaches_the_index_of_places(photos: Path, tmp_path: Path) -> None:
    """Issue 19, 12: the identity of a shard of images left headings out."""
    folder = tmp_path / "drive"
    shutil.copytree(photos, folder)
    names = sorted(path.name for path in folder.iterdir())
    rows = [f"{name},16.37,{48.2 + 2e-5 * n:.6f},90" for n, name in enumerate(names)]
    build(manifest(folder, "list.csv", rows), tmp_path / "old", 3, **BASE)
    rows[3] = rows[3][:-2] + "270"
    run = build(manifest(folder, "list.csv", rows), tmp_path / "old", 3, **BASE)
    assert (done(run)["describe"], done(run)["index places"] > 0) == (0, True)
    build(manifest(folder, "list.csv", rows), tmp_path / "new", 3, **BASE)
    places = "index/netvlad-lite/places.faiss"
    assert files(tmp_path / "old")[places] == files(tmp_path / "new")[places]


@pytest.mark.slow
def test_descriptors_of_another_length_get_an_index_of_their_own(
    atlas: Path, photos: Path, tmp_path: Path
) -> None:
    """Issue 19, 12: an index trained for the old words was kept for the new ones."""
    shutil.copytree(atlas, tmp_path / "old")
    run = build(photos, tmp_path / "old", 3, **{**BASE, "clusters": 5})
    assert done(run)["train index"] == 1
    build(photos, tmp_path / "new", 3, **{**BASE, "clusters": 5})
    index = "index/netvlad-lite/global.faiss"
    assert files(tmp_path / "old")[index] == files(tmp_path / "new")[index]
