"""What is decided before any job server is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest

from vladmap.pipeline.engines import engine as engines
from vladmap.pipeline.engines import jars, server
from vladmap.schemas.rejects import UserError


@pytest.mark.parametrize(
    ("master", "workers"),
    [
        ("local", 1),
        ("local[2]", 2),
        ("local[2,4]", 2),
        ("local[*]", os.cpu_count()),
        ("spark://host:7077", 0),
        ("yarn", 0),
        ("host:8081", 0),
        ("localhost:8081", 0),
        ("local-cluster[2,1,1024]", 0),
    ],
)
def test_only_a_local_master_has_workers_on_this_machine(master: str, workers: int) -> None:
    assert engines.local_workers(master) == workers


def test_a_local_master_without_workers_is_refused() -> None:
    with pytest.raises(UserError, match="at least one worker"):
        engines.local_workers("local[0]")


@pytest.mark.parametrize("name", sorted(engines.ENGINES))
def test_workers_of_a_cluster_are_the_caller_s_to_name(name: str) -> None:
    engine = engines.ENGINES[name]
    here, there = engine.pipeline_words("local[3]"), engine.pipeline_words(engine.cluster)
    assert "--environment_type=LOOPBACK" in here
    assert "--sdk_worker_parallelism=3" in here
    assert there == ["--environment_cache_millis=600000"]
    assert engine.cluster in engine.server_words(engine.cluster)


class Toy(engines.Spark):
    """An engine whose Maven project is a file of the test's."""

    folder: ClassVar[Path]

    @property
    def pom(self) -> Path:
        return self.folder / "pom.xml"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    Toy.folder = tmp_path
    (tmp_path / "pom.xml").write_text("<project>1</project>")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Toy()


def test_without_java_the_error_says_what_to_install(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"java is not on the PATH.*apt-get install openjdk"):
        jars.classpath(toy)


def test_without_maven_the_error_says_what_to_install(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "java").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"mvn is not on the PATH.*apt-get install .*maven"):
        jars.classpath(toy)


def _fake_maven(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    for name, text in (("java", "exit 0"), ("mvn", script)):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join((str(folder), os.environ["PATH"])))


def test_jars_are_fetched_once_for_each_project_into_the_cache(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetch = (
        f'echo x >> {tmp_path}/calls; for a; do case $a in -DoutputDirectory=*) mkdir "${{a#*=}}"; '
        'touch "${a#*=}/a.jar";; esac; done'
    )
    _fake_maven(monkeypatch, tmp_path, fetch)
    first = jars.classpath(toy)
    assert first.parent == tmp_path / "cache" / "vladmap" / "engines"
    assert [path.name for path in first.iterdir()] == ["a.jar"]
    assert jars.classpath(toy) == first
    toy.pom.write_text("<project>2</project>")
    assert jars.classpath(toy) != first
    assert (tmp_path / "calls").read_text().count("x") == 2


def test_a_failed_download_leaves_nothing_that_is_taken_for_jars(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _fake_maven(monkeypatch, tmp_path, "echo '[ERROR] no such artifact -> [Help 1]'; exit 1")
    with pytest.raises(UserError, match="could not fetch the Apache Spark job server: no such ar"):
        jars.classpath(toy)
    assert list(jars.cache().iterdir()) == []


def test_a_cache_that_cannot_be_written_is_the_user_s_to_mend(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _fake_maven(monkeypatch, tmp_path, "exit 0")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot be written .*: name another folder in XDG_CACHE"):
        jars.classpath(toy)


@pytest.mark.parametrize("name", sorted(engines.ENGINES))
def test_every_engine_fetches_what_holds_its_server_to_the_loopback_interface(name: str) -> None:
    assert "<artifactId>byteman</artifactId>" in engines.ENGINES[name].pom.read_text()
    assert server._RULES.is_file()
