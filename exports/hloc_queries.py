"""What hloc needs to localise photographs from outside in an exported map.

Its `localize_sfm` reads a list with intrinsics, the photographs of the map that are most alike, the
features of the queries and their matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from vladmap.atlas.atlas import Atlas
from vladmap.exports.hloc_files import (
    camera_line,
    require_distinct,
    write_features,
    write_global,
    write_lines,
    write_matches,
)
from vladmap.exports.map_contents import MapContents
from vladmap.features.registry import feature_kind
from vladmap.localisation.localiser import Localiser
from vladmap.localisation.locate import Evidence
from vladmap.localisation.preparing import Asked
from vladmap.photos.upright import plain_name

FOLDER = "queries"
LIST, PAIRS = "queries_with_intrinsics.txt", "pairs.txt"


def write_queries(
    root: str, contents: MapContents, asked: Sequence[Asked], output: Path
) -> tuple[list[tuple[str, str]], int]:
    """Write `queries/` into an export: the files of photographs that are `asked` for.

    Their names begin with `query/`, so that none is that of a photograph of the map. Each is
    matched with the photographs of the map that `vladmap localise` looks at, and has the camera
    that it assumes. Returns (name, reason) of those that cannot be used, and how many others have
    no photograph of this model among those alike. Raises UserError for names that hloc cannot tell
    apart.
    """
    folder = output / FOLDER
    folder.mkdir()
    names = {each: f"query/{plain_name(each.name, each.names['image_id'], spaces=False)}"
             for each in asked}  # fmt: skip
    require_distinct([*contents.names.values(), *names.values()])
    localiser = Localiser(Atlas(root), features=contents.kind)
    missing, cameras, pairs, elsewhere = [], [], [], 0
    with (
        h5py.File(folder / "features.h5", "w") as features,
        h5py.File(folder / "matches.h5", "w") as matches,
        h5py.File(folder / "global.h5", "w") as descriptors,
    ):
        for each in sorted(asked, key=lambda each: names[each]):
            name, prepared = names[each], localiser.prepare(each)
            if prepared.pixels is None:
                missing.append((each.name, str(prepared.error)))
                continue
            query, evidence = localiser.evidence(prepared)
            found = query.features or feature_kind(contents.kind).none(query.size)
            write_features(features, name, found, query.size)
            write_global(descriptors, name, query.descriptor)
            cameras.append(camera_line(name, evidence.camera))
            mine = _pairs(matches, name, len(found), evidence, contents)
            elsewhere += not mine
            pairs += mine
    write_lines(folder / LIST, cameras)
    write_lines(folder / PAIRS, pairs)
    return missing, elsewhere


def _pairs(
    file: h5py.File, name: str, count: int, evidence: Evidence, contents: MapContents
) -> list[str]:
    """Write the matches of a query with photographs of the model; returns lines of pairs."""
    lines = []
    for candidate in evidence.candidates:
        other = contents.names.get(candidate.image_id)
        if other is None:
            continue
        number = count, contents.counts[other]
        write_matches(file, name, other, candidate.matches, np.ones(len(candidate.matches)), number)
        lines.append(f"{name} {other}")
    return lines
