"""Settings of evaluations: the set, how models run, what is measured. It imports nothing slow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SetSettings:
    """Photographs of places to measure on or to learn from, and which matches are right.

    `layout` is one of photos.names.LAYOUTS, or auto. `split` is of UTM folders and MSLS;
    `positives_m` are the metres within which a photograph shows the query's place, and of
    frame-aligned folders `frames_tolerance` the frames that a match may be off. Of an atlas the
    queries are the images captured from `since` (ISO 8601) on, or the `last_share` captured last.
    """

    source: Path
    layout: str = "auto"
    split: str = "test"
    positives_m: float = 25.0
    frames_tolerance: int = 0
    since: str | None = None
    last_share: float = 0.2

    def of_split(self, split: str) -> SetSettings:
        """The settings of another split of the same source."""
        return dataclasses.replace(self, split=split)


@dataclass(frozen=True)
class MethodSettings:
    """How any method is measured.

    `smooth` are the metres or frames over which the database's descriptors are smoothed, None for
    what suits the set. The best `rerank_candidates` are put in order; `features` are the local
    features that `--rerank features` means. `dimension` is what descriptors are reduced to where
    words are learnt: None for what suits the model, 0 for no reduction. `patch_size` is in cells.
    """

    device: str = "cpu"
    precision: str = "float32"
    decode: str = "cpu"
    seed: int = 0
    smooth: float | None = None
    rerank_candidates: int = 20
    features: str = "sift"
    dimension: int | None = None
    patch_size: int = 5
    patch_dimension: int = 512


@dataclass(frozen=True)
class EvaluationSettings:
    """What `vladmap evaluate` measures: one model on one set.

    `learn` says that words are learnt although the checkpoint has some. Descriptors are whitened to
    `whiten` numbers, 0 for not, fitted on the database of `whiten_split` or on the one that is
    searched. `index` is a FAISS factory, "" for exact search. `sequence` matches each drive as one:
    NAME[=N] of retrieval.names.SEQUENCE_METHODS, "" for not. Results are written to `output`.
    """

    photographs: SetSettings
    method: MethodSettings
    model: str
    checkpoint: Path | None = None
    learn: bool = False
    whiten: int = 0
    whiten_split: str | None = None
    index: str = ""
    rerank: str = "none"
    sequence: str = ""
    output: Path | None = None
    json: bool = False


@dataclass(frozen=True)
class ComparisonSettings:
    """What `vladmap compare` measures: `methods` (NAME[+RERANK][=FILE]) on one set.

    Without any, or with `all` beside them, those of evaluation.names.METHODS. Each has a further
    row for each way of `sequences` (NAME[=N]) in which whole drives are matched, and for each of
    `indexes`, FAISS factories or retrieval.names.KDTREE, that is searched.
    """

    photographs: SetSettings
    method: MethodSettings
    methods: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    all: bool = False
    output: Path | None = None
    json: bool = False
