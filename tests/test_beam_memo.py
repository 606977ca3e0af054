"""What is kept of Beam's own looking is what Beam would have found."""

from __future__ import annotations

import inspect

import apache_beam as beam
import pytest
from apache_beam.options import pipeline_options as kinds

from tests import beam_memo

WORDS = ["--runner=FnApiRunner", "--experiments=a", "--direct_num_workers=3"]


@pytest.mark.parametrize(
    "kind",
    [
        kinds.StandardOptions, kinds.DebugOptions, kinds.DirectOptions, kinds.TypeOptions,
        kinds.SetupOptions, kinds.GoogleCloudOptions, kinds.PortableOptions,
    ],
)  # fmt: skip
def test_a_view_has_the_options_of_beams_own(kind: type[kinds.PipelineOptions]) -> None:
    ours, theirs = kinds.PipelineOptions(WORDS), kinds.PipelineOptions(WORDS)
    view, plain = beam_memo.kept_view(ours, kind), beam_memo.BEAMS_VIEW(theirs, kind)
    assert type(view) is kind
    assert vars(view._visible_options) == vars(plain._visible_options)
    assert ours._all_options == theirs._all_options
    assert view._all_options is ours._all_options


def test_what_is_set_in_a_view_is_seen_in_others_of_the_same_options_and_in_no_other() -> None:
    first, second = kinds.PipelineOptions(WORDS), kinds.PipelineOptions(WORDS)
    view = beam_memo.kept_view(first, kinds.DebugOptions)
    view.experiments.append("b")
    view.experiments = [*view.experiments, "c"]
    assert beam_memo.kept_view(first, kinds.DebugOptions).experiments == ["a", "b", "c"]
    assert beam_memo.kept_view(second, kinds.DebugOptions).experiments == ["a"]


def test_a_methods_signature_is_without_self_and_a_functions_is_whole() -> None:
    class Add(beam.DoFn):
        def process(self, element: int, more: int = 2, at=beam.DoFn.TimestampParam):
            yield element + more

    kept = beam_memo.kept_signatures(beam_memo.BEAMS_SIGNATURE)
    for function in (Add().process, Add.process, Add().setup, len, lambda a, b=1: a):
        assert kept(function) == kept(function) == inspect.signature(function)
