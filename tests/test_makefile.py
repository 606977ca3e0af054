"""What `make` installs from where."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Stands for the interpreter of the environment: runs what asks the index, notes what is installed.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*) exec {python} "$@" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *) echo "$@" >> {log} ;;
esac
"""


@pytest.fixture
def index() -> Iterator[str]:
    """The address of an index that answers."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    server.shutdown()
    server.server_close()


def made(folder: Path, address: str, gpu: str = "") -> tuple[str, str]:
    """(what make said, the arguments of the install) where the index of torch is at an address."""
    log, python = folder / "log", folder / "python"
    python.write_text(PYTHON.format(python=sys.executable, log=log))
    python.chmod(0o755)
    words = [f"PYTHON={python}", f"VENV={folder}/venv", f"TORCH_INDEX={address}", f"GPU={gpu}"]
    done = subprocess.run(
        ["make", "-C", str(ROOT), *words, f"{folder}/venv/.ready"],
        env={**os.environ, "no_proxy": "127.0.0.1", "MAKEFLAGS": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout, log.read_text().splitlines()[-1]


def test_torch_is_the_build_for_cpus_where_its_index_answers(tmp_path: Path, index: str) -> None:
    """Issue 19, 23: `pip install '.[cpu]'` brought 4 GB of CUDA."""
    said, installed = made(tmp_path, index)
    assert f"--extra-index-url {index} --editable .[cpu,learned,test]" in installed
    assert f"the build for CPUs, of {index}" in said


def test_torch_is_pypi_s_where_the_index_does_not_answer(tmp_path: Path) -> None:
    """Issue 19, 23: it listens and is silent; make goes on, and says so."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        said, installed = made(tmp_path, address)
    assert "extra-index-url" not in installed
    assert f"with 4 GB of CUDA: {address} does not answer" in said


def test_an_empty_index_is_not_asked(tmp_path: Path) -> None:
    """Issue 19, 23."""
    said, installed = made(tmp_path, "")
    assert "extra-index-url" not in installed
    assert "TORCH_INDEX is empty" in said


def test_a_machine_with_a_gpu_has_the_build_with_cuda(tmp_path: Path, index: str) -> None:
    said, installed = made(tmp_path, index, gpu="/usr/bin/nvidia-smi")
    assert "extra-index-url" not in installed
    assert "there is a GPU" in said


def test_help_lists_every_target() -> None:
    """Issue 20, 11: each target has a line that says what it does."""
    phony = next(
        line
        for line in (ROOT / "Makefile").read_text().replace("\\\n", "").splitlines()
        if line.startswith(".PHONY:")
    )
    done = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", "help"],
        env={**os.environ, "MAKEFLAGS": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert set(lines) == set(phony.split()[1:])
    assert all(len(text) > 10 for text in lines.values())


def test_rooms_are_linked_under_their_import_name_in_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "a checkout"
    for room in ("vladmap", "jobs", "tests", "docs"):
        (folder / room).mkdir(parents=True)
        if room != "docs":
            (folder / room / "__init__.py").write_text(f"NAME = '{room}'\n")
    (folder / "vladmap" / "py.typed").touch()
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    for _ in range(2):  # again over the links of before
        subprocess.run(
            ["make", "-C", str(folder), "types"], env={**os.environ, "MAKEFLAGS": ""}, check=True
        )
    links = folder / "build" / "types" / "vladmap"
    assert {path.name for path in links.iterdir()} == {"__init__.py", "py.typed", "jobs"}
    assert (links / "jobs" / "__init__.py").read_text() == "NAME = 'jobs'\n"
