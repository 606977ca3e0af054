"""pycolmap as vladmap loads it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

ADJUST = """
from vladmap.mapping.mapper import bundle_adjust
from vladmap.features.colmap import pycolmap
model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions())
bundle_adjust(model, refine_focal=True, refine_distortion=True)
"""
END = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
import vladmap.mapping.colmap
os.kill(os.getpid(), signal.SIGTERM)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )


def test_bundle_adjustment_says_nothing() -> None:
    done = run(ADJUST)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_request_to_end_is_python_s_to_answer() -> None:
    done = run(END)
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_without_a_handler_a_request_to_end_ends_without_a_stack_trace() -> None:
    done = run("import os, signal, vladmap.mapping.colmap\nos.kill(os.getpid(), signal.SIGTERM)")
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
