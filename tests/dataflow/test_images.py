"""The images, the flex template and the Kubernetes Job: what can be said of them without a cluster.

Linters judge them where they are installed (`make dataflow`); the rest is held to the project.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import apache_beam
import pytest
import yaml

from vladmap.jobs.main import load
from vladmap.pipeline import flex_template
from vladmap.pipeline.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
IMAGES = ("cpu", "gpu", "flex")


def instructions(image: str) -> list[tuple[str, str]]:
    """(instruction, its words) of a Dockerfile, lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (DOCKER / image / "Dockerfile").read_text(), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if line.strip()]


def extras_of_setup() -> set[str]:
    """The extras that setup.py declares."""
    code = (
        "import json, setuptools; setuptools.setup = lambda **words: print(json.dumps("
        "sorted(words['extras_require']))); exec(open('setup.py').read())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code.replace("exec(", "__file__ = 'setup.py'; exec(")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(json.loads(said.splitlines()[-1]))


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_an_image_has_the_beam_and_the_python_of_the_project(image: str) -> None:
    """Beam refuses workers of another version; theirs is that of the image."""
    base = dict(instructions(image))["FROM"]
    found = re.fullmatch(r"apache/beam_python(\d\.\d+)_sdk:([\d.]+)", base)
    assert found is not None
    assert found[2] == apache_beam.__version__
    assert f">={found[1]}" in (ROOT / "setup.py").read_text()


@pytest.mark.parametrize("image", ["cpu", "gpu"])
def test_an_image_installs_extras_that_exist_and_checks_them(image: str) -> None:
    (run,) = [words for name, words in instructions(image) if name == "RUN"]
    steps = [shlex.split(step) for step in run.split("&&")]
    assert [step[:2] for step in steps] == [
        ["pip", "install"],
        ["pip", "install"],
        ["pip", "check"],
    ]
    extras = set(re.fullmatch(r"\.\[(.+)\]", steps[1][-1])[1].split(","))  # type: ignore[index]
    assert image in extras
    assert extras <= extras_of_setup()
    assert "gcp" in extras  # the atlas is in gs://
    for step in steps[:2]:
        assert "--no-cache-dir" in step


def test_what_an_image_copies_has_all_that_setup_py_reads() -> None:
    left_out = (ROOT / ".dockerignore").read_text().split()
    for needed in ("beam_requirements.txt", "README.md", "pyproject.toml", "pipeline", "vladmap"):
        assert (ROOT / needed).exists()
        assert needed not in left_out
    assert {".*", "tests", "out"} <= set(left_out)


@pytest.mark.parametrize("image", IMAGES)
def test_a_linter_has_nothing_to_say_of_a_dockerfile(image: str) -> None:
    linter = shutil.which("hadolint") or shutil.which(
        "hadolint", path=str(Path(sys.executable).parent)
    )
    if linter is None:
        pytest.skip("hadolint is not installed: make dataflow")
    job = subprocess.run(
        [linter, "--no-color", "--ignore", "DL3013", str(DOCKER / image / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (job.returncode, job.stdout) == (0, "")


def test_the_template_s_spec_says_what_its_metadata_say() -> None:
    spec = json.loads((DOCKER / "flex" / "spec.json").read_text())
    assert spec["metadata"] == json.loads((DOCKER / "flex" / "metadata.json").read_text())
    assert spec["sdkInfo"] == {"language": "PYTHON"}
    assert spec["image"]


def test_the_template_s_parameters_are_those_of_its_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is taken by the launcher: what it does not know it would leave to Beam, unseen."""
    metadata = json.loads((DOCKER / "flex" / "metadata.json").read_text())
    left: list[str] = []

    def keep(words: list[str]) -> Any:
        left.extend(words)
        raise InterruptedError

    monkeypatch.setattr(flex_template, "options_of", keep)
    words = [f"--{parameter['name']}=x" for parameter in metadata["parameters"]]
    with pytest.raises(InterruptedError):
        flex_template.main(words)
    assert left == []
    (job,) = [each for each in metadata["parameters"] if each["name"] == "job"]
    assert all(name in job["helpText"] for name in ("build", *STAGES))
    required = [each["name"] for each in metadata["parameters"] if not each.get("isOptional")]
    assert required == ["atlas", "worker_image"]


def test_the_flex_image_starts_the_launcher_on_a_file_that_is_there() -> None:
    lines = instructions("flex")
    copied = [words.split()[-1] for name, words in lines if name == "COPY"]
    environment = dict(words.split("=", 1) for name, words in lines if name == "ENV")
    assert environment["FLEX_TEMPLATE_PYTHON_PY_FILE"] in copied
    (entry,) = [json.loads(words) for name, words in lines if name == "ENTRYPOINT"]
    assert entry[0] in copied
    compile((DOCKER / "flex" / "launcher.py").read_text(), "launcher.py", "exec")


def driver() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DOCKER / "kubernetes" / "driver.yaml").read_text())
    return content


def test_kubernetes_takes_the_job() -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: make dataflow"
    )
    validate.validate(driver(), validate.latest_version(), strict=True)
    broken = driver()
    broken["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, validate.latest_version(), strict=True)


def test_the_job_runs_a_command_whose_options_are_known() -> None:
    """vladmap's own and Beam's: a mistyped one is an error of the run."""
    from vladmap.pipeline.beam_words import checked

    (container,) = driver()["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["vladmap", "build"]
    parser = load("build").command_line()
    parsed, left = parser.parse_known_args(container["args"])
    assert parsed.images.startswith("gs://")
    assert parsed.atlas.startswith("gs://")
    assert checked(left, parser.flags()) == left
