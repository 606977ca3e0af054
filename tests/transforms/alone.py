"""One transform alone through a pipeline, on a small collection in several shards and cells.

The collection is a drive through two cells, some photographs without GPS, an exact duplicate and
bad files; every transform of a build up to two-view geometry can be run on what the ones before it
wrote. Images have 160x120 pixels.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
from PIL import ExifTags, Image

from tests.photos.bad_photos import encode, exif_block, gps_tags, texture
from vladmap.atlas import layout, storage
from vladmap.atlas.ledger import LedgerReader
from vladmap.atlas.shard_lists import ListedShard, commit_shard_list
from vladmap.mapping.camera_keys import camera_keys, camera_name
from vladmap.models.learning import LearningSettings
from vladmap.photos.sequences import MAX_GAP_M, MAX_GAP_S
from vladmap.pipeline.collection import list_collection
from vladmap.schemas.ingest_tables import PLANNED
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task, shard_cell
from vladmap.transforms.cameras import ChooseCameras
from vladmap.transforms.describe import DescribeImages, ModelSettings
from vladmap.transforms.index import AddShards, AddSmoothed, MergeIndex, TrainIndex
from vladmap.transforms.ingest import OrganiseImages, ScanPhotos
from vladmap.transforms.learn import LearnVocabulary, Reading
from vladmap.transforms.pair import PairImages, PairSettings
from vladmap.transforms.rerank import RerankSettings
from vladmap.transforms.verify import ExtractFeatures, VerifyPairs

MODEL, FEATURES = "vlad", "sift"
MAX_PIXELS = 10**7
ROWS_PER_CHUNK, SHARD_IMAGES = 8, 4
BLANK, CHANGED = "d_blank.jpg", "c_0.jpg"
"""A photograph without a feature; one that the test of `describe` changes after ingest."""


def write_collection(folder: Path) -> None:
    """15 photographs: 8 in one cell, 4 in another, 2 without GPS (one blank), and a duplicate.

    Beside them a file that is cut off and a text file with the name of a photograph.
    """
    folder.mkdir()
    wall = Image.fromarray(texture(0, 1600, 120))

    def write(name: str, number: int, latitude: float | None, pixels: Image.Image) -> None:
        exif = exif_block(
            base={ExifTags.Base.Make: "Test", ExifTags.Base.Model: "Wall"},
            details={
                ExifTags.Base.DateTimeOriginal: f"2024:05:01 12:00:{number:02d}",
                ExifTags.Base.OffsetTimeOriginal: "+00:00",
            },
            gps={} if latitude is None else gps_tags(latitude, 16.37),
        )
        (folder / name).write_bytes(encode(pixels, exif=exif))

    for number in range(12):
        north = 48.2 + 2e-5 * number + (0.05 if number >= 8 else 0.0)
        crop = wall.crop((24 * number, 0, 24 * number + 160, 120))
        write(f"{'a' if number < 8 else 'b'}_{number:02d}.jpg", number, north, crop)
    write("c_0.jpg", 30, None, wall.crop((400, 0, 560, 120)))
    write(BLANK, 40, None, Image.new("RGB", (160, 120), "grey"))
    shutil.copy(folder / "a_03.jpg", folder / "e_copy.jpg")
    data = (folder / "a_05.jpg").read_bytes()
    (folder / "f_cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "g_text.jpg").write_bytes(b"not a photograph, but long enough to be read" * 10)


Counters = dict[str, int]
Step = tuple[beam.PTransform, list[Task], str]
"""A transform, its tasks, and the stage of its ledger."""


def through_beam(transform: beam.PTransform, tasks: Sequence[Task]) -> Counters:
    """Run a transform alone; its counters as `<namespace>/<name>`."""
    pipeline = beam.Pipeline("FnApiRunner")
    _ = pipeline | beam.Create(list(tasks)) | transform
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(beam.metrics.MetricsFilter())["counters"]
    return {
        f"{counter.key.metric.namespace}/{counter.key.metric.name}": counter.result
        for counter in counters
    }


def files(root: Path) -> dict[str, bytes]:
    """The bytes of every file of an atlas, by path."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Atlas:
    """An atlas in the making, and the step of each transform on what stands in it."""

    root: Path
    photos: Path

    def ledger(self, stage: str) -> dict[str, LedgerEntry]:
        return dict(sorted(LedgerReader(str(self.root)).entries(stage).items()))

    def run(self, step: Callable[[Atlas], Step]) -> tuple[dict[str, LedgerEntry], Counters]:
        """Run a step alone; the entries of its ledger, and its counters."""
        transform, tasks, stage = step(self)
        counters = through_beam(transform, tasks)
        return self.ledger(stage), counters

    def table(self, path: str) -> pa.Table:
        return storage.read_table(str(self.root / path))

    def tables(self, stage: str) -> list[pa.Table]:
        """The main table of each shard of a stage, by shard."""
        return [self.table(entry.file.path) for entry in self.ledger(stage).values()]

    def images(self) -> pa.Table:
        """All shards of `images/`."""
        return pa.concat_tables([self.table(e.file.path) for e in image_shards(self).values()])

    def ids(self) -> dict[str, str]:
        """Image ids by the names of photographs."""
        images = self.images()
        return dict(zip(images["name"].to_pylist(), images["image_id"].to_pylist(), strict=True))

    def rejects(self, stage: str) -> dict[str, str]:
        """Reasons by the names of photographs that a stage rejected."""
        rows = [
            row
            for path in sorted((self.root / "rejects" / stage).glob("*.parquet"))
            for row in self.table(path.relative_to(self.root).as_posix()).to_pylist()
        ]
        return {Path(row["uri"]).name: row["reason"] for row in rows}


