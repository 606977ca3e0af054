"""`vladmap export`: a model beside photographs that fit it, read back by COLMAP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.mapping import test_tile_merge
from tests.photos.bad_photos import exif_block
from tests.pipeline import test_unregistered
from vladmap.features.colmap import pycolmap
from vladmap.jobs.main import main
from vladmap.photos.ids import content_hash

WIDTH, HEIGHT = 480, 640  # upright: portraits
NAMES = {
    0: ("000.jpg", 6), 1: ("001.jpg", 8), 2: ("b c/002.jpg", 5), 3: ("003.jpg", 7),
    4: ("004.jpg", 1), 5: ("005.png", 6), 6: ("006.webp", 1), 7: ("007.jpg", 3),
}  # fmt: skip
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
# The stored pixels that an EXIF orientation makes upright.
STORED = {
    1: lambda upright: upright,
    3: lambda upright: upright[::-1, ::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def picture(seed: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    bands = [np.sin((seed + 1) * x * 3), np.cos(seed + y * 2), x * y]
    return np.rint(127 + 120 * np.stack(bands, axis=2)).clip(0, 255).astype(np.uint8)


def named(number: int) -> str:
    return NAMES[number][0] if number in NAMES else f"{number:03d}.jpg"


@pytest.fixture
def atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_atlas(tmp_path, monkeypatch)


def write_atlas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uris: Mapping[str, str] | None = None
) -> Path:
    """A model of eight portraits in every turned and mirrored way, merged and coloured."""
    places = uris or {}
    for module in (test_tile_merge, test_unregistered):
        monkeypatch.setattr(module, "name_of", named)
    monkeypatch.setattr(test_tile_merge, "WIDTH", WIDTH)
    monkeypatch.setattr(test_tile_merge, "HEIGHT", HEIGHT)
    photos = tmp_path / "photos"
    hashes = {}
    for number, (name, orientation) in NAMES.items():
        path = Path(places.get(name, photos / name))
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.ascontiguousarray(STORED[orientation](picture(number)))
        options: dict[str, Any] = {"quality": 98, "subsampling": 0}
        kind = FORMATS[path.suffix]
        exif = exif_block(base={274: orientation})
        Image.fromarray(pixels).save(path, kind, exif=exif, **(options if kind == "JPEG" else {}))
        hashes[name] = content_hash(path.read_bytes())
    tiles = {"left": (range(8), {"unregistered": {}})}
    test_unregistered.made(tmp_path / "atlas", tiles, str(photos), hashes, places)
    return tmp_path / "atlas"


def export(atlas: Path, output: Path, *words: str) -> int:
    return main(["export", "--atlas", str(atlas), "--output", str(output), *words])


def colours(model: pycolmap.Reconstruction) -> np.ndarray:
    return np.array([model.point3D(number).color for number in sorted(model.points3D)], int)


def test_turned_photographs_fit_the_model_for_tools_that_read_pixels_as_stored(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 4: orientations 5, 6, 7, 8 and others: sizes agree, keypoints lie inside, and the
    colours that COLMAP takes from the exported photographs are the model's."""
    out = tmp_path / "out"
    assert export(atlas, out, "--to", "colmap") == 0
    said = capsys.readouterr().out
    assert "8 photographs" in said
    assert "1 linked, 7 upright" in said
    model = pycolmap.Reconstruction(str(out / "sparse" / "0"))
    assert model.num_reg_images() == 8
    for image in model.images.values():
        bitmap = pycolmap.Bitmap.read(str(out / "images" / image.name), True)
        camera = model.camera(image.camera_id)
        assert (bitmap.width, bitmap.height) == (camera.width, camera.height) == (WIDTH, HEIGHT)
        keypoints = np.array([point.xy for point in image.points2D])
        assert (keypoints >= 0).all()
        assert (keypoints <= [bitmap.width, bitmap.height]).all()
    ours = colours(model)
    assert ours.any(axis=1).all(), "coloured, not black"
    model.extract_colors_for_all_images(str(out / "images"))
    difference = np.abs(colours(model) - ours).max(axis=1)
    # At the border, where COLMAP takes no colour, the means are of fewer photographs.
    assert np.quantile(difference, 0.9) <= 4
    stored = pycolmap.Reconstruction(str(atlas / "model" / "0"))
    stored.extract_colors_for_all_images(str(tmp_path / "photos"))
    wrong = np.abs(colours(stored) - ours).max(axis=1)
    assert np.quantile(wrong, 0.5) > 20, "of the pixels as they are stored they are others"


