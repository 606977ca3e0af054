"""The stages up to verified pairs: what each has to do, and the transform that does it.

A stage lists its tasks from the ledger of the stage before. Names in the ledger carry the model or
the detector where an atlas can hold several.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_entry
from vladmap.atlas.fingerprints import fingerprint
from vladmap.atlas.photographs import SHARD_ROWS, shard_rows
from vladmap.console.progress import counted
from vladmap.features.names import FEATURE_NAMES
from vladmap.mapping.camera_keys import camera_keys
from vladmap.mapping.trial_images import MAX_IMAGES as TRIAL_IMAGES
from vladmap.models.kinds import MODEL_NAMES
from vladmap.models.registry import default_clusters, is_complete, patch_dimension, shipped_weights
from vladmap.models.whitening import IMAGES_PER_DIMENSION, IMAGES_PER_REDUCED
from vladmap.photos.cells import ring
from vladmap.photos.projection import PERSPECTIVE
from vladmap.pipeline.collection import list_collection
from vladmap.pipeline.options import learning_options, reduced_to, worker_threads
from vladmap.pipeline.planning import plan
from vladmap.pipeline.run import Run
from vladmap.retrieval.index import choose_factory
from vladmap.retrieval.names import BY_FEATURES, BY_PATCHES, SIGMA_M
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task, shard_cell
from vladmap.schemas.rejects import RejectReason, UserError
from vladmap.transforms import cameras as cameras_stage
from vladmap.transforms import describe as describe_stage
from vladmap.transforms import index as index_stage
from vladmap.transforms import ingest as ingest_stage
from vladmap.transforms import learn as learn_stage
from vladmap.transforms import pair as pair_stage
from vladmap.transforms import verify as verify_stage
from vladmap.transforms.rerank import RerankSettings

log = logging.getLogger("vladmap")

_INDEX_SAMPLE = 50_000
# A camera is tried on the best connected of so many of its images, of at most so many shards.
_CAMERA_IMAGES = 4 * TRIAL_IMAGES
_CAMERA_SHARDS = 8

_TOLD = {
    "invalid_positions": "have a position that cannot be used, and count as without one",
    "invalid_facts": "have a heading, height, accuracy or focal length that cannot be used",
    "panoramas": "are panoramas: found by retrieval, not mapped (column projection)",
    "zones_of_neighbours": "have the time zone of their camera's other frames in the folder",
    "zones_unknown": "have a capture time without a zone, taken for UTC (column time_source)",
}


def image_shards(run: Run) -> dict[str, LedgerEntry]:
    """Committed shards of `images/`, in the order in which the collection grew."""
    ledger = run.atlas.ledger(ingest_stage.STAGE)
    return {
        shard: entry for shard, entry in sorted(ledger.items()) if not shard.startswith("rejects-")
    }


def reject_paths(run: Run) -> list[str]:
    """Files of rejects of this run's model and features, earlier stages first."""
    return [
        file.path
        for stage in (ingest_stage.STAGE, describe_name(run), features_name(run))
        for _, entry in sorted(run.atlas.ledger(stage).items())
        for file in entry.files
        if file.path.startswith("rejects/")
    ]


def require(run: Run, stage: str) -> None:
    """Raises UserError where the stage before this one has left nothing to work on."""
    needs = {
        "describe": ("ingest", ingest_stage.STAGE),
        "index": ("describe", describe_name(run)),
        "pair": ("index", index_name(run)),
        "verify": ("pair", pair_stage.STAGE),
        "reconstruct": ("verify", verify_stage.STAGE),
        "merge": ("reconstruct", "reconstruct"),
        "report": ("ingest", ingest_stage.STAGE),
    }
    if stage in needs:
        before, ledger = needs[stage]
        # Where no pair is verified there are no tiles, and the map is empty.
        ran = stage == "merge" and before in run.atlas.manifest["stages"]
        if not run.atlas.ledger(ledger) and not ran:
            raise UserError(
                f"{stage}: {run.atlas.root} has nothing from the stage `{before}` with these "
                f"options yet: run `vladmap {before}` first, or `vladmap build`"
            )


