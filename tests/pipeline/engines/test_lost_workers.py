"""A Spark cluster that loses workers in the middle of their tasks: the build goes on and ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.city import ROOT, build_atlas, build_words, write_city
from tests.pipeline.engines.cluster import LOST, Cluster, await_true, spark_cluster
from vladmap.atlas import layout
from vladmap.atlas.difference import compare_atlases
from vladmap.pipeline.engines.engine import ENGINES
from vladmap.pipeline.engines.jars import classpath

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("java") is None or shutil.which("mvn") is None, reason="no java or no mvn"
    ),
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc"),
]

IMAGES = 30
# Shards and tiles enough that each worker always has one in its hands.
SMALL = ("--shard-images", "4", "--tile-images", "20")
MINUTES = 60


def test_a_build_whose_workers_are_lost_gives_the_tables_of_one_in_process(tmp_path: Path) -> None:
    """One is killed while photographs are described, one while tiles are mapped."""
    city, atlas = tmp_path / "city", tmp_path / "atlas"
    write_city(city, IMAGES)
    build_atlas(city, tmp_path / "in-process", *SMALL)
    log, said = tmp_path / "server.log", tmp_path / "said"
    with (
        spark_cluster(tmp_path / "cluster", classpath(ENGINES["spark"]), workers=2) as cluster,
        said.open("wb") as output,
    ):
        build = subprocess.Popen(
            [
                *(sys.executable, "-m", "vladmap.jobs.main", "spark"),
                *("--master", cluster.master, "--server-log", str(log), "--"),
                *build_words(city, atlas, *SMALL),
                "--environment_type=EXTERNAL",
                f"--environment_config=localhost:{cluster.pool_port}",
            ],
            cwd=ROOT,
            env=cluster.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            described = atlas / layout.ledger_folder("describe-netvlad-lite")
            await_true(lambda: bool(list(described.glob("*.json"))) or _over(build), 10 * MINUTES)
            assert LOST not in log.read_text()
            cluster.lose_worker(0)
            cluster.add_worker()
            await_true(lambda: b": reconstruct" in said.read_bytes() or _over(build), 10 * MINUTES)
            lost = log.read_text().count(LOST)
            assert lost, "the first worker had no task in its hands"
            await_true(lambda: bool(_mapping(cluster)) or _over(build), 5 * MINUTES)
            cluster.lose_worker(_mapping(cluster)[0])
            code = build.wait(10 * MINUTES)
        finally:
            build.terminate()
            build.wait()
    assert code == 0, said.read_text()
    assert log.read_text().count(LOST) > lost
    tables = compare_atlases(tmp_path / "in-process", atlas)
    assert {"descriptors", "tiles", "poses.parquet", "model"} <= {table.name for table in tables}
    assert [what for table in tables for what in table.differences] == []


def _mapping(cluster: Cluster) -> list[int]:
    """The workers that were not lost and have a tile in their hands."""
    return [number for number in (1, 2) if cluster.has_child(number, "vladmap.mapping.child")]


def _over(build: subprocess.Popen[bytes]) -> bool:
    assert build.poll() is None, "the build has ended"
    return False
