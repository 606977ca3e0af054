"""Local features of every new image, two-view geometry of every new pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vladmap.features.names import NEAREST
from vladmap.pipeline.stage import Stage, Step
from vladmap.pipeline.stages.ingest import CUT

if TYPE_CHECKING:
    from vladmap.pipeline.options import BuildOptions
    from vladmap.pipeline.run import Run


def _detector(options: BuildOptions) -> dict[str, str]:
    return {"detector": options.features}


def _matching(options: BuildOptions) -> dict[str, str]:
    # Nearest is left out, so that atlases older than the option stay valid.
    matcher = {"matcher": options.matcher} if options.matcher != NEAREST else {}
    return {"detector": options.features, **matcher}


FEATURES = Step(
    "features",
    version=3,
    ledger="features-{options.features}",
    unit="images",
    settings=_detector,
    told=True,
    after=CUT,
)
CAMERAS = Step("cameras", version=4, unit="cameras", settings=_detector, lasting=True)
VERIFY = Step(
    "verify",
    version=2,
    unit="pairs",
    settings=_matching,
    told=True,
    after=("pair", "features", "cameras"),
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
    from vladmap.pipeline.local_features import extract_features
    from vladmap.pipeline.options import worker_threads
    from vladmap.pipeline.stages.ingest import INGEST
    from vladmap.pipeline.stages.pair import PAIR
    from vladmap.schemas.records import Task, shard_cell
    from vladmap.transforms.verify import VerifyPairs

    features = extract_features(run)
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
                ),
                inputs=(
                    *inputs_of(run, PAIR, [shard]),
                    *inputs_of(run, FEATURES, touched),
                    *inputs_of(run, INGEST, touched, "cameras"),
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
        ),
        count=lambda task: pairs[task.shard].file.rows,
        device=matching_device(options.matcher, options.device),
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
    steps=(FEATURES, CAMERAS, VERIFY),
    needs=("ingest", "pair"),
    options=(
        "max_pixels",
        "max_reject_rate",
        "device",
        "accelerator",
        "threads",
        "features",
        "matcher",
    ),
    group="local features and matches (verify)",
    examples=("vladmap verify --atlas atlas --features xfeat --matcher lighterglue",),
)