def ledger_names(run: Run, stage: str) -> list[str]:
    """The ledger's names of what a stage leaves for those after it."""
    ledgers = {
        "ingest": [ingest_stage.STAGE],
        "describe": [describe_name(run)],
        "index": [index_name(run)],
        "verify": [features_name(run), cameras_stage.STAGE, verify_stage.STAGE],
    }
    return ledgers.get(stage, [stage])


def identity(run: Run, stage: str) -> str:
    """Digest of all that a stage has committed, as the ledger tells it."""
    return storage.combined_digest(
        f"{name}/{shard} {entry.content}"
        for name in ledger_names(run, stage)
        for shard, entry in sorted(run.atlas.ledger(name).items())
    )


def ingest(run: Run) -> None:
    """List the collection, read what is new in it, and bring `images/` up to date.

    Raises UserError where there are no photographs, or too many of them are rejected.
    """
    options = run.options
    listing = list_collection(options.images)
    doubtful = unreadable_since_ingest(run)
    if doubtful:
        log.info(
            "ingest: %s read again: a later stage did not find them as they were",
            counted(len(doubtful), "photographs"),
        )
    planned = plan(run.atlas, listing, options.shard_images, write=True, doubtful=doubtful)
    for note in listing.notes:
        log.info("ingest: %s", note)
    run.atlas.manifest["collection_notes"] = list(listing.notes)
    scans = [
        Task(
            chunk,
            NO_CELL,
            f"work/headers/{chunk}.parquet",
            fingerprint("scan", max_pixels=options.max_pixels),
            reads=(("plan", path),),
            inputs=inputs_of(run, "plan", [chunk.partition("-")[0]]),
        )
        for chunk, path in planned.chunks
        if planned.alive.get(chunk)
    ]
    threads = worker_threads(options, run.in_process)
    run.execute(
        ingest_stage.SCAN,
        scans,
        ingest_stage.ScanPhotos(run.atlas.root, options.max_pixels, threads),
        unit="images",
        count=lambda task: planned.alive[task.shard],
        label="ingest",
    )
    _organise(run, [task.shard for task in scans], planned.dead)
    run.atlas.manifest["collection"] = listing.root
    shards = image_shards(run).values()
    ledger = run.atlas.ledger(ingest_stage.STAGE).values()
    accepted = sum(entry.counts["images"] for entry in shards)
    for name, words in _TOLD.items():
        if count := sum(entry.counts.get(name, 0) for entry in shards):
            log.info("ingest: %d photographs %s", count, words)
    check_rejects(run, "ingest", sum(entry.counts.get("rejects", 0) for entry in ledger), accepted)


_NOT_AS_READ = pa.array(
    [RejectReason.CHANGED.value, RejectReason.MISSING.value, RejectReason.UNREADABLE.value]
)


def unreadable_since_ingest(run: Run) -> set[str]:
    """Ids of images that a later stage rejected because it did not find the bytes of ingest.

    The listing cannot always tell: a file may change while a run is at work, or in a way that
    leaves its size and times; a network drive may have been away. Such files are read again.
    """
    stages = [
        *(f"{describe_stage.STAGE}-{model}" for model in MODEL_NAMES),
        *(f"features-{detector}" for detector in FEATURE_NAMES),
    ]
    found: set[str] = set()
    for stage in stages:
        for entry in run.atlas.ledger(stage).values():
            if entry.counts.get("rejects") and run.is_current(entry):
                for file in entry.files:
                    if file.path.startswith("rejects/"):
                        table = storage.read_table(
                            run.atlas.path(file.path), ["image_id", "reason"]
                        )
                        table = table.filter(pc.is_in(table["reason"], _NOT_AS_READ))
                        found.update(table["image_id"].to_pylist())
    return found


