"""A model of an atlas beside photographs that fit it, for COLMAP and the tools that follow it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import storage
from vladmap.atlas.store import AtlasStore
from vladmap.mapping.export import Size, image_sizes, read_reconstruction, write_reconstruction
from vladmap.photos.formats import MAX_PIXELS
from vladmap.photos.ids import content_hash
from vladmap.photos.upright import plain_name, upright_file
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages import image_shards
from vladmap.schemas.rejects import PhotoError, RejectReason, UserError

_COLUMNS = ["image_id", "name", "uri", "content_hash"]


@dataclass(frozen=True)
class Settings:
    """What to export and how.

    `images` is where the collection lies now, if it has moved; `copy` copies photographs that are
    otherwise linked, `text` writes COLMAP's text files in place of the binary ones.
    """

    output: Path
    model: int = 0
    images: str = ""
    copy: bool = False
    text: bool = False
    threads: int = 1
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Exported:
    """One photograph of the export: its file, and how it came there (linked, copied, upright).

    `missing` says why there is no file; the model keeps the image.
    """

    name: str
    file: str
    image_id: str
    how: str = ""
    missing: str = ""


def count_images(atlas: AtlasStore, model: int) -> int:
    """How many images a model has, for a bar. Raises UserError where the atlas has no such one."""
    images = _about(atlas, model).get("images")
    return images if isinstance(images, int) else 0


def export_colmap(
    atlas: AtlasStore, settings: Settings, progress: Callable[[], object] = lambda: None
) -> list[Exported]:
    """Write `images/`, `sparse/0/` and `export.json` into a new folder; returns what was exported.

    A photograph that any program reads as vladmap does is linked or copied as it is; any other is
    written upright. Every size is checked against the camera's. A name that would not stay in the
    folder is replaced, in the model too. `progress` is called once a photograph.

    Raises UserError where the atlas has no such model, where it is damaged, and where the folder
    cannot be written.
    """
    atlas.require(("ingest", "merge"))
    about = _about(atlas, settings.model)
    output = settings.output
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"--output {output} holds files: choose a new folder")
        (output / "images").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="vladmap-export-") as folder:
            for path in storage.list_files(atlas.path("model", str(settings.model)), ".bin"):
                Path(folder, path.rpartition("/")[2]).write_bytes(storage.read_bytes(path))
            model = read_reconstruction(Path(folder))
        sizes = image_sizes(model)
        rows = _rows(atlas, list(sizes))
        work = _Work(settings, rows, sizes)
        with ThreadPoolExecutor(settings.threads) as pool:
            exported = []
            for item in pool.map(work.export, sorted(sizes)):
                exported.append(item)
                progress()
        names = {item.name: item.file for item in exported}
        write_reconstruction(model, output / "sparse" / "0", names, text=settings.text)
        report = {
            "model": settings.model,
            **{key: about.get(key) for key in ("origin", "georegistered")},
            "images": [asdict(item) for item in exported],
        }
        data = json.dumps(report, indent=1, sort_keys=True) + "\n"
        (output / "export.json").write_text(data, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}") from error
    return exported


def _about(atlas: AtlasStore, model: int) -> dict[str, Any]:
    try:
        found = json.loads(storage.read_bytes(atlas.path("model/merge.json")))["models"]
        models = [each for each in found if isinstance(each, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        models = []
    if not models:
        raise UserError(
            f"{atlas.root} has no model: run `vladmap build` to its end, and see in its report why"
        )
    if not 0 <= model < len(models):
        raise UserError(f"--model {model}: {atlas.root} has models 0 to {len(models) - 1}")
    return models[model]


def _rows(atlas: AtlasStore, names: list[str]) -> dict[str, dict[str, str]]:
    """Rows of `images/` by name."""
    wanted = pa.array(names, pa.string())
    run = Run(atlas, BuildOptions(atlas=atlas.root))
    found: dict[str, dict[str, str]] = {}
    for entry in image_shards(run).values():
        table = storage.read_table(atlas.path(entry.file.path), _COLUMNS)
        chosen = table.filter(pc.is_in(table["name"], value_set=wanted)).to_pylist()
        found |= {row["name"]: row for row in chosen}
    return found


class _Work:
    def __init__(
        self, settings: Settings, rows: Mapping[str, dict[str, str]], sizes: Mapping[str, Size]
    ) -> None:
        self._settings, self._rows, self._sizes = settings, rows, sizes

    def export(self, name: str) -> Exported:
        row = self._rows.get(name)
        if row is None:
            missing = "no photograph of this name is in the atlas's images/"
            return Exported(name, plain_name(name, "unknown", self._sizes), "", "", missing)
        image_id = row["image_id"]
        # COLMAP's text files end a name at its first space.
        spaces = not self._settings.text
        file = plain_name(name, image_id, self._sizes, spaces=spaces)
        try:
            file, how = self._write(name, file, row)
        except PhotoError as error:
            return Exported(name, file, image_id, "", str(error))
        return Exported(name, file, image_id, how)

    def _write(self, name: str, plain: str, row: Mapping[str, str]) -> tuple[str, str]:
        source = row["uri"]
        if self._settings.images and plain_name(name, "") == name:
            source = f"{self._settings.images.rstrip('/')}/{name}"
        data = _read(source, row["content_hash"])
        made, upright, size = upright_file(data, plain, max_pixels=self._settings.max_pixels)
        while made != plain and made in self._sizes:
            made = f"{made}.jpg"
        if size != self._sizes[name]:
            raise PhotoError(
                RejectReason.CHANGED,
                "it has {}x{} pixels, the model's camera {}x{}".format(*size, *self._sizes[name]),
            )
        target = self._settings.output / "images" / made
        target.parent.mkdir(parents=True, exist_ok=True)
        if upright is None and not self._settings.copy and storage.is_local(source):
            target.symlink_to(os.path.abspath(source))
            return made, "linked"
        # Never through a link that stands there: names and addresses come from an atlas.
        with target.open("xb") as file:
            file.write(data if upright is None else upright)
        return made, "copied" if upright is None else "upright"


def _read(source: str, expected: str) -> bytes:
    try:
        data = storage.read_bytes(source)
    except FileNotFoundError as error:
        raise PhotoError(RejectReason.MISSING, f"{source} is not there") from error
    except OSError as error:
        raise PhotoError(RejectReason.UNREADABLE, f"{source}: {error}") from error
    if content_hash(data) != expected:
        raise PhotoError(RejectReason.CHANGED, f"{source} has changed since it was mapped")
    return data
