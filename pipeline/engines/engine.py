"""What differs between the engines that Beam's Java job servers run pipelines on."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from pathlib import Path

from vladmap.schemas.rejects import UserError

_FOLDER = Path(__file__).resolve().parent
# Without this, Beam starts new workers for each part of a pipeline, and each loads its model again.
_ENVIRONMENT_CACHE = "--environment_cache_millis=600000"


class Engine(ABC):
    """An engine, by the words that its job server and its pipelines are started with.

    `name` is the command's, `title` the one for people; `main_class` is the job server's.
    `<name>.xml` beside this module is the Maven project whose
    dependencies are the job server's classpath, of some `megabytes`. A `master` is where the engine
    runs: `local[N]` is N workers on this machine, anything else the address of a cluster, of which
    `cluster` is an example.
    """

    java = "Java 11 or 17"
    name: str
    title: str
    main_class: str
    megabytes: int
    cluster: str

    @property
    def pom(self) -> Path:
        """The Maven project of the job server."""
        return _FOLDER / f"{self.name}.xml"

    @abstractmethod
    def server_words(self, master: str) -> list[str]:
        """Words of the job server that name the master."""

    def java_words(self, master: str) -> list[str]:
        """Words of the virtual machine beside those of every engine."""
        return []

    def pipeline_words(self, master: str) -> list[str]:
        """Beam's options of a pipeline, beside where the job server is."""
        workers = local_workers(master)
        if not workers:
            return [_ENVIRONMENT_CACHE]
        return [
            _ENVIRONMENT_CACHE,
            "--environment_type=LOOPBACK",
            # Processes, as on a cluster, where threads of the pipeline's process are the default.
            "--experiments=use_loopback_process_worker",
            f"--sdk_worker_parallelism={workers}",
        ]


class Spark(Engine):
    """Apache Spark 3, whose driver the job server is."""

    name = "spark"
    title = "Apache Spark"
    main_class = "org.apache.beam.runners.spark.SparkJobServerDriver"
    megabytes = 240
    cluster = "spark://HOST:7077"

    def server_words(self, master: str) -> list[str]:
        return ["--spark-master-url", master]

    def java_words(self, master: str) -> list[str]:
        words = ["-Dspark.ui.enabled=false"]
        if local_workers(master):
            # The name of this machine need not resolve to an address that local Spark can use.
            words += ["-Dspark.driver.host=localhost", "-Dspark.driver.bindAddress=127.0.0.1"]
        return words


class Flink(Engine):
    """Apache Flink, which the job server holds in itself or hands its jobs to."""

    name = "flink"
    title = "Apache Flink"
    main_class = "org.apache.beam.runners.flink.FlinkJobServerDriver"
    megabytes = 160
    cluster = "HOST:8081"

    def server_words(self, master: str) -> list[str]:
        return ["--flink-master", "[local]" if local_workers(master) else master]

    def pipeline_words(self, master: str) -> list[str]:
        words = super().pipeline_words(master)
        if workers := local_workers(master):
            words.append(f"--parallelism={workers}")
        return words


ENGINES: dict[str, Engine] = {engine.name: engine for engine in (Spark(), Flink())}


def local_workers(master: str) -> int:
    """Workers of a `local`, `local[N]`, `local[N,RETRIES]` or `local[*]` master; 0 for a cluster.

    Raises UserError for `local[0]`.
    """
    # The whole of it: localhost:8081 is a cluster.
    match = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master)
    if match is None:
        return 0
    workers = os.cpu_count() or 1 if match[1] == "*" else int(match[1] or 1)
    if workers == 0:
        raise UserError(f"--master {master}: at least one worker is needed, as in local[1]")
    return workers
