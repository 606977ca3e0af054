"""A Spark cluster that loses workers in the middle of their tasks: the build goes on and ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.city import ROOT, build_atlas, build_words, write_city
from tests.pipeline.engines.cluster import LOST, awaited, spark_cluster
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

IMAGES = 40
# Shards and tiles enough that each worker always has one in its hands, and batches so small that
# the first shard is committed long before the last.
SMALL = ("--shard-images", "4", "--tile-images", "20", "--batch-size", "1")
MINUTES = 60
RECONSTRUCT, MERGE = b"of 9: reconstruct", b"of 9: merge"
"""What the build says when the stage begins."""
MAPS = "vladmap.mapping.child"
"""In the command of the process that maps a tile."""


def test_a_build_whose_workers_are_lost_gives_the_tables_of_one_in_process(tmp_path: Path) -> None:
    """One is killed while photographs are described, one while it maps the second tile or a later.

    Spark then has tasks that ended and tasks to repeat, which not every shuffle allows (see
    `transforms.spread`).
    """
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
            awaited(lambda: list(described.glob("*.json")) or _over(build), 30 * MINUTES)
            assert LOST not in log.read_text()
            cluster.lose_worker(cluster.busy(log.read_text())[0])
            cluster.add_worker()
            awaited(lambda: RECONSTRUCT in said.read_bytes() or _over(build), 30 * MINUTES)
            lost = log.read_text().count(LOST)
            assert lost, "the first worker had no task in its hands"
            mapped = atlas / layout.ledger_folder("reconstruct")
            awaited(lambda: list(mapped.glob("*.json")) or _over(build), 30 * MINUTES)
            mapping = awaited(lambda: cluster.with_child(MAPS) or _over(build), 30 * MINUTES)
            assert isinstance(mapping, list)
            cluster.lose_worker(mapping[0])
            assert MERGE not in said.read_bytes()
            code = build.wait(30 * MINUTES)
        finally:
            build.terminate()
            build.wait()
    assert code == 0, said.read_text()
    assert log.read_text().count(LOST) > lost
    tables = compare_atlases(tmp_path / "in-process", atlas)
    names = {table.name for table in tables}
    assert {"descriptors/netvlad-lite", "tiles", "poses.parquet", "model"} <= names
    assert [what for table in tables for what in table.differences] == []


def _over(build: subprocess.Popen[bytes]) -> bool:
    assert build.poll() is None, "the build has ended"
    return False