def _organise(run: Run, chunks: Sequence[str], dead: pa.Table) -> None:
    """Duplicates, sequences, cells and shards, made as a whole from all headers or not at all."""
    options, atlas = run.options, run.atlas
    file = storage.commit_table(atlas.root, "work/organise/dead.parquet", dead)
    scans = atlas.ledger(ingest_stage.SCAN)
    identity = fingerprint(
        ingest_stage.STAGE,
        scans=[(chunk, scans[chunk].content) for chunk in chunks],
        dead=file.digest,
        shard_images=options.shard_images,
        cell_resolution=options.cell_resolution,
        gaps=(options.sequence_gap_s, options.sequence_gap_m),
    )
    ledger = atlas.ledger(ingest_stage.STAGE)
    made = atlas.ledger("organise").get("all")
    whole = made is not None and made.counts["shards"] == len(ledger)
    if whole and made is not None and made.fingerprint == identity:
        return
    tasks = [
        Task(chunk, NO_CELL, "", identity, reads=(("headers", scans[chunk].file.path),))
        for chunk in chunks
    ]
    transform = ingest_stage.OrganiseImages(
        atlas.root,
        identity,
        options.shard_images,
        options.cell_resolution,
        options.sequence_gap_s,
        options.sequence_gap_m,
        file.path,
    )
    run.pipeline(tasks, "organise", transform)
    ledger = atlas.ledger(ingest_stage.STAGE, refresh=True)
    run.forget_others(
        ingest_stage.STAGE,
        {shard for shard, entry in ledger.items() if entry.fingerprint == identity},
    )
    counts = {"shards": len(atlas.ledger(ingest_stage.STAGE))}
    commit_entry(
        atlas.root, "organise", Task("all", NO_CELL, file.path, identity), [file], counts=counts
    )


def check_rejects(run: Run, stage: str, rejected: int, accepted: int, folder: str = "") -> None:
    """Raises UserError where more is rejected than `--max-reject-rate` allows, or all of it.

    `folder` of `rejects/` says why, where it is not named after the stage.
    """
    total = rejected + accepted
    listed = run.atlas.path("rejects", folder or stage)
    if total and not accepted:
        raise UserError(
            f"{stage}: none of {total} photographs can be used: see {listed} for the reason of each"
        )
    if total and rejected / total > run.options.max_reject_rate:
        raise UserError(
            f"{stage}: {rejected} of {total} photographs rejected, more than --max-reject-rate "
            f"{run.options.max_reject_rate:g}: see {listed}, mend the collection or raise the limit"
        )


def inputs_of(
    run: Run, stage: str, shards: Iterable[str], part: str = ""
) -> tuple[tuple[str, str], ...]:
    """What the ledger says of another stage's shards now, as a task's inputs.

    With `part` they are inputs in that part of them alone.
    """
    ledger = run.atlas.ledger(stage)
    key = f":{part}" if part else ""
    return tuple((f"{stage}/{shard}{key}", ledger[shard].identity(part)) for shard in shards)


def _cell_path(folder: str, shard: str) -> str:
    return f"{folder}/cell={shard_cell(shard)}/{shard}.parquet"


def _image_count(run: Run) -> Callable[[Task], int]:
    """Images of a task's shard that have pixels of their own."""
    counts = {
        shard: entry.counts["images"] - entry.counts["duplicates"]
        for shard, entry in image_shards(run).items()
    }
    return lambda task: counts.get(task.shard, 0)


def _per_image_shard(run: Run, folder: str, identity: str, part: str = "pixels") -> list[Task]:
    """One task for each shard of `images/`, of which it reads a part."""
    return [
        Task(
            shard,
            shard_cell(shard),
            _cell_path(folder, shard),
            identity,
            reads=(("images", entry.file.path),),
            inputs=inputs_of(run, ingest_stage.STAGE, [shard], part),
        )
        for shard, entry in image_shards(run).items()
    ]


def describe(run: Run) -> None:
    """Learn the model's visual words if it needs any, then describe every new image."""
    options = run.options
    stage = describe_name(run)
    settings = describe_stage.ModelSettings(
        name=options.model,
        checkpoint=options.checkpoint,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        max_pixels=options.max_pixels,
        threads=worker_threads(options, run.in_process),
        patch_size=options.patch_size if options.rerank in BY_PATCHES else 0,
        patches=f"patches/{options.model}",
        compile=options.compile,
    )
    weights = _learn(run, settings)
    settings = replace(settings, weights=weights.file.path, weights_digest=weights.file.digest)
    identity = fingerprint(
        "describe",
        weights=weights.content,
        precision=options.precision,
        model=options.model,
        patch_size=settings.patch_size,
        compiled=options.compile,
    )
    ledger = run.execute(
        stage,
        _per_image_shard(run, f"descriptors/{options.model}", identity),
        describe_stage.DescribeImages(run.atlas.root, stage, settings),
        unit="images",
        count=_image_count(run),
        device=options.device,
        label="describe",
    )
    _check_ledger_rejects(run, "describe", stage, ledger)


