"""Every pipeline of a build as Dataflow's runner describes it in a job, which is never submitted.

The runner's own translation writes each job to a file (`--template_location`); the work itself is
then done in this process, so that each stage finds what the one before has committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.portability.api import beam_runner_api_pb2

from tests.drives import write_drive
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline import flex_template, launch
from vladmap.pipeline.build import run_stages
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stages import STAGES

apiclient = pytest.importorskip(
    "apache_beam.runners.dataflow.internal.apiclient",
    reason="Dataflow's client is not installed: make dataflow",
)
pytestmark = pytest.mark.medium

IMAGE = "registry/vladmap-gpu:1"
GPU = "type:nvidia-l4;count:1;install-nvidia-driver"
WORDS = [
    *("--runner=DataflowRunner", "--project=city", "--region=europe-west4", "--no_auth"),
    *(f"--sdk_container_image={IMAGE}", "--max_num_workers=50", "--machine_type=n2-highmem-4"),
]


def words_for(folder: Path) -> list[str]:
    """Options under which the runner writes the job to a file in place of submitting it."""
    places = ("--temp_location=gs://bucket/tmp", "--staging_location=gs://bucket/staging")
    return [*WORDS, *places, f"--template_location={folder / 'job'}"]


@pytest.fixture(autouse=True, scope="module")
def _no_network() -> Iterator[None]:
    """What the runner would upload stays in the folder of the job; no bucket is asked anything."""

    def keep(client: Any, place: str, name: str, stream: Any, *_: Any, **__: Any) -> None:
        folder = place if not place.startswith("gs://") else _folder_of(client)
        Path(folder, name).write_bytes(stream.read())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apiclient.DataflowApplicationClient, "stage_file", keep)
        patch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None)
        yield


def _folder_of(client: Any) -> str:
    return str(Path(client.google_cloud_options.template_location).parent)


class Job:
    """What Dataflow would be given: the job, and the pipeline that it names."""

    def __init__(self, folder: Path) -> None:
        self.described: dict[str, Any] = json.loads((folder / "job").read_text())
        (proto,) = folder.rglob("pipeline.pb")
        self.pipeline = beam_runner_api_pb2.Pipeline.FromString(proto.read_bytes())

    @property
    def hints(self) -> dict[str, str]:
        """Resource hints of all environments, by the last part of their names."""
        return {
            urn.split(":")[2]: value.decode()
            for environment in self.pipeline.components.environments.values()
            for urn, value in environment.resource_hints.items()
        }

    @property
    def images(self) -> set[str]:
        return {
            beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image
            for environment in self.pipeline.components.environments.values()
        }


def translate(folder: Path, build: Callable[[beam.Pipeline], object]) -> Job:
    folder.mkdir(parents=True)
    pipeline = beam.Pipeline(options=launch.options_of(words_for(folder)))
    build(pipeline)
    pipeline.run()
    return Job(folder)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """The job of every pipeline of a build, by its label."""
    home = tmp_path_factory.mktemp("dataflow")
    write_drive(home / "drive", 12)
    found: dict[str, Job] = {}
    really = launch.run

    def both(
        words: object, label: str, build: Callable[[beam.Pipeline], object]
    ) -> tuple[Any, launch.Metrics]:
        found[label] = translate(home / "jobs" / label.replace(" ", "-"), build)
        return really((), label, build)

    options = BuildOptions(
        images=str(home / "drive"),
        atlas=str(home / "atlas"),
        shard_images=5,
        clusters=8,
        tile_images=400,
        # The device is told to Dataflow; the work is done here.
        accelerator="",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", both)
        run_stages(AtlasStore.open(options.atlas, create=True), options, WORDS, list(STAGES))
    return found


def test_every_pipeline_of_a_build_becomes_a_job(jobs: dict[str, Job]) -> None:
    pipelines = {
        step.title for stage in STAGES.values() for step in stage.steps if step.unit != "shards"
    }
    assert pipelines - {"cameras", "reconstruct"} <= set(jobs)
    for job in jobs.values():
        assert job.described["type"] in ("JOB_TYPE_BATCH", 1)
        assert job.images == {IMAGE}
        assert job.pipeline.root_transform_ids


def test_nothing_but_a_list_of_packages_is_staged_beside_the_pipeline(jobs: dict[str, Job]) -> None:
    """The image holds the code: no worker installs, or unpickles the driver's main module."""
    for job in jobs.values():
        staged = {
            beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(
                each.role_payload
            ).staged_name
            for environment in job.pipeline.components.environments.values()
            for each in environment.dependencies
        }
        assert staged <= {"submission_environment_dependencies.txt"}


def test_memory_is_asked_for_where_maps_are_made_and_nowhere_else(jobs: dict[str, Job]) -> None:
    """12 photographs: 400 MiB and 3 MiB each are 0.46 GB, asked for as a whole GB."""
    assert jobs["merge"].hints["min_ram_bytes"] == "1000000000"
    for label, job in jobs.items():
        if label not in ("merge", "reconstruct"):
            assert job.hints == {}, label


def test_a_gpu_is_asked_for_by_the_steps_that_use_it_alone(tmp_path: Path) -> None:
    from vladmap.pipeline.run import Run

    options = BuildOptions(atlas=str(tmp_path), device="cuda", accelerator=GPU, tile_images=3000)
    run = Run(AtlasStore(str(tmp_path)), options, WORDS)

    def job(name: str, device: str, memory: int = 0) -> Job:
        transform = run.with_hints(beam.Map(str), device, memory)
        return translate(tmp_path / name, lambda pipeline: pipeline | beam.Create([1]) | transform)

    assert job("describe", "cuda").hints == {"accelerator": GPU}
    assert job("features", "cpu").hints == {}
    assert job("reconstruct", "cpu", 9_400_000_001).hints == {"min_ram_bytes": str(10 * 10**9)}


def test_the_flex_template_becomes_one_job_that_drives_the_build(tmp_path: Path) -> None:
    """As the launcher calls it: with the template's parameters, and where to put the job."""
    (tmp_path / "flex").mkdir()
    flex_template.main(
        [
            *("--images=gs://b/photos", "--atlas=gs://b/atlas", f"--worker_image={IMAGE}"),
            *("--words=--near 7", "--job_name=city", *words_for(tmp_path / "flex")),
        ]
    )
    job = Job(tmp_path / "flex")
    assert job.described["name"] == "city"
    names = {each.unique_name for each in job.pipeline.components.transforms.values()}
    assert {"Build", "Drive"} <= names
