"""Exports a model with photographs that match it pixel for pixel, for COLMAP and similar tools."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vladmap.atlas import storage
from vladmap.atlas.store import AtlasStore
from vladmap.exports.base import Exporter, Outcome, Settings, model_facts, new_folder
from vladmap.exports.models import read_model
from vladmap.features.colmap import pycolmap
from vladmap.mapping.export import Size, image_sizes, rename_images, write_reconstruction
from vladmap.photos.ids import content_hash
from vladmap.photos.upright import plain_name, upright_file
from vladmap.schemas.rejects import PhotoError, RejectReason

_COLUMNS = ["image_id", "name", "uri", "content_hash"]


@dataclass(frozen=True)
class Exported:
    """One photograph of the export: its `file`, and `how` that was made (linked, copied, upright).

    `missing` is the reason why there is no file; the model keeps the image.
    """

    name: str
    file: str
    image_id: str
    how: str = ""
    missing: str = ""


class ColmapExporter(Exporter):
    """Photographs and a COLMAP model that fits them: `images/`, `sparse/0/`, `export.json`."""

    def export(
        self,
        atlas: AtlasStore,
        settings: Settings,
        progress: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """See Exporter.export.

        A photograph whose stored pixels are upright, in a format that every program reads, is
        linked or copied unchanged; any other is written anew, upright. Each photograph's size is
        compared with its camera's. A name that would lead out of the folder is replaced, in the
        model too.
        """
        atlas.require(("ingest", "merge"))
        with new_folder(settings.output) as output:
            # COLMAP's text files end a name at its first space.
            names = {"spaces": not settings.text}
            model, exported = write_photographs(atlas, settings, "images", progress, names)
            write_reconstruction(model, output / "sparse" / "0", {}, text=settings.text)
        lines = [
            *report_lines(exported, output / "images"),
            f"the model that fits them in {output / 'sparse' / '0'}",
        ]
        return Outcome(tuple(lines), len(exported), missing_of(exported))


def write_photographs(
    atlas: AtlasStore,
    settings: Settings,
    folder: str,
    progress: Callable[[], object],
    names: Mapping[str, bool],
) -> tuple[pycolmap.Reconstruction, list[Exported]]:
    """Write the photographs of a model into a folder of `settings.output`, and `export.json`.

    `names` are the options of `plain_name`: what a name may hold. Returns the model, whose images
    have the names of the files, and the photographs by name.
    """
    facts = model_facts(atlas, settings.model)
    output = settings.output
    (output / folder).mkdir(parents=True)
    model = read_model(atlas, settings.model)
    sizes = image_sizes(model)
    rows = _rows(atlas, list(sizes))
    writer = _PhotographWriter(settings, output / folder, rows, sizes, names)
    with ThreadPoolExecutor(settings.threads) as pool:
        exported = []
        for item in pool.map(writer.export, sorted(sizes)):
            exported.append(item)
            progress()
    rename_images(model, {item.name: item.file for item in exported})
    report = {
        "model": settings.model,
        **{key: facts.get(key) for key in ("origin", "georegistered")},
        "images": [asdict(item) for item in exported],
    }
    data = json.dumps(report, indent=1, sort_keys=True) + "\n"
    (output / "export.json").write_text(data, encoding="utf-8")
    return model, exported


EXPORTER = ColmapExporter()


def report_lines(exported: Sequence[Exported], folder: Path) -> Iterator[str]:
    """What is said of the photographs that were written into a folder."""
    counts = Counter(item.how for item in exported if item.how)
    parts = [f"{counts[how]} {how}" for how in ("linked", "copied", "upright") if counts[how]]
    yield f"{sum(counts.values())} photographs in {folder}: {', '.join(parts) or 'none'}"
    renamed = sum(item.name != item.file for item in exported)
    if renamed:
        yield f"{renamed} have another name than in the atlas: export.json has both"


def missing_of(exported: Sequence[Exported]) -> tuple[tuple[str, str], ...]:
    """(name, reason) of the photographs that have no file."""
    return tuple((item.name, item.missing) for item in exported if item.missing)


def _rows(atlas: AtlasStore, names: list[str]) -> dict[str, dict[str, str]]:
    """Rows of `images/` by name."""
    wanted = pa.array(names, pa.string())
    rows: dict[str, dict[str, str]] = {}
    for entry in atlas.image_shards().values():
        table = storage.read_table(atlas.path(entry.file.path), _COLUMNS)
        chosen = table.filter(pc.is_in(table["name"], value_set=wanted)).to_pylist()
        rows |= {row["name"]: row for row in chosen}
    return rows


class _PhotographWriter:
    """Writes the photographs of one export."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        rows: Mapping[str, dict[str, str]],
        sizes: Mapping[str, Size],
        names: Mapping[str, bool],
    ) -> None:
        self._settings, self._folder, self._rows = settings, folder, rows
        self._sizes, self._names = sizes, names

    def export(self, name: str) -> Exported:
        row = self._rows.get(name)
        if row is None:
            missing = "no photograph of this name is in the atlas's images/"
            return Exported(name, plain_name(name, "unknown", self._sizes), "", "", missing)
        image_id = row["image_id"]
        file = plain_name(name, image_id, self._sizes, **self._names)
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
        file_name, upright, size = upright_file(data, plain, max_pixels=self._settings.max_pixels)
        while file_name != plain and file_name in self._sizes:
            file_name = f"{file_name}.jpg"
        if size != self._sizes[name]:
            raise PhotoError(
                RejectReason.CHANGED,
                "it has {}x{} pixels, the model's camera {}x{}".format(*size, *self._sizes[name]),
            )
        target = self._folder / file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        if upright is None and not self._settings.copy and storage.is_local(source):
            target.symlink_to(os.path.abspath(source))
            return file_name, "linked"
        # "x" does not follow an existing link: names come from the atlas, which may be hostile.
        with target.open("xb") as file:
            file.write(data if upright is None else upright)
        return file_name, "copied" if upright is None else "upright"


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
