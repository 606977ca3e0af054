"""Beam looks at the same methods and parses the same options again for each step; here once.

A pipeline of tests has some elements, so that putting it together takes longer than its work. What
is kept are pure functions of code and of words: pipelines do as before. Processes that tests start
(Spark's and Beam's own workers, whole builds) have Beam as it is.
"""

from __future__ import annotations

import copy
import functools
import sys
import types
from argparse import Namespace
from collections.abc import Callable
from inspect import Signature
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core
from apache_beam.typehints import decorators

BEAMS_SIGNATURE = decorators.get_signature
BEAMS_VIEW = PipelineOptions.view_as


def install() -> None:
    """Keep signatures of methods, and what options of one kind are in given words."""
    core.get_signature = kept_signatures(BEAMS_SIGNATURE)
    PipelineOptions.view_as = kept_view  # type: ignore[method-assign]


def kept_signatures(signature: Callable[[Any], Signature]) -> Callable[[Any], Signature]:
    @functools.lru_cache(maxsize=10_000)
    def of_bound(function: types.FunctionType) -> Signature:
        return signature(types.MethodType(function, object()))

    def kept(function: Any) -> Signature:
        plain = getattr(function, "__func__", None)
        if type(function) is types.MethodType and type(plain) is types.FunctionType:
            return of_bound(plain)
        return signature(function)

    return kept


@functools.lru_cache(maxsize=1000)
def _parsed(kind: type[PipelineOptions], words: tuple[str, ...]) -> Namespace:
    return kind(list(words))._visible_options


def kept_view(self: PipelineOptions, kind: type[PipelineOptions]) -> PipelineOptions:
    """What Beam's `view_as` gives, without parsing the same words again."""
    words = sys.argv[1:] if self._flags is None else self._flags
    parsed = copy.deepcopy(_parsed(kind, tuple(words)))
    for name, value in vars(parsed).items():
        self._all_options.setdefault(name, value)
    view = kind.__new__(kind)
    vars(view).update(_flags=self._flags, _visible_options=parsed, _all_options=self._all_options)
    return view
