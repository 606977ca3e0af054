"""The jars of a job server: fetched by Maven once, and kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from vladmap.pipeline.engines.engine import Engine
from vladmap.schemas.rejects import UserError

log = logging.getLogger("vladmap")

_INSTALL = "on Debian and Ubuntu: apt-get install openjdk-17-jre-headless maven"


def cache() -> Path:
    """The folder of fetched jars: `vladmap/engines` in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vladmap", "engines")


def classpath(engine: Engine) -> Path:
    """Folder of the job server's jars, fetched by Maven where they are not there yet.

    The folder is named after the digest of the Maven project, so that another one fetches anew, and
    is renamed into place, so that an interrupted download is not taken for a whole one.

    Raises UserError where Java or Maven is missing, Maven fails or the cache cannot be written.
    """
    _require("java", f"{engine.title} runs on {engine.java}")
    digest = hashlib.blake2b(engine.pom.read_bytes(), digest_size=8).hexdigest()
    folder = cache() / f"{engine.name}-{digest}"
    if folder.is_dir():
        return folder
    maven = _require("mvn", f"the jars of the {engine.title} job server come from Maven")
    log.info(
        "fetching the %s job server's jars to %s (%d MB, once)",
        *(engine.title, folder, engine.megabytes),
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            jars = Path(partial, "jars")
            _fetch(maven, engine, jars)
            with contextlib.suppress(FileExistsError):  # another process was faster
                jars.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): name another folder in XDG_CACHE_HOME"
        ) from error
    return folder


def _fetch(maven: str, engine: Engine, folder: Path) -> None:
    command = [
        *(maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(engine.pom)),
        "-Dmaven.wagon.http.retryHandler.count=5",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={folder}",
        "dependency:copy-dependencies",
    ]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise UserError(
            f"Maven could not fetch the {engine.title} job server: {_maven_error(done.stdout)}; "
            f"see why with `mvn -f {engine.pom} dependency:copy-dependencies`"
        )


def _require(program: str, reason: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise UserError(f"{program} is not on the PATH: {reason} ({_INSTALL})")
    return path


def _maven_error(output: str) -> str:
    for line in output.splitlines():
        if "[ERROR]" in line:
            return line.partition("[ERROR]")[2].partition("-> [Help")[0].strip()
    return output.strip()[-300:]
