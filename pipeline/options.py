"""Every option of a build: its default, its meaning, its place in a YAML file.

One dataclass is the single source: the command line, `--config` and `--help` are derived from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from vladmap.console.numbers import MOST_SEED, Range
from vladmap.console.suggest import did_you_mean
from vladmap.models.kinds import DEFAULT_DIMENSION, MODEL_NAMES, SHIPPED, WITH_PATCHES
from vladmap.retrieval.names import BY_FEATURES, BY_PATCHES
from vladmap.schemas.rejects import UserError

STAGES = ("ingest", "describe", "index", "pair", "verify", "reconstruct", "merge", "report")
"""Of a build, in their order."""

END = "--"
"""What stands after it goes to Beam as it is: options that only a job server of one's own knows."""

AS_PUBLISHED = -1
"""In place of a number of dimensions: what suits the model."""


def _option(
    default: Any, text: str, *, stages: str, choices: Sequence[str] = (), metavar: str = ""
) -> Any:
    metadata = {"help": text, "stages": stages, "choices": choices, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class BuildOptions:
    """Options of the main job. `metadata["stages"]` names the stages that read each."""

    images: str = _option(
        "",
        "folder, glob or manifest (.csv .parquet .geojson) of photographs; gs:// and s3:// too",
        stages="ingest",
        metavar="SOURCE",
    )
    atlas: str = _option("", "folder of the atlas, made if need be", stages="*", metavar="DIR")
    max_pixels: int = _option(
        200_000_000,
        "reject photographs with more pixels than this",
        stages="ingest describe pair verify merge",
    )
    max_reject_rate: float = _option(
        0.5,
        "end the run when more than this share of the photographs is rejected",
        stages="ingest describe verify",
    )
    shard_images: int = _option(
        200, "images in a shard, the unit of work and of resume", stages="ingest"
    )
    cell_resolution: int = _option(8, "H3 resolution of the cells", stages="ingest")
    sequence_gap_s: float = _option(
        60.0, "seconds between two photographs that end a sequence", stages="ingest"
    )
    sequence_gap_m: float = _option(
        600.0, "metres between two photographs that end a sequence", stages="ingest"
    )
    model: str = _option(
        "netvlad-lite",
        "global descriptor",
        stages="describe index pair report",
        choices=MODEL_NAMES,
    )
    checkpoint: str = _option(
        "",
        "weights of the model, in any layout that `vladmap convert --help` lists",
        stages="describe",
        metavar="FILE",
    )
    clusters: int = _option(
        0,
        "visual words learnt from the collection; 0: as many as the model is published with, and\n"
        "twice as many where descriptors are reduced and no patches wanted",
        stages="describe",
    )
    whiten: int = _option(
        0,
        "PCA-whiten descriptors to this dimension, where ten times as many images were sampled",
        stages="describe",
        metavar="D",
    )
    dimension: int = _option(
        AS_PUBLISHED,
        "numbers that descriptors are reduced to by PCA, whitened by half, learnt from the\n"
        "collection; at most as many as it has images; 0: leave them whole, -1: what is best for "
        "the model",
        stages="describe",
        metavar="D",
    )
    learn: bool = _option(
        False,
        "learn the words from the collection although the checkpoint has its own",
        stages="describe",
    )
    vocabulary_images: int = _option(
        256, "photographs that the visual words are learnt from", stages="describe"
    )
    relearn: bool = _option(
        False, "learn the visual words anew although the atlas has some", stages="describe"
    )
    device: str = _option(
        "cpu",
        "where models run; an absent GPU is an error",
        stages="describe",
        choices=("cpu", "cuda"),
    )
    precision: str = _option(
        "float32",
        "arithmetic of the models",
        stages="describe",
        choices=("float32", "bfloat16", "float16"),
    )
    compile: bool = _option(
        False,
        "compile the model's network for each size of image: seconds that long runs may repay",
        stages="describe",
    )
    batch_size: int = _option(16, "images in one forward pass", stages="describe")
    threads: int = _option(
        0,
        "threads that read and decode, and processes that extract SIFT, in each worker; "
        "0: as many as cores where the worker is this process, else 1",
        stages="ingest describe pair verify merge",
    )
    factory: str = _option(
        "", "FAISS factory string; by default Flat below 20,000 images, IVF above", stages="index"
    )
    near: int = _option(
        20, "neighbours by descriptor among images within reach of GPS", stages="pair"
    )
    reach_m: float = _option(
        60.0, "metres within which two photographs may show the same scene", stages="pair"
    )
    everywhere: int = _option(
        5,
        "neighbours by descriptor in the whole collection (loops, images without GPS)",
        stages="pair",
    )
    following: int = _option(5, "neighbours before it in the image's sequence", stages="pair")
    rerank: str = _option(
        "none",
        "order the neighbours in the whole collection by the inliers of local features (those of "
        "XFeat matched by LighterGlue: 25 times the time), or by patches (rapid score, RANSAC); "
        "what each is worth: docs/performance.md",
        stages="describe pair",
        choices=("none", *BY_PATCHES, *BY_FEATURES),
    )
    rerank_candidates: int = _option(
        20, "neighbours by descriptor that are put in order", stages="pair"
    )
    patch_size: int = _option(
        5, "cells along a patch, where patches re-rank", stages="describe pair"
    )
    patch_dimension: int = _option(
        512,
        "PCA-whiten patches to this dimension; checkpoints with a PCA bring their own",
        stages="describe",
    )
    gps_sigma_m: float = _option(
        5.0,
        "GPS accuracy (one sigma) of photographs that do not state theirs",
        stages="pair reconstruct merge",
    )
    features: str = _option(
        "sift", "local features", stages="pair verify reconstruct", choices=("sift", "xfeat")
    )
    tile_images: int = _option(1000, "images in a tile, overlap included", stages="reconstruct")
    tile_minutes: float = _option(
        60.0, "minutes after which the mapping of a tile is given up", stages="reconstruct"
    )
    seed: int = _option(0, "seed of everything random", stages="*")


_GROUPS = {
    "*": "everywhere",
    "ingest": "photographs (ingest)",
    "describe": "global descriptors (describe)",
    "index": "their index (index)",
    "pair": "pairs (pair)",
    "verify": "local features and matches (verify)",
    "reconstruct": "maps (reconstruct, merge)",
}
"""Titles of the help's groups, by the first stage that reads an option."""


def add_options(parser: argparse.ArgumentParser, stages: Sequence[str]) -> None:
    """Add the options that any of `stages` reads, `--config` and `--dry-run`."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in dataclasses.fields(BuildOptions):
        wanted = option.metadata["stages"].split()
        if "*" not in wanted and not set(wanted) & set(stages):
            continue
        title = _GROUPS[wanted[0]]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        group = groups[title]
        flag = _flag(option)
        text = option.metadata["help"].replace("%", "%%")
        if option.type == "bool":
            group.add_argument(flag, action="store_true", default=None, help=text)
            continue
        kind = {"int": int, "float": float, "str": str}[str(option.type)]
        shown = "" if option.default == "" else f" (default: {option.default})"
        group.add_argument(
            flag,
            type=kind,
            default=None,
            choices=option.metadata["choices"] or None,
            metavar=option.metadata["metavar"] or None if not option.metadata["choices"] else None,
            help=text + shown,
        )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="options from a file; the command line goes before it"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done, how many images and how many bytes, and stop",
    )


def stages_with(flag: str) -> list[str]:
    """Stages that read the option `--flag`; none where no stage does."""
    for option in dataclasses.fields(BuildOptions):
        if flag == _flag(option):
            return str(option.metadata["stages"]).split()
    return []


def _flag(option: dataclasses.Field[Any]) -> str:
    return "--" + option.name.replace("_", "-")


def parse_options(parsed: argparse.Namespace) -> tuple[BuildOptions, list[str]]:
    """Options of a command line over those of its `--config`, and the file's words for Beam.

    Raises UserError for a file that cannot be used or a value out of range.
    """
    values, beam_words = _read_config(parsed.config) if parsed.config else ({}, [])
    for option in dataclasses.fields(BuildOptions):
        given = getattr(parsed, option.name, None)
        if given is not None:
            values[option.name] = given
    options = BuildOptions(**values)
    _check(options)
    return options, beam_words


def _read_config(path: str) -> tuple[dict[str, Any], list[str]]:
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.safe_load(stream) or {}
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    # Beside its own errors: an impossible date, a number of a thousand digits, a deep nest.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"--config {path}: expected lines like `tile-images: 500`")
    words = _beam_words(path, content.pop("beam", []))
    known = {option.name: option for option in dataclasses.fields(BuildOptions)}
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            hint = did_you_mean(name, [each.replace("_", "-") for each in known])
            raise UserError(
                f"--config {path}: unknown option {key!r}{hint} (Beam's own go under `beam:`)"
            )
        values[name] = typed(f"--config {path}", known[name], value)
    return values, words


def _beam_words(path: str, content: Any) -> list[str]:
    if isinstance(content, str):
        try:
            return shlex.split(content)
        except ValueError as error:
            raise UserError(f"--config {path}: `beam`: {error}") from error
    if isinstance(content, list):
        return [str(word) for word in content]
    if isinstance(content, dict):
        words = []
        for name, value in content.items():
            if value is True:
                words.append(f"--{name}")
            elif value is not False:
                words.append(f"--{name}={value}")
        return words
    raise UserError(f"--config {path}: `beam` holds a list of words or a mapping of options")


_NOT_KEPT = ("atlas", "device", "threads", "batch_size", "relearn")


def given(options: BuildOptions) -> dict[str, Any]:
    """The options that differ from their defaults and say what an atlas holds, for its manifest."""
    return {
        option.name: getattr(options, option.name)
        for option in dataclasses.fields(BuildOptions)
        if option.name not in _NOT_KEPT and getattr(options, option.name) != option.default
    }


def kept(source: str, said: Any) -> BuildOptions:
    """Options that `given` wrote, read from `source`; UserError for what is no option's value."""
    if not isinstance(said, dict):
        raise UserError(f"{source}: no options")
    fields = {option.name: option for option in dataclasses.fields(BuildOptions)}
    unknown = sorted(set(said) - set(fields))
    if unknown:
        raise UserError(f"{source}: unknown option {unknown[0]!r}")
    options = BuildOptions(
        **{name: typed(source, fields[name], value) for name, value in said.items()}
    )
    _check(options)
    return options


def as_words(options: BuildOptions) -> str:
    """The options as they stand on a command line."""
    words = []
    for name, value in given(options).items():
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(str(value))
    return shlex.join(words)


def typed(source: str, option: dataclasses.Field[Any], value: Any) -> Any:
    """A value that `source` gives an option; UserError where it is none of the option's."""
    kind = {"int": int, "float": float, "str": str, "bool": bool}[str(option.type)]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and whole:
        value = float(value)
    if not isinstance(value, kind) or (kind is int and not whole):
        name = option.name.replace("_", "-")
        raise UserError(f"{source}: {name} must be a {kind.__name__}, not {value!r}")
    choices = option.metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"{source}: {option.name} must be one of {', '.join(choices)}")
    return value