def scan(atlas: Atlas) -> Step:
    rows = list_collection(str(atlas.photos)).table.to_pylist()
    tasks = []
    for number, start in enumerate(range(0, len(rows), ROWS_PER_CHUNK)):
        chunk = [{**row, "home": None} for row in rows[start : start + ROWS_PER_CHUNK]]
        plan = layout.plan_chunk("g0000", number)
        storage.commit_table(str(atlas.root), plan, pa.Table.from_pylist(chunk, schema=PLANNED))
        name = layout.shard_of(plan)
        tasks.append(Task(name, NO_CELL, layout.headers(name), "f", (("plan", plan),)))
    return ScanPhotos(str(atlas.root), MAX_PIXELS, 2), tasks, "scan"


def organise(atlas: Atlas, dead: Sequence[tuple[str, str]] = ()) -> Step:
    schema = pa.schema([("chunk", pa.string()), ("path", pa.string())])
    rows = [dict(zip(schema.names, row, strict=True)) for row in dead]
    storage.commit_table(str(atlas.root), layout.DEAD, pa.Table.from_pylist(rows, schema=schema))
    tasks = [
        Task(chunk, NO_CELL, "", "f", (("headers", entry.file.path),))
        for chunk, entry in atlas.ledger("scan").items()
    ]
    transform = OrganiseImages(
        str(atlas.root), "f", SHARD_IMAGES, 8, MAX_GAP_S, MAX_GAP_M, layout.DEAD
    )
    return transform, tasks, "ingest"


def image_shards(atlas: Atlas) -> dict[str, LedgerEntry]:
    entries = atlas.ledger("ingest").items()
    return {shard: entry for shard, entry in entries if entry.file.path.startswith("images/")}


def learn(atlas: Atlas) -> Step:
    images = atlas.images()
    sample = layout.vocabulary_sample(MODEL)
    storage.commit_table(str(atlas.root), sample, images.sort_by("image_id"))
    task = Task("weights", NO_CELL, layout.model_weights(MODEL), "f", (("sample", sample),))
    reading = Reading(str(atlas.root), 2, MAX_PIXELS)
    return LearnVocabulary("vocabulary", reading, LearningSettings(MODEL, clusters=4)), [task], (
        "vocabulary"
    )  # fmt: skip


def per_shard(atlas: Atlas, output: Callable[[str], str]) -> list[Task]:
    return [
        Task(shard, shard_cell(shard), output(shard), "f", (("images", entry.file.path),))
        for shard, entry in image_shards(atlas).items()
    ]


def describe(atlas: Atlas) -> Step:
    weights = atlas.ledger("vocabulary")["weights"].file
    settings = ModelSettings(
        MODEL, weights=weights.path, weights_digest=weights.digest, batch_size=3, threads=2
    )
    tasks = per_shard(atlas, lambda shard: layout.descriptors(MODEL, shard))
    return DescribeImages(str(atlas.root), "describe", settings), tasks, "describe"


def descriptor_reads(atlas: Atlas, role: str = "descriptors") -> list[tuple[str, str]]:
    return [(role, entry.file.path) for entry in atlas.ledger("describe").values()]