def test_names_are_told_and_links_lead_to_the_photographs(atlas: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(atlas, out) == 0
    told = json.loads((out / "export.json").read_text())
    files = {item["name"]: (item["file"], item["how"]) for item in told["images"]}
    assert files["006.webp"] == ("006.webp.jpg", "upright")
    assert files["b c/002.jpg"] == ("b c/002.jpg", "upright")
    assert files["004.jpg"] == ("004.jpg", "linked")
    assert len(told["origin"]) == 3
    assert (out / "images/004.jpg").readlink() == tmp_path / "photos/004.jpg"
    assert sorted(p.name for p in (out / "images").rglob("*") if p.is_symlink()) == ["004.jpg"]
    model = pycolmap.Reconstruction(str(out / "sparse/0"))
    assert {image.name for image in model.images.values()} == {file for file, _ in files.values()}


def test_copies_outlive_the_collection_and_text_says_the_same(atlas: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    (tmp_path / "photos").rename(moved)
    assert export(atlas, out, "--copy", "--text", "--images", str(moved)) == 0
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    assert (out / "images/004.jpg").read_bytes() == (moved / "004.jpg").read_bytes()
    assert sorted(path.name for path in (out / "sparse/0").iterdir()) == [
        "cameras.txt", "frames.txt", "images.txt", "points3D.txt", "rigs.txt",
    ]  # fmt: skip
    model = pycolmap.Reconstruction(str(out / "sparse/0"))
    # COLMAP's text files end a name at its first space.
    names = {image.name for image in model.images.values()}
    assert "b_c/002.jpg" in names
    assert all((out / "images" / name).is_file() for name in names)
    np.testing.assert_array_equal(
        colours(model), colours(pycolmap.Reconstruction(str(atlas / "model/0")))
    )


def test_two_exports_are_equal_byte_for_byte(atlas: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert export(atlas, tmp_path / name, "--copy") == 0
    found = [
        {str(path.relative_to(tmp_path / name)): path.read_bytes()
         for path in sorted((tmp_path / name).rglob("*")) if path.is_file()}
        for name in ("a", "b")
    ]  # fmt: skip
    assert found[0] == found[1]


def test_a_photograph_that_is_gone_or_changed_is_named_and_the_rest_is_whole(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 4: the check that sizes agree, and that it is the photograph that was mapped."""
    (tmp_path / "photos/000.jpg").unlink()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "photos/004.jpg")
    assert export(atlas, tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "2 of 8 photographs are not in" in said.err
    assert "000.jpg (missing" in said.err
    assert "004.jpg (changed" in said.err
    assert "if the collection has moved, say where with --images DIR" in said.err
    assert "Traceback" not in said.err
    assert len([p for p in (tmp_path / "out/images").rglob("*") if p.is_file()]) == 6
    assert (tmp_path / "out/sparse/0/images.bin").exists()


def test_a_size_that_disagrees_with_the_camera_is_no_part_of_the_export(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 19, 4: a model of other pixels than the photograph's is not passed on."""
    folder = atlas / "model/0"
    model = pycolmap.Reconstruction(str(folder))
    for camera in model.cameras.values():
        camera.width, camera.height = HEIGHT, WIDTH
    model.write_binary(str(folder))
    (atlas / "ledger/merge/model.json").unlink()  # which knows that it is another
    assert export(atlas, tmp_path / "out") == 2
    assert f"it has {WIDTH}x{HEIGHT} pixels, the model's camera {HEIGHT}x{WIDTH}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("evil", ["../../up.jpg", "/tmp/vladmap-evil.jpg", "a\nb.jpg"])
def test_a_hostile_name_stays_inside_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: str
) -> None:
    """Issue 19, 4 and 16: a model's names are data, and may be anyone's."""
    monkeypatch.setitem(NAMES, 0, (evil, 6))
    atlas = write_atlas(tmp_path, monkeypatch, {evil: str(tmp_path / "photos" / "000.jpg")})
    out = tmp_path / "deep" / "out"
    assert export(atlas, out, "--copy") == 0
    files = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {"atlas", "deep", "photos"}
    assert not Path("/tmp/vladmap-evil.jpg").exists()
    told = json.loads((out / "export.json").read_text())
    [item] = [item for item in told["images"] if item["name"] == evil]
    assert item["file"] == f"outside/{item['image_id']}.jpg"
    assert (out / "images" / item["file"]).is_file()
    model = pycolmap.Reconstruction(str(out / "sparse/0"))
    assert item["file"] in {image.name for image in model.images.values()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "1"], "has models 0 to 0"),
        (["--to", "elsewhere"], "invalid choice"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    try:
        code = export(atlas, tmp_path / "out", *words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_or_an_atlas_without_a_model_is_one_line(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep")
    assert export(atlas, tmp_path / "full") == 2
    assert "holds files: choose a new folder" in capsys.readouterr().err
    (atlas / "model/0/images.bin").write_bytes(b"no model")
    assert export(atlas, tmp_path / "out") == 2
    assert "run the same `vladmap build` again" in capsys.readouterr().err
    (atlas / "ledger/merge/model.json").unlink()
    assert export(atlas, tmp_path / "out") == 2
    assert "cannot be read as a COLMAP model" in capsys.readouterr().err
    (atlas / "model/merge.json").write_text('{"models": [], "decisions": []}')
    assert export(atlas, tmp_path / "out2") == 2
    assert "has no model: run `vladmap build`" in capsys.readouterr().err