def _check_ledger_rejects(
    run: Run, stage: str, folder: str, ledger: dict[str, LedgerEntry]
) -> None:
    # A panorama is a good photograph, if none for a map.
    rejected, panoramas, accepted = (
        sum(entry.counts.get(name, 0) for entry in ledger.values())
        for name in ("rejects", "panoramas", "images")
    )
    rejected -= panoramas
    check_rejects(run, stage, rejected, accepted, folder)


def describe_name(run: Run) -> str:
    """The describe stage's name in the ledger."""
    return f"describe-{run.options.model}"


def _learn(run: Run, settings: describe_stage.ModelSettings) -> LedgerEntry:
    """The model's weights in the atlas; once learnt they stay, however the collection grows."""
    options, root = run.options, run.atlas.root
    dimension = reduced_to(options)
    reduced = (dimension > 0 or options.whiten > 0) and not settings.patch_size
    stage = f"vocabulary-{options.model}"
    checkpoint = _read_checkpoint(options.checkpoint)
    identity = fingerprint(
        "vocabulary",
        model=options.model,
        checkpoint=storage.digest(checkpoint) if checkpoint else "",
        clusters=options.clusters,
        whiten=options.whiten,
        dimension=dimension,
        learn=options.learn,
        images=options.vocabulary_images,
        seed=options.seed,
        patches=(options.patch_dimension, options.patch_size) if settings.patch_size else None,
        # Reductions and whitenings are fitted to descriptors, which lower precision makes others.
        **({"precision": options.precision} if options.precision != "float32" else {}),
    )
    committed = run.atlas.ledger(stage).get("weights")
    if committed and committed.fingerprint == identity and not options.relearn:
        return committed
    path = f"index/{options.model}/model.safetensors"
    complete = (
        checkpoint
        and not options.learn
        and is_complete(options.model, storage.local_copy(options.checkpoint))
    )
    whole = checkpoint if complete else None if checkpoint else shipped_weights(options.model)
    if whole:
        if unheard := learning_options(options):
            log.warning(
                "describe: %s has its own words, nothing is learnt: %s has no effect",
                options.checkpoint or options.model,
                unheard,
            )
        if settings.patch_size:
            patch_dimension(options.model, whole)
        run.atlas.forget(stage, "weights")
        file = storage.commit_file(root, path.replace("safetensors", "checkpoint"), whole, 1)
        task = Task("weights", NO_CELL, file.path, identity)
        run.atlas.ledger(stage)["weights"] = commit_entry(root, stage, task, [file])
        return run.atlas.ledger(stage)["weights"]
    rows = [
        row for entry in image_shards(run).values() for row in shard_rows(root, entry.file.path)
    ]
    # Ids are digests of names: the lowest ones are a fair sample, and the same in every run.
    rows.sort(key=lambda row: row["image_id"])
    wanted = max(
        options.vocabulary_images,
        IMAGES_PER_DIMENSION * options.whiten,
        IMAGES_PER_REDUCED * dimension,
    )
    sample = pa.Table.from_pylist(rows[:wanted], schema=SHARD_ROWS)
    listed = f"work/vocabulary/{options.model}.parquet"
    storage.commit_table(root, listed, sample)
    run.atlas.forget(stage, "weights")
    ledger = run.execute(
        stage,
        [Task("weights", NO_CELL, path, identity, (("sample", listed),))],
        learn_stage.LearnVocabulary(
            root,
            stage,
            settings,
            options.clusters or default_clusters(options.model, reduced),
            options.whiten,
            options.seed,
            options.patch_dimension if settings.patch_size else 0,
            options.vocabulary_images,
            dimension,
        ),
        unit="images",
        count=lambda task: sample.num_rows,
        device=options.device,
        label="vocabulary",
    )
    storage.delete(run.atlas.path(listed))  # nothing reads it again, or would notice its damage
    return ledger["weights"]


