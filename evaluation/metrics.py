"""The figures of an evaluation, and the record of them that is written."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vladmap.atlas.manifest import software_versions
from vladmap.evaluation.certainty import Certainty, certainty_of
from vladmap.evaluation.describing import Descriptors
from vladmap.evaluation.intervals import groups_of, share_interval
from vladmap.evaluation.sets import Smoothing
from vladmap.evaluation.settings import EvaluationSettings
from vladmap.features.names import reranking_by
from vladmap.models import DescriptorModel
from vladmap.models.base import digest
from vladmap.models.whitening import Whitening
from vladmap.photos.layouts import EvaluationSet
from vladmap.retrieval.names import BY_PATCHES
from vladmap.retrieval.recall import (
    RANKS,
    Figures,
    PrecisionRecall,
    Ranking,
    figures,
    precision_recall,
)

_UNKNOWN = "unknown"


class Measured:
    """A ranking with what follows from it for each query."""

    def __init__(
        self,
        chosen: EvaluationSet,
        ranking: Ranking,
        database: Descriptors,
        queries: Descriptors,
        smoothing: Smoothing,
        nowhere: NDArray[np.bool_] | None = None,
        inliers: NDArray[np.float64] | None = None,
    ) -> None:
        self.chosen, self.ranking = chosen, ranking
        self.database, self.queries, self.smoothing = database, queries, smoothing
        self.nowhere = np.zeros(len(ranking.rows), bool) if nowhere is None else nowhere
        self.best = ranking.rows[:, 0]
        self.first = ranking.first()
        self.positives = ranking.positives()
        self.right = self.first == 0
        self.certainty = certainty_of(chosen, ranking, self.right, inliers)
        scores = {name: quality.score for name, quality in self.certainty.scores.items()}
        self.distance, self.ratio = scores["distance"], scores["ratio"]
        self.probability = self.certainty.probability
        self.apart_m = np.full(len(self.best), np.nan)
        asked = np.flatnonzero(self.best >= 0)
        self.apart_m[asked] = chosen.distances_m(asked, self.best[asked])
        with_positive = int((self.positives > 0).sum())
        self.curves: dict[str, PrecisionRecall] = {
            name: precision_recall(score, self.right, with_positive)
            for name, score in scores.items()
        }
        self.interval = share_interval(self.right, groups_of(chosen.queries))
        self.rows: dict[str, Figures] = {"all": figures(ranking)}
        conditions = np.array([name or _UNKNOWN for name in chosen.queries.conditions])
        if any(chosen.queries.conditions):
            for name in np.unique(conditions).tolist():
                self.rows[name] = figures(ranking, conditions == name)


def results_of(
    settings: EvaluationSettings,
    measured: Measured,
    model: DescriptorModel,
    learnt_from: int,
    whitening: Whitening | None,
) -> dict[str, Any]:
    """The record of a measurement: what was measured, how, and the figures."""
    chosen, spec = measured.chosen, model.spec
    every = measured.rows["all"]
    return {
        "set": {
            "source": settings.photographs.source.as_posix(),
            "layout": chosen.layout,
            "split": settings.photographs.split if chosen.layout in ("utm", "msls") else None,
            "protocol": chosen.protocol,
            "positives_m": chosen.metres,
            "frames_tolerance": chosen.frames,
            "leave_one_out": chosen.leave_one_out,
            "skipped": dict(chosen.skipped),
        },
        "model": {
            "name": spec.name,
            "fingerprint": spec.fingerprint,
            "checkpoint": settings.checkpoint.name if settings.checkpoint else None,
            "learnt_from_images": learnt_from,
            "seed": settings.method.seed,
            "device": settings.method.device,
            "precision": settings.method.precision,
            "decode": settings.method.decode,
        },
        "dimension": settings.whiten or spec.dimension,
        "whitening": None
        if whitening is None
        else {
            "dimension": settings.whiten,
            "split": settings.whiten_split or "the database searched",
            "fingerprint": digest(
                "whitening", {"weight": whitening.weight, "bias": whitening.bias}
            ),
        },
        "search": settings.index or "exact",
        "smoothing": dataclasses.asdict(measured.smoothing),
        "rerank": _rerank(settings),
        "counts": {
            "database": len(chosen.database),
            "database_unreadable": len(measured.database.unreadable),
            "queries": every.queries,
            "queries_unreadable": len(measured.queries.unreadable),
            "queries_with_positive": every.with_positive,
            "queries_without_positive": every.queries - every.with_positive,
        },
        "sequence": None
        if not settings.sequence
        else {"method": settings.sequence, "queries_nowhere": int(measured.nowhere.sum())},
        "all": _figures(every),
        "recall_at_1_interval": {
            "low": _number(measured.interval.low),
            "high": _number(measured.interval.high),
            "groups": measured.interval.groups,
            "of": measured.interval.of,
        },
        "conditions": {name: _figures(row) for name, row in measured.rows.items() if name != "all"},
        "precision_recall": {
            name: {
                "area": _number(curve.area),
                "area_low": _number(measured.certainty.scores[name].interval.low),
                "area_high": _number(measured.certainty.scores[name].interval.high),
                "recall_at_full_precision": _number(curve.recall_at_full_precision),
            }
            for name, curve in measured.curves.items()
        },
        "calibration": _calibration(measured.certainty),
        "software": software_versions(),
    }


def _calibration(certainty: Certainty) -> dict[str, Any] | None:
    """How the held-out probability of a right match was made, and how far it is off."""
    if certainty.error is None:
        return None
    return {
        "held_out": certainty.fold_of,
        "sue_slopes": [_number(slope) for slope in certainty.slopes],
        "expected_calibration_error": _number(certainty.error),
        "reliability": [
            {"probability": _number(mean), "right": _number(share), "queries": count}
            for mean, share, count in certainty.curve
        ],
    }


def _rerank(settings: EvaluationSettings) -> dict[str, Any] | None:
    """How candidates were re-ranked; None if they were not."""
    if settings.rerank == "none":
        return None
    features = matcher = patch_size = None
    if settings.rerank in BY_PATCHES:
        patch_size = settings.method.patch_size
    else:
        features, matcher = reranking_by(settings.rerank, settings.method.features)
    return {
        "method": settings.rerank,
        "candidates": settings.method.rerank_candidates,
        "patch_size": patch_size,
        "features": features,
        "matcher": matcher,
    }


def _figures(row: Figures) -> dict[str, Any]:
    return {
        "queries": row.queries,
        "queries_with_positive": row.with_positive,
        "recall_over_all_queries": {str(k): _number(row.recall(k)) for k in RANKS},
        "recall_over_queries_with_positive": {
            str(k): _number(row.recall_with_positive(k)) for k in RANKS
        },
        "mean_average_precision": _number(row.mean_average_precision),
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
