"""Where everything of an atlas lies: each path, relative to the atlas's folder, in one place.

A shard is a part of the collection, `g<generation>-<block>-<cell>-<piece>`; its files carry its
name in each table. Tables that are read by place lie in a folder for each cell (`cell=<h3>`), as
partitioned Parquet data sets do.
"""

from __future__ import annotations

from vladmap.schemas.records import shard_cell

MANIFEST = "atlas.json"
LOCK = ".lock"
LEDGER = "ledger"

IMAGES = "images"
REJECTS = "rejects"
DESCRIPTORS = "descriptors"
PATCHES = "patches"
FEATURES = "features"
SECOND_FEATURES = "second_features"
"""The role, of tasks, of features of a second kind; their tables lie beside the others."""
PAIRS = "pairs"
TWO_VIEWS = "two_views"
INDEX = "index"
TILES = "tiles"
MODEL = "model"
REPORT = "report"
WORK = "work"
"""The folders at the top."""

POSES = "poses.parquet"
LOCALISATIONS = "localisations"
UNREGISTERED = "unregistered.parquet"
COVERAGE = "coverage.parquet"
LOOPS = "loops.parquet"
DRIVES = "drives.parquet"

MERGE_REPORT = "model/merge.json"
REPORT_PAGE = "report/index.html"
REPORT_TRUTH = "report/truth.json"

DEAD = "work/organise/dead.parquet"
JUDGED = "work/judged.parquet"
GRAPH_POSES = "work/graph_poses.parquet"
LOOP_FITS = "work/loop_fits.parquet"
METRICS = "work/metrics.json"
OPTIONS = "work/options.json"
PAIR_FITS = "work/pair_fits.parquet"
TILE_PLAN = "work/tile_plan.parquet"
TIMINGS = "work/timings.json"


INGEST_LEDGER = "ingest"
PAIR_LEDGER = "pair"
VERIFY_LEDGER = "verify"
LOOPS_LEDGER = "loops"
MERGE_LEDGER = "merge"
DESCRIBE_PREFIX = "describe-"
FEATURES_PREFIX = "features-"
"""Names in the ledger; an atlas may hold several models and kinds of features beside each other."""


def describe_ledger(model: str) -> str:
    """The ledger's name of the descriptors of a model."""
    return f"{DESCRIBE_PREFIX}{model}"


def features_ledger(kind: str) -> str:
    """The ledger's name of the local features of a kind."""
    return f"{FEATURES_PREFIX}{kind}"


def weights_ledger(model: str) -> str:
    """The ledger's name of a model's weights."""
    return f"vocabulary-{model}"


def index_ledger(model: str) -> str:
    """The ledger's name of a model's index."""
    return f"index-{model}"


def ledger_folder(stage: str) -> str:
    """The folder of a stage's ledger entries."""
    return f"{LEDGER}/{stage}"


def ledger_entry(stage: str, shard: str) -> str:
    """The ledger entry of one shard of a stage."""
    return f"{LEDGER}/{stage}/{shard}.json"


def ledger_fold(stage: str) -> str:
    """The entries of a stage that were folded into one file (atlas.ledger_folds)."""
    return f"{LEDGER}/{stage}/folded.jsonl"


def in_cell(folder: str, shard: str) -> str:
    """A shard's file of a table that lies in folders by cell."""
    return f"{folder}/cell={shard_cell(shard)}/{shard}.parquet"


def images(shard: str) -> str:
    """A shard of `images/`."""
    return in_cell(IMAGES, shard)


def rejects(stage: str, shard: str) -> str:
    """The photographs of a shard that a stage rejected."""
    return f"{REJECTS}/{stage}/{shard}.parquet"


def descriptors_folder(model: str) -> str:
    """The table of a model's global descriptors."""
    return f"{DESCRIPTORS}/{model}"


def descriptors(model: str, shard: str) -> str:
    """A shard's global descriptors of a model."""
    return in_cell(descriptors_folder(model), shard)


def patches_folder(model: str) -> str:
    """The table of a model's patch descriptors."""
    return f"{PATCHES}/{model}"


def patches(model: str, shard: str) -> str:
    """A shard's patch descriptors of a model."""
    return in_cell(patches_folder(model), shard)


def features_folder(kind: str) -> str:
    """The table of local features of a kind."""
    return f"{FEATURES}/{kind}"


def features(kind: str, shard: str) -> str:
    """A shard's local features of a kind."""
    return in_cell(features_folder(kind), shard)


