"""The choice of each camera's projection model, a step of the stage `verify`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import layout, storage
from vladmap.mapping.camera_keys import IMAGE_COLUMNS, camera_keys, camera_name
from vladmap.mapping.trial_images import MAX_IMAGES as TRIAL_IMAGES
from vladmap.photos.headers.projection import PERSPECTIVE
from vladmap.pipeline.ledgers import image_shards
from vladmap.pipeline.options import worker_threads
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.pair import PAIR
from vladmap.pipeline.stages.verify import CAMERAS
from vladmap.schemas.records import NO_CELL, LedgerEntry, Task
from vladmap.transforms.cameras import ChooseCameras

# The trials of a camera choose among so many of its images, from at most so many shards.
_CAMERA_IMAGES = 4 * TRIAL_IMAGES
_CAMERA_SHARDS = 8


def choose_cameras(run: Run, features: Mapping[str, LedgerEntry]) -> dict[str, Counter[str]]:
    """Choose each camera's projection model; returns how many images of each camera a shard holds.

    The trials use images of the shard that has most images of the camera and, if these are few, of
    shards that pairs connect with it. A choice is final once it was made with as many images as a
    trial uses; until then it is made again whenever there are more. One whose trials ran out of
    memory is made again by each build: there may be more memory now.
    """
    for name, entry in sorted(run.ledger(CAMERAS).items()):
        if entry.counts.get("out_of_memory"):
            run.atlas.forget(CAMERAS.ledger_name(run.options), [name])
    images, pairs = image_shards(run), run.ledger(PAIR)
    keys = {shard: Counter(camera_keys(_one_lens(run, entry))) for shard, entry in images.items()}
    made, joined = run.ledger(CAMERAS), _joined_shards(pairs)
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for shard in sorted(set(keys) & set(pairs) & set(features)):
        for key, count in keys[shard].items():
            counts[key][shard] = count
    tasks = []
    for key in sorted(counts):
        name = camera_name(key)
        shards = _trial_shards(counts[key], joined)
        tasks.append(
            Task(
                name,
                NO_CELL,
                layout.camera(name),
                _fingerprint(run, sum(counts[key].values()), made.get(name)),
                reads=(
                    *((layout.IMAGES, images[shard].file.path) for shard in shards),
                    *((layout.PAIRS, pairs[shard].file.path) for shard in shards),
                    *((layout.FEATURES, features[shard].file.path) for shard in shards),
                ),
            )
        )
    workers = worker_threads(run.options, run.in_process)
    run.execute(CAMERAS, tasks, ChooseCameras(run.atlas.root, run.options.features, workers))
    return keys


def _one_lens(run: Run, entry: LedgerEntry) -> pa.Table:
    """The rows of an image shard that a camera model can explain: those that are no panoramas."""
    columns = [*IMAGE_COLUMNS, "projection"]
    table = storage.read_table(run.atlas.path(entry.file.path), columns)
    return table.filter(pc.equal(table["projection"], PERSPECTIVE))


def _fingerprint(run: Run, images: int, known: LedgerEntry | None) -> str:
    """The fingerprint of a choice among so many images; that of the known one if it is final."""
    fingerprints = [
        CAMERAS.fingerprint_of(run.options, images=count)
        for count in range(1, min(images, _CAMERA_IMAGES) + 1)
    ]
    settled = known is not None and known.counts.get("images", 0) >= TRIAL_IMAGES
    if settled and known is not None and known.fingerprint in fingerprints:
        return known.fingerprint
    return fingerprints[-1]


def _trial_shards(counts: Mapping[str, int], joined: Mapping[str, set[str]]) -> list[str]:
    """The shards whose images a camera is tried on.

    `counts` is the number of its images in each shard; shards are added along `joined` until there
    are enough images.
    """
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
    """For each shard, the shards that it has pairs in common with."""
    joined: defaultdict[str, set[str]] = defaultdict(set)
    for shard, entry in pairs.items():
        for other in {key.rpartition("/")[2].partition(":")[0] for key in entry.inputs}:
            joined[shard].add(other)
            joined[other].add(shard)
    return joined