def train(atlas: Atlas) -> Step:
    reads = tuple(descriptor_reads(atlas))
    task = Task("trained", NO_CELL, layout.trained_index(MODEL), "f", reads)
    return TrainIndex(str(atlas.root), "train", "IVF2,Flat", 10), [task], "train"


def add(atlas: Atlas) -> Step:
    trained = ("trained", layout.trained_index(MODEL))
    tasks = [
        Task(shard, shard_cell(shard), layout.partial_index(MODEL, shard), "f",
             (("descriptors", entry.file.path), trained))
        for shard, entry in atlas.ledger("describe").items()
    ]  # fmt: skip
    return AddShards(str(atlas.root), "parts"), tasks, "parts"


def add_smoothed(atlas: Atlas) -> Step:
    trained = ("trained", layout.trained_index(MODEL))
    around = descriptor_reads(atlas, "around")
    tasks = [
        Task(shard, shard_cell(shard), layout.partial_places(MODEL, shard), "f",
             (("descriptors", entry.file.path), trained,
              *(read for read in around if layout.shard_of(read[1]) != shard)))
        for shard, entry in atlas.ledger("describe").items()
    ]  # fmt: skip
    return AddSmoothed(str(atlas.root), "places"), tasks, "places"


def merge_index(atlas: Atlas) -> Step:
    parts = [
        (role, entry.file.path)
        for role in ("parts", "places")
        for entry in atlas.ledger(role).values()
    ]
    trained = ("trained", layout.trained_index(MODEL))
    reads = (trained, *parts, *descriptor_reads(atlas))
    task = Task("global", NO_CELL, layout.global_index(MODEL), "f", reads)
    facts = (("factory", "IVF2,Flat"), ("model", MODEL))
    return MergeIndex(str(atlas.root), "index", facts, queries=5), [task], "index"


def pair(atlas: Atlas, rerank: RerankSettings | None = None) -> Step:
    shards = atlas.ledger("describe")
    listed = [
        ListedShard(
            name, entry.file.path, shards[name].file.rows if name in shards else 0,
            shards[name].content if name in shards else "",
        )
        for name, entry in image_shards(atlas).items()
    ]  # fmt: skip
    settings = PairSettings(
        model=MODEL, near=2, reach_m=20.0, everywhere=2, following=1, gps_sigma_m=4.0,
        stage="describe", index=atlas.ledger("index")["global"].content,
        shards=commit_shard_list(str(atlas.root), "pair", listed),
        rerank=rerank or RerankSettings(),
    )  # fmt: skip
    tasks: list[Task] = []
    before: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for shard, entry in shards.items():
        cell = shard_cell(shard)
        before[cell].append((layout.DESCRIPTORS, entry.file.path))
        tasks.append(Task(shard, cell, layout.pairs(shard), "f", tuple(before[cell])))
    return PairImages(str(atlas.root), settings), tasks, "pair"


def extract(atlas: Atlas) -> Step:
    tasks = per_shard(atlas, lambda shard: layout.features(FEATURES, shard))
    return ExtractFeatures(str(atlas.root), "features", FEATURES, MAX_PIXELS, 1), tasks, "features"


def reads_of(atlas: Atlas, **stages: str) -> tuple[tuple[str, str], ...]:
    """(role, path) of every shard of some stages, by role."""
    return tuple(
        (role, entry.file.path)
        for role, stage in stages.items()
        for shard, entry in atlas.ledger(stage).items()
        if not shard.startswith("rejects")
    )


def cameras(atlas: Atlas) -> Step:
    images = atlas.images()
    reads = reads_of(atlas, images="ingest", pairs="pair", features="features")
    tasks = [
        Task(name, NO_CELL, layout.camera(name), "f", reads)
        for name in sorted(set(map(camera_name, camera_keys(images))))
    ]  # fmt: skip
    return ChooseCameras(str(atlas.root), FEATURES), tasks, "cameras"


def verify(atlas: Atlas) -> Step:
    reads = reads_of(atlas, images="ingest", features="features", cameras="cameras")
    tasks = [
        Task(shard, shard_cell(shard), layout.two_views(shard), "f",
             (("pairs", entry.file.path), *reads))
        for shard, entry in atlas.ledger("pair").items()
    ]  # fmt: skip
    return VerifyPairs(str(atlas.root), 2, FEATURES), tasks, "verify"


STEPS: tuple[Callable[[Atlas], Step], ...] = (
    scan, organise, learn, describe, train, add, add_smoothed, merge_index, pair, extract,
    cameras, verify,
)  # fmt: skip
"""In the order of a build: each reads what those before it wrote."""
