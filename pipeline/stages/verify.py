"""Local features of every new image, two-view geometry of every new pair."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vladmap.features.names import NEAREST, NO_SECOND
from vladmap.pipeline.stage import Stage, Step
from vladmap.pipeline.stages.ingest import CUT

if TYPE_CHECKING:
    from vladmap.pipeline.options import BuildOptions
    from vladmap.pipeline.run import Run

log = logging.getLogger("vladmap")


def _detector(options: BuildOptions) -> dict[str, str]:
    return {"detector": options.features}


def _matching(options: BuildOptions) -> dict[str, str]:
    # Nearest is left out, so that atlases older than the option stay valid.
    matcher = {"matcher": options.matcher} if options.matcher != NEAREST else {}
    second = {"between_drives": options.between_drives} if has_second(options) else {}
    return {"detector": options.features, **matcher, **second}


def has_second(options: BuildOptions) -> bool:
    """Whether pairs between drives are tried again by features of a second kind."""
    return options.between_drives != NO_SECOND


def _second_detector(options: BuildOptions) -> dict[str, str]:
    return {"detector": options.between_drives} if has_second(options) else {}


FEATURES = Step(
    "features",
    version=3,
    ledger="features-{options.features}",
    unit="images",
    settings=_detector,
    told=True,
    after=CUT,
)
# The same task, and the same ledger, as FEATURES of that kind: made once for either.
SECOND = Step(
    FEATURES.name,
    version=FEATURES.version,
    ledger="features-{options.between_drives}",
    label="features between drives",
    unit=FEATURES.unit,
    internal=True,
    settings=_second_detector,
    told=True,
    after=CUT,
    applies=has_second,
)
CAMERAS = Step("cameras", version=4, unit="cameras", settings=_detector, lasting=True)
VERIFY = Step(
    "verify",
    version=2,
    unit="pairs",
    settings=_matching,
    told=True,
    after=("pair", "features", "features between drives", "cameras"),
)


def work(run: Run) -> None:
    """Extract features, choose each camera's projection model, verify the pairs.

    Raises UserError where too many photographs are rejected.
    """
    from vladmap.atlas import layout
    from vladmap.features.registry import matching_device
    from vladmap.mapping.camera_keys import camera_name
    from vladmap.pipeline.cameras import choose_cameras
    from vladmap.pipeline.ledgers import image_shards, inputs_of
    from vladmap.pipeline.local_features import extract_features, extract_second
    from vladmap.pipeline.options import worker_threads
    from vladmap.pipeline.stages.ingest import INGEST
    from vladmap.pipeline.stages.pair import PAIR
    from vladmap.schemas.records import Task, shard_cell
    from vladmap.transforms.verify import AGAIN, GAINED, VerifyPairs

    features, second = extract_features(run), extract_second(run)
    camera_keys = choose_cameras(run, features)
    images, pairs, cameras = image_shards(run), run.ledger(PAIR), run.ledger(CAMERAS)
    options = run.options
    tasks = []
    for shard, entry in sorted(pairs.items()):
        touched = sorted({key.rpartition("/")[2] for key in entry.inputs} & set(features))
        used = sorted({camera_name(key) for other in touched for key in camera_keys[other]})
        tasks.append(
            Task(
                shard,
                shard_cell(shard),
                layout.two_views(shard),
                VERIFY.fingerprint_of(options),
                reads=(
                    (layout.PAIRS, entry.file.path),
                    *((layout.FEATURES, features[other].file.path) for other in touched),
                    *((layout.IMAGES, images[other].file.path) for other in touched),
                    *(("cameras", cameras[name].file.path) for name in used),
                    *(
                        (layout.SECOND_FEATURES, second[other].file.path)
                        for other in touched
                        if other in second
                    ),
                ),
                inputs=(
                    *inputs_of(run, PAIR, [shard]),
                    *inputs_of(run, FEATURES, touched),
                    # Pairs between drives are told by all that is known of the photographs.
                    *inputs_of(run, INGEST, touched, "" if second else "cameras"),
                    *inputs_of(run, SECOND, [other for other in touched if other in second]),
                    *inputs_of(run, CAMERAS, used),
                ),
            )
        )
    run.execute(
        VERIFY,
        tasks,
        VerifyPairs(
            run.atlas.root,
            worker_threads(options, run.in_process),
            options.features,
            options.matcher,
            options.device,
            options.between_drives if second else "",
        ),
        count=lambda task: pairs[task.shard].file.rows,
        device=options.device if second else matching_device(options.matcher, options.device),
    )
    if second:
        entries = run.ledger(VERIFY).values()
        again, gained = (sum(entry.counts[name] for entry in entries) for name in (AGAIN, GAINED))
        log.info(
            "verify: %s of %s pairs, of two drives and with little by %s, were tried again by %s: "
            "%s hold by it",
            *(f"{again:,}", f"{sum(entry.file.rows for entry in entries):,}", options.features),
            *(options.between_drives, f"{gained:,}"),
        )


def estimate(run: Run, images: int) -> list[str]:
    """Where the local features are extracted, and how much room they take on disk."""
    from vladmap.console.numbers import human_bytes
    from vladmap.features.registry import feature_kind

    options = run.options
    # Measured: some 3,000 keypoints of 144 bytes for each image, and 4 kB for each pair.
    size = human_bytes(images * 3000 * 144)
    device = feature_kind(options.features).device(options.device)
    return [f"verify      {options.features} features on {device}, about {size} on disk"]


STAGE = Stage(
    name="verify",
    title="local features, matches, two-view geometry",
    text="Local features, matches and two-view geometry: features/, two_views/.",
    work=work,
    estimate=estimate,
    steps=(FEATURES, SECOND, CAMERAS, VERIFY),
    needs=("ingest", "pair"),
    options=(
        "max_pixels",
        "max_reject_rate",
        "device",
        "accelerator",
        "threads",
        "features",
        "matcher",
        "between_drives",
    ),
    group="local features and matches (verify)",
    examples=(
        "vladmap verify --atlas atlas --features xfeat --matcher lighterglue",
        "vladmap verify --atlas atlas --between-drives xfeat",
    ),
)
