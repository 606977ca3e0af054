"""Exports a model with its features, matches and descriptors in the file formats of hloc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py

from vladmap.atlas.store import AtlasStore
from vladmap.exports.base import Exporter, Outcome, Settings, new_folder
from vladmap.exports.colmap import missing_of, report_lines, write_photographs
from vladmap.exports.hloc_files import (
    camera_line,
    require_distinct,
    write_features,
    write_global,
    write_lines,
    write_matches,
)
from vladmap.exports.hloc_queries import FOLDER, write_queries
from vladmap.exports.map_contents import MapContents, image_ids
from vladmap.features.colmap import pycolmap
from vladmap.mapping.camera import Camera
from vladmap.mapping.export import write_reconstruction

FEATURES, MATCHES, GLOBAL = "features.h5", "matches.h5", "global.h5"
LIST, INTRINSICS, PAIRS = "images.txt", "images_with_intrinsics.txt", "pairs.txt"
# Scores of matches: what the two-view geometry explains passes hloc's --min_match_score 0.5.
_EXPLAINED, _OTHER = 1.0, 0.25


class HlocExporter(Exporter):
    """What `--to colmap` writes, and beside it hloc's files of features, matches, descriptors."""

    def export(
        self,
        atlas: AtlasStore,
        settings: Settings,
        progress: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """See Exporter.export. Names have no spaces: hloc's lists of images end them there."""
        atlas.require(("ingest", "verify", "merge"))
        with new_folder(settings.output) as output:
            names = {"spaces": False}
            model, exported = write_photographs(atlas, settings, "images", progress, names)
            write_reconstruction(model, output / "sparse" / "0", {}, text=settings.text)
            require_distinct(item.file for item in exported)
            ids = image_ids(atlas, settings.model)
            contents = MapContents(atlas, {ids[item.name]: item.file for item in exported})
            lines = list(report_lines(exported, output / "images"))
            lines.append(f"the model that fits them in {output / 'sparse' / '0'}")
            lines += _write(contents, model, output)
            missing = [*missing_of(exported)]
            if settings.queries:
                lost, elsewhere = write_queries(atlas.root, contents, settings.queries, output)
                found = len(settings.queries) - len(lost)
                lines.append(f"{found} queries in {output / FOLDER}, for hloc.localize_sfm")
                if elsewhere:
                    lines.append(f"{elsewhere} of them are like no photograph of this model")
                missing += lost
        return Outcome(tuple(lines), len(exported) + len(settings.queries), tuple(missing))


EXPORTER = HlocExporter()


def _write(contents: MapContents, model: pycolmap.Reconstruction, output: Path) -> list[str]:
    cameras = {image.name: model.camera(image.camera_id) for image in model.images.values()}
    with h5py.File(output / FEATURES, "w") as file:
        for name, features in contents.features(model):
            write_features(file, name, features, (cameras[name].width, cameras[name].height))
    counts = contents.counts
    pairs, beyond = contents.pairs()
    with h5py.File(output / MATCHES, "w") as file:
        for pair in pairs:
            scores = pair.explained * (_EXPLAINED - _OTHER) + _OTHER
            number = counts[pair.a], counts[pair.b]
            write_matches(file, pair.a, pair.b, pair.matches, scores, number)
    vectors = contents.descriptors()
    with h5py.File(output / GLOBAL, "w") as file:
        for (_, name), vector in zip(
            contents.names.items(), vectors.of(list(contents.names)), strict=True
        ):
            write_global(file, name, vector)
    names = sorted(counts)
    write_lines(output / LIST, names)
    write_lines(
        output / INTRINSICS,
        (camera_line(name, Camera.from_colmap(cameras[name])) for name in names),
    )
    write_lines(output / PAIRS, (f"{pair.a} {pair.b}" for pair in pairs))
    lines = [
        f"{sum(counts.values())} {contents.kind} features in {output / FEATURES}",
        f"{len(pairs)} trusted pairs in {output / MATCHES}",
        f"{len(names)} descriptors by {vectors.model} in {output / GLOBAL}",
    ]
    if beyond:
        lines.append(f"{beyond} pairs that another kind of features matched are left out")
    return lines
