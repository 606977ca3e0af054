"""How a pipeline is started, and what of it reaches the user."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from vladmap.pipeline import launch
from vladmap.schemas.rejects import UserError

NOW = datetime(2024, 5, 1, 12, 30, 5, tzinfo=UTC)


class FakeCloud(PipelineRunner):
    """A runner whose work is elsewhere; it keeps the names of its jobs and is told to cancel."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.cancelled = 0
        self.interrupt = False

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
        self.names.append(options.view_as(GoogleCloudOptions).job_name)
        return SimpleNamespace(  # type: ignore[return-value]
            job_id=lambda: "2024-05-01_1234",
            wait_until_finish=self._wait,
            cancel=self._cancel,
            metrics=lambda: SimpleNamespace(query=lambda: {"counters": [], "distributions": []}),
        )

    def _wait(self) -> str:
        if self.interrupt:
            raise KeyboardInterrupt
        return "DONE"

    def _cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    fake = FakeCloud()
    monkeypatch.setattr("apache_beam.pipeline.create_runner", lambda name: fake)
    monkeypatch.setattr("apache_beam.pipeline.PipelineOptionsValidator", _no_checks)
    return fake


def _no_checks(*arguments: Any) -> SimpleNamespace:
    return SimpleNamespace(validate=lambda: [])


WORDS = ["--runner=DataflowRunner", "--project=p", "--region=europe-west1"]


def _nothing(pipeline: beam.Pipeline) -> object:
    return pipeline | beam.Create([1])


def test_the_id_and_the_page_of_a_remote_job_are_said(
    cloud: FakeCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 19, 22: they were among the lines that were silenced."""
    with caplog.at_level(logging.INFO, logger="vladmap"):
        launch.run(WORDS, "describe", _nothing)
    assert "describe: job 2024-05-01_1234 (vladmap-describe-" in caplog.text
    page = "https://console.cloud.google.com/dataflow/jobs/europe-west1/2024-05-01_1234?project=p"
    assert page in caplog.text


def test_a_job_is_named_after_its_stage(cloud: FakeCloud) -> None:
    """Issue 19, 22: all jobs of a build were called `beamapp-user-time`."""
    launch.run([*WORDS, "--job_name=city-map"], "index places", _nothing)
    assert cloud.names == ["city-map-index-places"]
    assert launch.job_name(None, "train index", NOW) == "vladmap-train-index-20240501-123005"


def test_an_interruption_cancels_the_job_that_runs_elsewhere(cloud: FakeCloud) -> None:
    """Issue 19, 18: its workers went on, beside those of the next run."""
    cloud.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        launch.run(WORDS, "describe", _nothing)
    assert cloud.cancelled == 1


def test_options_that_beam_refuses_are_the_users_to_mend(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 19, 21: Dataflow without --temp_location was a traceback."""
    missing = SimpleNamespace(validate=lambda: ["Missing required option: temp_location."])
    monkeypatch.setattr("apache_beam.pipeline.PipelineOptionsValidator", lambda *_: missing)
    with pytest.raises(UserError, match=r"Beam's options: .*temp_location"):
        launch.run(WORDS, "a", _nothing)


def _count(number: int) -> int:
    Metrics.counter("vladmap.ingest", "images").inc()
    Metrics.distribution("vladmap.ingest", "bytes").update(number)
    return number


def test_metrics_are_added_up_over_the_steps_of_a_pipeline() -> None:
    """Issue 19, 22: counters and distributions went with the pipeline."""

    def build(pipeline: beam.Pipeline) -> object:
        return (
            pipeline
            | beam.Create([3, 5])
            | "one" >> beam.Map(_count)
            | beam.Reshuffle()
            | "two" >> beam.Map(_count)
        )

    _, metrics = launch.run([], "ingest", build)
    assert metrics["counters"]["vladmap.ingest.images"] == 4
    assert metrics["distributions"]["vladmap.ingest.bytes"] == {
        "count": 4, "sum": 16, "min": 3, "max": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "inside"),
    [
        ([], True),
        (["--runner=DirectRunner"], True),
        (["--runner", "direct"], True),
        (["--direct_num_workers=2", "--direct_running_mode=multi_threading"], True),
        (["--direct_num_workers=2", "--direct_running_mode", "multi_processing"], False),
        (["--runner=FlinkRunner"], False),
    ],
)
def test_workers_in_processes_of_their_own_do_not_each_take_all_cores(
    words: list[str], inside: bool
) -> None:
    assert launch.in_process(words) is inside


def test_beams_own_processes_speak_to_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    """Issue 19, 22: 696 lines of theirs stood on stderr."""
    words = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    launch.run(words, "a", lambda pipeline: pipeline | beam.Create([1]) | beam.Map(print))
    assert capfd.readouterr().err == ""


def test_the_workers_that_beam_starts_by_the_name_python_are_of_this_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A `python` without Beam, or none, left the pipeline waiting for ever."""
    monkeypatch.setenv("PATH", "/nowhere")
    said = []

    def build(pipeline: beam.Pipeline) -> None:
        words = ["python", "-c", "import sys; print(sys.prefix)"]
        said.append(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        _nothing(pipeline)

    launch.run([], "a", build)
    assert said == [f"{sys.prefix}\n"]