_RANGES = {
    "max_pixels": Range(1, 2**40),
    "max_reject_rate": Range(0, 1),
    "shard_images": Range(1, 100_000),
    "cell_resolution": Range(5, 10),  # H3 cells of 250 km2 to 0.02 km2
    "sequence_gap_s": Range(0, 1e9, above=True),
    "sequence_gap_m": Range(0, 1e8, above=True),
    "clusters": Range(0, 65_536),
    "whiten": Range(0, 65_536),
    "dimension": Range(AS_PUBLISHED, 65_536),
    "vocabulary_images": Range(1, 1_000_000),
    "batch_size": Range(1, 4096),
    "threads": Range(0, 1024),
    "near": Range(1, 10_000),
    "reach_m": Range(0, 400, above=True),  # photographs farther apart share no scene
    "everywhere": Range(0, 10_000),
    "following": Range(0, 10_000),
    "rerank_candidates": Range(1, 10_000),
    "patch_size": Range(1, 30),
    "patch_dimension": Range(1, 65_536),
    "gps_sigma_m": Range(0, 10_000, above=True),
    "tile_images": Range(20, 1_000_000),
    "tile_minutes": Range(0, 100_000, above=True),
    "seed": Range(0, MOST_SEED),
}
"""What each number may be."""


def _check(options: BuildOptions) -> None:
    for option in dataclasses.fields(BuildOptions):
        value = getattr(options, option.name)
        if option.name in _RANGES and value not in _RANGES[option.name]:
            raise UserError(f"{_flag(option)} must be {_RANGES[option.name]}, not {value}")
        if isinstance(value, str) and not _is_name(value):
            raise UserError(f"{_flag(option)} {value!r}: no file has such a name")
    if options.dimension > 0 and (options.whiten or options.model == "bovw"):
        raise UserError("--dimension is neither for bovw nor together with --whiten")
    if options.model not in SHIPPED and not options.checkpoint and options.atlas:
        raise UserError(
            f"--model {options.model} needs --checkpoint FILE: `vladmap models` says which"
        )
    if options.model == "gem" and (unheard := learning_options(options)):
        raise UserError(f"--model gem learns nothing from the collection: leave out {unheard}")
    if options.model == "bovw" and options.whiten:
        raise UserError("--whiten is not for bovw: whitened counts are no longer tf-idf")
    if options.rerank == "lighterglue" and options.features != "xfeat":
        raise UserError("--rerank lighterglue matches XFeat's features: add --features xfeat")
    if options.rerank in BY_PATCHES and options.model not in WITH_PATCHES:
        raise UserError(
            f"--model {options.model} has no patches for --rerank {options.rerank}: choose "
            f"`features`, or one of the models {', '.join(WITH_PATCHES)}"
        )


def _is_name(text: str) -> bool:
    """Whether a file can be called so, and tables and JSON, which are UTF-8, can say it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def learning_options(options: BuildOptions) -> str:
    """The options given that say what is learnt from the collection."""
    given = {
        "--clusters": options.clusters > 0,
        "--whiten": options.whiten > 0,
        "--dimension": options.dimension > 0,
        "--learn": options.learn,
        "--relearn": options.relearn,
    }
    return ", ".join(name for name, there in given.items() if there)


def reduced_to(options: BuildOptions) -> int:
    """Numbers that descriptors are reduced to where they are learnt; 0 for none."""
    if options.dimension != AS_PUBLISHED:
        return options.dimension
    return 0 if options.whiten else DEFAULT_DIMENSION[options.model]


def worker_threads(options: BuildOptions, in_process: bool) -> int:
    """Threads (or processes) in each worker; remote workers are one to a core already."""
    return options.threads or (os.cpu_count() or 1 if in_process else 1)
