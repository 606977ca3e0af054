"""What the Spark launcher decides before any server is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vladmap.pipeline import spark
from vladmap.schemas.rejects import UserError


@pytest.mark.parametrize(
    ("master", "cores"),
    [
        ("local", 1),
        ("local[2]", 2),
        ("local[2,4]", 2),
        ("local[*]", os.cpu_count()),
        ("spark://host:7077", 0),
        ("yarn", 0),
    ],
)
def test_only_a_local_master_has_workers_on_this_machine(master: str, cores: int) -> None:
    assert spark._local_cores(master) == cores


def test_without_java_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"java is not on the PATH.*apt-get install openjdk"):
        spark.classpath()


def test_without_maven_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "java").touch(mode=0o755)
    pom = tmp_path / "spark" / "pom.xml"
    pom.parent.mkdir()
    pom.write_text("<project/>")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(spark, "_POM", pom)
    with pytest.raises(UserError, match=r"mvn is not on the PATH.*apt-get install .*maven"):
        spark.classpath()


def _fake_maven(folder: Path, script: str) -> None:
    for name, text in (("java", "exit 0"), ("mvn", script)):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def test_jars_are_fetched_once_for_each_pom(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pom = tmp_path / "spark" / "pom.xml"
    pom.parent.mkdir()
    pom.write_text("<project>1</project>")
    fetch = (
        f'echo x >> {tmp_path}/calls; for a; do case $a in -DoutputDirectory=*) mkdir "${{a#*=}}"; '
        'touch "${a#*=}/a.jar";; esac; done'
    )
    _fake_maven(tmp_path, fetch)
    monkeypatch.setenv("PATH", os.pathsep.join((str(tmp_path), os.environ["PATH"])))
    monkeypatch.setattr(spark, "_POM", pom)
    first = spark.classpath()
    assert [path.name for path in first.iterdir()] == ["a.jar"]
    assert spark.classpath() == first
    pom.write_text("<project>2</project>")
    assert spark.classpath() != first
    assert (tmp_path / "calls").read_text().count("x") == 2


def test_a_failed_download_leaves_nothing_that_is_taken_for_jars(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pom = tmp_path / "spark" / "pom.xml"
    pom.parent.mkdir()
    pom.write_text("<project/>")
    _fake_maven(tmp_path, "echo '[ERROR] no such artifact -> [Help 1]'; exit 1")
    monkeypatch.setenv("PATH", os.pathsep.join((str(tmp_path), os.environ["PATH"])))
    monkeypatch.setattr(spark, "_POM", pom)
    with pytest.raises(UserError, match="could not fetch the Spark job server: no such artifact;"):
        spark.classpath()
    assert list((pom.parent / "target").iterdir()) == []


def test_workers_are_started_with_the_interpreter_that_runs_the_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    with spark._this_python_first():
        found = subprocess.run(
            ["python", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True
        )
    assert found.stdout.strip() == sys.prefix
    assert os.environ["PATH"] == "/usr/bin"


def test_a_stopped_launcher_asks_its_command_to_end(tmp_path: Path) -> None:
    """Issue 19, 18: it was killed, and could not say how to go on."""
    program = (
        "import os, signal, subprocess, sys, threading, time\n"
        "from pathlib import Path\n"
        "from vladmap.pipeline import spark\n"
        "signal.signal(signal.SIGTERM, spark._end)\n"
        "mark = Path(sys.argv[1])\n"
        "def stop():\n"
        "    while not mark.exists(): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=stop, daemon=True).start()\n"
        "spark._run(['sh', '-c', f'trap \"echo ended; exit 143\" TERM; touch {mark}; "
        "while :; do sleep 0.1; done'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mark")], capture_output=True, text=True
    )
    assert done.returncode == 143
    assert done.stdout == "ended\n"


def test_a_commands_own_exit_code_is_handed_on() -> None:
    assert spark._run(["sh", "-c", "exit 2"]) == 2
    with pytest.raises(subprocess.CalledProcessError):
        spark._run(["sh", "-c", "exit 1"])
