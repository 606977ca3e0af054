"""One run of localisation: photographs of a collection against an atlas, into a folder of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from vladmap.atlas import layout
from vladmap.atlas.atlas import Atlas
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline.collection import list_collection
from vladmap.pipeline.options import BuildOptions, worker_threads
from vladmap.pipeline.planning import plan
from vladmap.pipeline.run import Run
from vladmap.pipeline.stage import Step
from vladmap.schemas.records import NO_CELL, Task
from vladmap.schemas.rejects import UserError
from vladmap.transforms.localise import Against, LocalisePhotos

LOCALISE = Step("localise", unit="images")

SHARD_IMAGES = 50


def localise(
    images: str, against: Against, output: str, beam_words: Sequence[str] = ()
) -> Counter[str]:
    """Localise a collection; `output` becomes a folder with `localisations/`, a row a photograph.

    The same command again does only what is new: photographs that were added or changed, or all
    where the atlas is another than it was. Returns how many have each status. Raises UserError for
    an `output` that is an atlas of something else, or that another run is writing.
    """
    atlas = Atlas(against.atlas)
    store = AtlasStore.open(output, create=True)
    if any(stage.startswith("ingest") for stage in store.reader.stages()):
        raise UserError(f"--output {output} is an atlas: give a folder of its own")
    with store.locked():
        store.check_all()
        counts = _brought_up_to_date(store, atlas, images, against, beam_words)
        store.fold([LOCALISE.name])
        store.save()
    return counts


def _brought_up_to_date(
    store: AtlasStore, atlas: Atlas, images: str, against: Against, beam_words: Sequence[str]
) -> Counter[str]:
    listing = list_collection(images)
    planned = plan(store, listing, SHARD_IMAGES, write=True)
    dead = frozenset(
        zip(*(planned.dead[name].to_pylist() for name in ("chunk", "path")), strict=True)
    )
    settings = {
        "stages": atlas.manifest.get("stages"),
        **{name: value for name, value in asdict(against).items() if name != "atlas"},
    }
    tasks = [
        Task(
            chunk,
            NO_CELL,
            layout.localisations(chunk),
            LOCALISE.fingerprint(**settings, dead=sorted(path for at, path in dead if at == chunk)),
            reads=(("plan", path),),
        )
        for chunk, path in planned.chunks
        if planned.alive.get(chunk)
    ]
    run = Run(store, BuildOptions(images=images, atlas=store.root), beam_words)
    ledger = run.execute(
        LOCALISE,
        tasks,
        LocalisePhotos(store.root, against, worker_threads(run.options, run.in_process), dead),
        count=lambda task: planned.alive[task.shard],
        device=against.device,
    )
    store.manifest["collection"] = listing.root
    store.manifest["localised_in"] = atlas.root
    return sum((Counter(entry.counts) for entry in ledger.values()), Counter())