def localisations(shard: str) -> str:
    """A shard of `localisations/`, of photographs that were localised in another atlas."""
    return f"{LOCALISATIONS}/{shard}.parquet"


def pairs(shard: str) -> str:
    """The candidate pairs whose later image lies in a shard."""
    return f"{PAIRS}/{shard}.parquet"


def two_views(shard: str) -> str:
    """The two-view geometries of a shard of pairs."""
    return f"{TWO_VIEWS}/{shard}.parquet"


def index_folder(model: str) -> str:
    """A model's index with all that is needed to search it."""
    return f"{INDEX}/{model}"


def global_index(model: str) -> str:
    """The FAISS index of all descriptors of a model."""
    return f"{INDEX}/{model}/global.faiss"


def places_index(model: str) -> str:
    """The FAISS index of descriptors that were averaged over neighbours in space."""
    return f"{INDEX}/{model}/places.faiss"


def index_ids(model: str) -> str:
    """The image id of each row of a model's indices."""
    return f"{INDEX}/{model}/ids.parquet"


def index_facts(model: str) -> str:
    """The facts on a model's index: factory, count, dimension, recall."""
    return f"{INDEX}/{model}/index.json"


def model_weights(model: str) -> str:
    """The weights that descriptors were made with, where the atlas learnt a part of them."""
    return f"{INDEX}/{model}/model.safetensors"


def model_checkpoint(model: str) -> str:
    """The weights that descriptors were made with, where they were given whole."""
    return f"{INDEX}/{model}/model.checkpoint"


def tile_folder(tile: str) -> str:
    """A tile's models and its report."""
    return f"{TILES}/{tile}"


def tile_report(tile: str) -> str:
    """The report of a tile's reconstruction."""
    return f"{TILES}/{tile}/tile.json"


def tile_of(path: str) -> str:
    """The tile that a file of `tiles/` is of."""
    return path.split("/")[1]


def tile_model_folder(tile: str, number: int | str) -> str:
    """The folder of one COLMAP model of a tile."""
    return f"{TILES}/{tile}/sparse/{number}"


def model_folder(number: int | str) -> str:
    """The folder of one merged COLMAP model."""
    return f"{MODEL}/{number}"


def plan_chunks(generation: str) -> str:
    """The common prefix of the paths of all chunks of a generation of the listing."""
    return f"{WORK}/plan/{generation}-"


def plan_chunk(generation: str, number: int) -> str:
    """A chunk of the listing."""
    return f"{plan_chunks(generation)}{number:05d}.parquet"


def shard_homes(block: str) -> str:
    """Which shard the images of a block lie in (photos.shard_homes)."""
    return f"{WORK}/organise/{block}.parquet"


def headers(chunk: str) -> str:
    """The headers of a chunk's photographs."""
    return f"{WORK}/headers/{chunk}.parquet"


def shard_list(name: str) -> str:
    """A list of shards that a step at work reads (atlas.shard_lists)."""
    return f"{WORK}/shards/{name}.parquet"


def task_file(label: str) -> str:
    """The tasks of a pipeline at work (atlas.task_files); deleted afterwards."""
    return f"{WORK}/tasks/{label.replace(' ', '-')}.tasks"


def vocabulary_sample(model: str) -> str:
    """The photographs that a model's words are learnt from; deleted afterwards."""
    return f"{WORK}/vocabulary/{model}.parquet"


def trained_index(model: str) -> str:
    """A trained, empty index."""
    return f"{WORK}/index/{model}/trained.faiss"


def partial_index(model: str, shard: str) -> str:
    """A shard's part of the global index: the codes of its vectors (retrieval.index_parts)."""
    return f"{WORK}/index/{model}/{shard}.bin"


def partial_places(model: str, shard: str) -> str:
    """A shard's part of the index of averaged descriptors."""
    return f"{WORK}/index/{model}/places-{shard}.bin"


def camera(name: str) -> str:
    """The projection model that was chosen for a camera."""
    return f"{WORK}/cameras/{name}.json"


def tile_members(tile: str) -> str:
    """The images of a tile."""
    return f"{WORK}/tiles/{tile}.parquet"


def tile_judged(tile: str) -> str:
    """The verified pairs of a tile, with the verdict on each."""
    return f"{WORK}/tiles/{tile}.judged.parquet"


def top(path: str) -> str:
    """The folder at the top of the atlas that a path lies in, or the file that it is."""
    return path.partition("/")[0]


def shard_of(path: str) -> str:
    """The shard (or camera, or chunk) that a file is named after: its name without its ending."""
    return path.rpartition("/")[2].partition(".")[0]