def _read_checkpoint(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return storage.read_bytes(path)
    except OSError as error:
        raise UserError(f"--checkpoint {path}: {error.strerror or error}") from error


def index(run: Run) -> None:
    """Bring the global FAISS index up to date: train, add per shard, merge."""
    options, root = run.options, run.atlas.root
    model = options.model
    described = dict(sorted(run.atlas.ledger(describe_name(run)).items()))
    count = sum(entry.file.rows for entry in described.values())
    if count == 0:
        raise UserError("index: no image has a descriptor; see rejects/ in the atlas")
    schema = storage.read_schema(run.atlas.path(next(iter(described.values())).file.path))
    about = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    dimension = int(about["vladmap:dimension"])
    factory, chosen_for = _factory(run, count, dimension)
    # An index is trained for descriptors: those of other weights may even be of another length.
    identity = fingerprint(
        "index", factory=factory, seed=options.seed, weights=about["vladmap:model_fingerprint"]
    )
    shards = list(described)
    reads = tuple((f"descriptors/{shard}", described[shard].file.path) for shard in shards)

    stage = f"index-{model}-train"
    sample = [item for item, _ in _until(described, _INDEX_SAMPLE)]
    train = Task(
        "trained", NO_CELL, f"work/index/{model}/trained.faiss", identity, reads[: len(sample)]
    )
    trained = run.atlas.ledger(stage).get("trained")
    if trained is None or trained.fingerprint != identity:
        run.execute(
            stage,
            [train],
            index_stage.TrainIndex(root, stage, factory, _INDEX_SAMPLE),
            label="train index",
            unit="indices",
        )
    parts_stage = f"index-{model}-parts"
    parts = [
        Task(
            shard,
            shard_cell(shard),
            f"work/index/{model}/{shard}.faiss",
            identity,
            reads=(("descriptors", described[shard].file.path), ("trained", train.output)),
            inputs=(
                *inputs_of(run, describe_name(run), [shard]),
                *inputs_of(run, stage, ["trained"]),
            ),
        )
        for shard in shards
    ]
    made = run.execute(
        parts_stage,
        parts,
        index_stage.AddShards(root, parts_stage),
        unit="vectors",
        count=lambda task: described[task.shard].file.rows,
        label="index",
    )
    smoothed_stage = f"index-{model}-places"
    smoothed = run.execute(
        smoothed_stage,
        _places(run, described, train, (stage, identity)),
        index_stage.AddSmoothed(root, smoothed_stage),
        unit="vectors",
        count=lambda task: described[task.shard].file.rows,
        label="index places",
    )
    merged_stage = index_name(run)
    merge = Task(
        "global",
        NO_CELL,
        f"index/{model}/global.faiss",
        identity,
        reads=(
            *((f"index/{shard}", made[shard].file.path) for shard in shards),
            *((f"places/{shard}", smoothed[shard].file.path) for shard in shards),
            *reads,
        ),
        inputs=(
            *inputs_of(run, parts_stage, shards),
            *inputs_of(run, smoothed_stage, shards),
        ),
    )
    described_as = (
        ("factory", factory),
        ("chosen_for", chosen_for),
        ("dimension", dimension),
        ("model", model),
        ("model_fingerprint", about["vladmap:model_fingerprint"]),
    )
    run.execute(
        merged_stage,
        [merge],
        index_stage.MergeIndex(root, merged_stage, described_as),
        unit="vectors",
        count=lambda task: count,
        label="merge index",
    )


def _places(
    run: Run, described: dict[str, LedgerEntry], train: Task, trained: tuple[str, str]
) -> list[Task]:
    """Tasks of the index of smoothed descriptors; `trained` is the stage of the empty index and its
    fingerprint."""
    stage, index = trained
    identity = fingerprint("places", index=index, sigma_m=SIGMA_M)
    by_cell: dict[str, list[str]] = defaultdict(list)
    for shard in described:
        by_cell[shard_cell(shard)].append(shard)
    tasks = []
    for shard, entry in described.items():
        cell = shard_cell(shard)
        read = _around(shard, by_cell)
        tasks.append(
            Task(
                shard,
                cell,
                f"work/index/{run.options.model}/places-{shard}.faiss",
                identity,
                reads=(
                    ("descriptors", entry.file.path),
                    ("trained", train.output),
                    *(
                        (f"around/{near}", described[near].file.path)
                        for near in read
                        if near != shard
                    ),
                ),
                inputs=(
                    *inputs_of(run, describe_name(run), read),
                    *inputs_of(run, ingest_stage.STAGE, read, "directions"),
                    *inputs_of(run, stage, ["trained"]),
                ),
            )
        )
    return tasks


def _around(shard: str, by_cell: Mapping[str, list[str]]) -> list[str]:
    """The shard and those of `by_cell` in its cell and around it, sorted; itself without a cell."""
    cell = shard_cell(shard)
    cells = [] if cell == NO_CELL else ring(cell)
    return sorted({shard, *(near for at in cells for near in by_cell.get(at, []))})


def index_name(run: Run) -> str:
    """The merged index's stage in the ledger."""
    return f"index-{run.options.model}"


def _until(entries: dict[str, LedgerEntry], rows: int) -> Iterator[tuple[str, LedgerEntry]]:
    """The first shards that hold at least so many rows together."""
    total = 0
    for shard, entry in entries.items():
        if total >= rows:
            return
        total += entry.file.rows
        yield shard, entry


def _factory(run: Run, count: int, dimension: int) -> tuple[str, int]:
    """The index's factory, and the count of images that it was chosen for.

    The given one, else the one for this count; an IVF stays until the count is fourfold.
    """
    if run.options.factory:
        return run.options.factory, count
    run.atlas.ledger(index_name(run))
    try:
        if run.atlas.lost[index_name(run)]:
            raise ValueError("not what was committed")
        about = json.loads(
            storage.read_bytes(run.atlas.path(f"index/{run.options.model}/index.json"))
        )
        factory, chosen_for = str(about["factory"]), int(about["chosen_for"])
    except (OSError, ValueError, KeyError, TypeError):
        factory, chosen_for = "", 0
    if "IVF" in factory and chosen_for <= count < 4 * chosen_for:
        return factory, chosen_for
    return choose_factory(count, dimension), count


def pair(run: Run) -> None:
    """Candidates for each new image: near ones, ones anywhere, and those before it in its drive."""
    options = run.options
    describe_ledger = describe_name(run)
    described = dict(sorted(run.atlas.ledger(describe_ledger).items()))
    sequences = _sequences(run)
    rerank = _rerank(run)
    by_cell: dict[str, list[str]] = defaultdict(list)
    tasks = []
    for shard in described:
        cell = shard_cell(shard)
        by_cell[cell].append(shard)
        # Shards come in the order of their names: what is in `by_cell` came before, or is itself.
        around = _around(shard, by_cell)
        tasks.append(
            Task(
                shard,
                cell,
                f"pairs/{shard}.parquet",
                fingerprint(
                    "pair",
                    model=options.model,
                    near=options.near,
                    reach_m=options.reach_m,
                    everywhere=options.everywhere,
                    following=options.following,
                    gps_sigma_m=options.gps_sigma_m,
                    rerank=_rerank_choice(run),
                    sequences=sequences.get(shard, ""),
                    # The factory chosen for the collection's size may change as it grows, and what
                    # was paired by another stays; one that was asked for is heard.
                    factory=options.factory,
                    # More pixels allowed, more images in shards that are there: they are to be
                    # found by later ones.
                    max_pixels=options.max_pixels,
                ),
                reads=tuple((f"around/{near}", described[near].file.path) for near in around),
                inputs=(
                    *inputs_of(run, describe_ledger, around),
                    *inputs_of(run, ingest_stage.STAGE, around, "places"),
                ),
            )
        )
    settings = pair_stage.PairSettings(
        model=options.model,
        near=options.near,
        reach_m=options.reach_m,
        everywhere=options.everywhere,
        following=options.following,
        gps_sigma_m=options.gps_sigma_m,
        stage=describe_ledger,
        index=run.atlas.ledger(index_name(run))["global"].content,
        shards=tuple((shard, entry.file.rows, entry.content) for shard, entry in described.items()),
        rerank=rerank,
    )
    stops = tuple((shard, entry.file.path) for shard, entry in image_shards(run).items())
    run.execute(
        pair_stage.STAGE,
        tasks,
        pair_stage.PairImages(run.atlas.root, settings, stops),
        unit="images",
        count=_image_count(run),
    )


def _sequences(run: Run) -> dict[str, str]:
    """Identity of each shard's neighbours in sequences, which may lie in any other shard.

    In the driver: three short columns of all images.
    """
    parts = []
    for shard, entry in image_shards(run).items():
        table = storage.read_table(run.atlas.path(entry.file.path), pair_stage.STOPS)
        names = pa.array([shard] * table.num_rows, pa.string())
        parts.append(table.append_column("shard", names))
    return pair_stage.sequence_digests(pa.concat_tables(parts), run.options.following)


def _rerank_choice(run: Run) -> tuple[str, ...] | None:
    """What the order of candidates depends on, None where the one by descriptor stands."""
    options = run.options
    if options.rerank == "none":
        return None
    evidence = options.features if options.rerank in BY_FEATURES else f"size {options.patch_size}"
    return options.rerank, evidence, str(options.rerank_candidates)


def _rerank(run: Run) -> RerankSettings:
    """The evidence that candidates are re-ranked by: patches, or features, extracted if need be."""
    options = run.options
    if options.rerank == "none":
        return RerankSettings()
    if options.rerank in BY_FEATURES:
        ledger_name, entries = features_name(run), extract_features(run)
        paths = {shard: entry.file.path for shard, entry in entries.items()}
    else:
        ledger_name = describe_name(run)
        entries = run.atlas.ledger(ledger_name)
        folder = f"patches/{options.model}/"
        paths = {
            shard: file.path
            for shard, entry in entries.items()
            for file in entry.files
            if file.path.startswith(folder)
        }
        if len(paths) < len(entries):
            raise UserError(
                f"pair: {run.atlas.root} has no patches: run `vladmap describe --rerank "
                f"{options.rerank}` first"
            )
    evidence = tuple((shard, path, entries[shard].content) for shard, path in sorted(paths.items()))
    return RerankSettings(
        options.rerank, options.rerank_candidates, options.features, ledger_name, evidence
    )


def features_name(run: Run) -> str:
    """The name of the local features' part of the verify stage in the ledger."""
    return f"features-{run.options.features}"


def extract_features(run: Run) -> dict[str, LedgerEntry]:
    """Local features of every new image."""
    options = run.options
    stage = features_name(run)
    threads = worker_threads(options, run.in_process)
    extracted = run.execute(
        stage,
        _per_image_shard(
            run,
            f"features/{options.features}",
            fingerprint("features", detector=options.features),
            "features",
        ),
        verify_stage.ExtractFeatures(
            run.atlas.root, stage, options.features, options.max_pixels, threads
        ),
        unit="images",
        count=_image_count(run),
        label="features",
    )
    _check_ledger_rejects(run, "verify", stage, extracted)
    panoramas = sum(entry.counts["panoramas"] for entry in extracted.values())
    if panoramas:
        log.info(
            "features: %d panoramas are not mapped, only searched: see rejects/%s",
            panoramas,
            stage,
        )
    return extracted


def verify(run: Run) -> None:
    """Local features of every new image, two-view geometry of every new pair."""
    options, root = run.options, run.atlas.root
    stage = features_name(run)
    threads = worker_threads(options, run.in_process)
    extracted = extract_features(run)
    keys = _choose_cameras(run, extracted)
    images = image_shards(run)
    pairs = run.atlas.ledger(pair_stage.STAGE)
    cameras = run.atlas.ledger(cameras_stage.STAGE)
    tasks = []
    for shard, entry in sorted(pairs.items()):
        touched = sorted({key.rpartition("/")[2] for key in entry.inputs} & set(extracted))
        used = sorted({camera_name(key) for other in touched for key in keys[other]})
        tasks.append(
            Task(
                shard,
                shard_cell(shard),
                f"two_views/{shard}.parquet",
                fingerprint("verify", detector=options.features),
                reads=(
                    ("pairs", entry.file.path),
                    *((f"features/{other}", extracted[other].file.path) for other in touched),
                    *((f"images/{other}", images[other].file.path) for other in touched),
                    *((f"cameras/{name}", cameras[name].file.path) for name in used),
                ),
                inputs=(
                    *inputs_of(run, pair_stage.STAGE, [shard]),
                    *inputs_of(run, stage, touched),
                    *inputs_of(run, ingest_stage.STAGE, touched, "cameras"),
                    *inputs_of(run, cameras_stage.STAGE, used),
                ),
            )
        )
    run.execute(
        verify_stage.STAGE,
        tasks,
        verify_stage.VerifyPairs(root, threads, options.features),
        unit="pairs",
        count=lambda task: pairs[task.shard].file.rows,
    )


def camera_name(key: str) -> str:
    """A camera's name in the ledger."""
    return storage.digest(key.encode())


def _one_lens(run: Run, entry: LedgerEntry) -> pa.Table:
    """Rows of an image shard that a camera model can explain."""
    columns = [*cameras_stage.IMAGE_COLUMNS, "projection"]
    table = storage.read_table(run.atlas.path(entry.file.path), columns)
    return table.filter(pc.equal(table["projection"], PERSPECTIVE))


def _trial_shards(counts: Mapping[str, int], joined: Mapping[str, set[str]]) -> list[str]:
    """Shards to try a camera on, by how many of its images each has: enough, and connected."""
    chosen: list[str] = []
    linked: set[str] = set()
    while len(chosen) < min(len(counts), _CAMERA_SHARDS):
        if sum(counts[shard] for shard in chosen) >= _CAMERA_IMAGES:
            break
        rest = sorted(set(counts) - set(chosen))
        best = max(rest, key=lambda shard: (shard in linked, counts[shard]))
        chosen.append(best)
        linked |= joined[best]
    return sorted(chosen)


def _joined_shards(pairs: Mapping[str, LedgerEntry]) -> dict[str, set[str]]:
    """For each shard those that its pairs reach into, and whose pairs reach into it."""
    joined: defaultdict[str, set[str]] = defaultdict(set)
    for shard, entry in pairs.items():
        for other in {key.rpartition("/")[2].partition(":")[0] for key in entry.inputs}:
            joined[shard].add(other)
            joined[other].add(shard)
    return joined


def _choose_cameras(run: Run, extracted: dict[str, LedgerEntry]) -> dict[str, Counter[str]]:
    """Choose each camera's projection model; returns how many images of each a shard holds.

    It is made on the shard that has most of the camera's images and, where that has few, on others
    that pairs connect with it. A choice stands once it was made on as many images as a trial uses;
    until then it is made again when there are more.
    """
    keys = {
        shard: Counter(camera_keys(_one_lens(run, entry)))
        for shard, entry in image_shards(run).items()
    }
    images, pairs = image_shards(run), run.atlas.ledger(pair_stage.STAGE)
    made, joined = run.atlas.ledger(cameras_stage.STAGE), _joined_shards(pairs)
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for shard in sorted(set(keys) & set(pairs) & set(extracted)):
        for key, count in keys[shard].items():
            counts[key][shard] = count
    tasks = []
    for key in sorted(counts):
        name = camera_name(key)
        shards = _trial_shards(counts[key], joined)
        total = min(sum(counts[key].values()), _CAMERA_IMAGES)
        identities = [
            fingerprint("cameras", detector=run.options.features, images=images)
            for images in range(1, total + 1)
        ]
        known = made.get(name)
        settled = known is not None and known.counts.get("images", 0) >= TRIAL_IMAGES
        stands = settled and known is not None and known.fingerprint in identities
        tasks.append(
            Task(
                name,
                NO_CELL,
                f"work/cameras/{name}.json",
                known.fingerprint if stands and known is not None else identities[-1],
                reads=(
                    ("key", key),
                    *((f"images/{shard}", images[shard].file.path) for shard in shards),
                    *((f"pairs/{shard}", pairs[shard].file.path) for shard in shards),
                    *((f"features/{shard}", extracted[shard].file.path) for shard in shards),
                ),
            )
        )
    run.execute(
        cameras_stage.STAGE,
        tasks,
        cameras_stage.ChooseCameras(run.atlas.root, run.options.features),
        unit="cameras",
    )
    return keys
