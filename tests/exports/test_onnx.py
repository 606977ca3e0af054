"""`vladmap export --to onnx`: an atlas's index, searched by a program without vladmap and torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.atlas import small
from vladmap import Atlas
from vladmap.exports.onnx import search_program
from vladmap.jobs.main import main
from vladmap.models.base import ModelSpec
from vladmap.weights.preprocessing import FixedSize, GivenSize, InputSize, Size

# Torch and vladmap are not to be found, and none of their modules is loaded in the end.
ALONE = """
import runpy, sys
forbidden = ("torch", "vladmap")
sys.modules |= dict.fromkeys(forbidden)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
loaded = [name for name, module in sys.modules.items() if module is not None]
assert not [name for name in loaded if name.partition(".")[0] in forbidden], loaded
assert "onnxruntime" in loaded
"""


def export(atlas: Path, output: Path, *words: str) -> int:
    return main(["export", "--atlas", str(atlas), "--to", "onnx", "--output", str(output), *words])


@pytest.mark.medium
def test_a_page_of_code_finds_what_the_atlas_finds_without_vladmap_and_torch(
    built_atlas: Path, rendered_city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra `onnx` is not installed")
    out = tmp_path / "out"
    assert export(built_atlas, out) == 0
    assert "from vladmap's" in capsys.readouterr().out
    atlas = Atlas(built_atlas)
    index = atlas.index(places=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "global.faiss", "ids.parquet", "index.json", "model.onnx", "places.faiss",
        "search.py",
    ]  # fmt: skip
    assert index.facts["model_fingerprint"] in (out / "README.md").read_text()
    assert pq.read_table(out / "ids.parquet")["image_id"].to_pylist() == index.image_ids.tolist()
    # Of the size that the network takes, and without loss: the pixels are the same in both.
    exact = tmp_path / "exact.png"
    photograph = next((rendered_city / "images").rglob("*.jpg"))
    Image.open(photograph).convert("RGB").resize((447, 335)).save(exact)
    assert atlas.model().input_long_side(447, 335) == (447, 335)
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, str(out / "search.py"), str(exact), str(photograph)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = [line.rsplit(maxsplit=2) for line in ran.stdout.splitlines()]
    assert len(lines) == 10
    ours = index.search(np.asarray(Image.open(exact)), k=5)
    assert [found for _, found, _ in lines[:5]] == ours["image_id"].tolist()
    cosines = [float(cosine) for *_, cosine in lines[:5]]
    assert np.abs(np.array(cosines) - ours["similarity"]).max() < 1e-4
    # A file that is decoded and reduced by each in its own way.
    ours = index.search(str(photograph), k=1)
    assert lines[5][1] == ours["image_id"][0]
    assert abs(float(lines[5][2]) - ours["similarity"][0]) < 0.01


def test_descriptors_of_no_network_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(small, "MODELS", {"vlad": 8, "gem": 4})
    small.write_atlas(tmp_path / "atlas", tmp_path, maps=False)
    assert export(tmp_path / "atlas", tmp_path / "out", "--descriptors", "vlad") == 2
    said = capsys.readouterr().err
    assert "vlad are computed by no network" in said
    assert "netvlad-lite" in said
    assert export(tmp_path / "atlas", tmp_path / "out") == 2
    assert "name one of gem, vlad" in capsys.readouterr().err
    assert export(tmp_path / "atlas", tmp_path / "out", "--model", "1") == 2
    assert "--model is not for --to onnx" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(tmp_path / "atlas", tmp_path / "out", "--descriptors", "gem") == 2
    assert "pip install 'vladmap[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "rule",
    [InputSize(320, 448), InputSize(32, 640), FixedSize(322, 310), GivenSize(126, 448)],
)
def test_the_program_brings_images_to_the_size_that_the_model_takes(rule: Size) -> None:
    spec = ModelSpec("gem", 8, (), rule, "a fingerprint")
    text = search_program(spec, faiss.IndexFlatIP(8))
    first = text.index("    image = ") + len("    image = ")
    lines = text[text.index("\n", first) : text.index("    smooth =")]
    for size in ((4000, 3000), (3000, 4001), (300, 200), (37, 900), (640, 640), (448, 100)):
        names = {"image": Image.new("RGB", size)}
        exec("if True:" + lines, names)
        assert tuple(names["size"]) == rule.target(*size)


def test_lists_of_a_large_index_are_visited_as_its_recall_was_measured() -> None:
    spec = ModelSpec("gem", 8, (), FixedSize(8, 8), "a fingerprint")
    lists = faiss.index_factory(8, "PCA4,IVF200,Flat", faiss.METRIC_INNER_PRODUCT)
    assert "extract_index_ivf(index).nprobe = 25\n" in search_program(spec, lists)
    assert "nprobe" not in search_program(spec, faiss.IndexFlatIP(8))
