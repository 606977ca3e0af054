"""Exports the map as a pose graph in g2o's text format, and reads solved ones back.

`VERTEX_SE3:QUAT id x y z qx qy qz qw` is the pose of a camera (x right, y down, z forward),
world_from_camera. `EDGE_SE3:QUAT i j dx dy dz qx qy qz qw` is the pose of camera j in the frame of
camera i, with the upper triangle of its 6 x 6 information matrix, translation before rotation
(Kuemmerle et al., ICRA 2011).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vladmap.atlas import layout, storage
from vladmap.atlas.judged_views import judged_views
from vladmap.atlas.store import AtlasStore
from vladmap.exports.base import Exporter, Outcome, Settings, model_facts, new_folder
from vladmap.exports.models import read_model
from vladmap.mapping.arrays import Array, Indices
from vladmap.mapping.georegister import centres_and_rotations
from vladmap.mapping.judging import KEPT, VERDICTS
from vladmap.schemas.rejects import UserError

FILE = "pose_graph.g2o"

_VERTEX, _EDGE = "VERTEX_SE3:QUAT", "EDGE_SE3:QUAT"
_POSE = ("qw", "qx", "qy", "qz", "tx", "ty", "tz")
# The errors of a two-view geometry, one sigma: its rotation; its direction, in radians; and its
# length, which it does not know and which is that of the map, as a share.
_TURN = np.radians(1.0)
_DIRECTION = np.radians(3.0)
_LENGTH = 0.3
_LEAST_M = 0.05


@dataclass(frozen=True)
class Vertices:
    """n poses of a g2o file, by ascending `ids` (n,).

    `position` (n, 3) is that of the cameras, `rotation` (n, 4) w, x, y, z of world_from_camera.
    """

    ids: Indices
    position: Array
    rotation: Array


class G2oExporter(Exporter):
    """`pose_graph.g2o`: a vertex each photograph of the model, an edge each trusted pair."""

    def export(
        self,
        atlas: AtlasStore,
        settings: Settings,
        progress: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """See Exporter.export. `vertices.json` names the photographs of the vertices."""
        atlas.require(("ingest", "verify", "merge"))
        facts = model_facts(atlas, settings.model)
        names, position, turn = centres_and_rotations(read_model(atlas, settings.model))
        order = np.argsort(np.array(names, object))
        names, position, turn = [names[at] for at in order], position[order], turn[order]
        ids = _image_ids(atlas, settings.model, names)
        first, second, relative = _trusted_pairs(atlas, ids)
        with new_folder(settings.output) as output:
            lines = _vertex_lines(position, turn)
            lines += _edge_lines(position, first, second, relative)
            (output / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
            named = [
                {"id": number, "image_id": image_id, "name": name}
                for number, (image_id, name) in enumerate(zip(ids, names, strict=True))
            ]
            known = {key: facts.get(key) for key in ("origin", "georegistered")}
            data = {"model": settings.model, **known, "vertices": named}
            text = json.dumps(data, indent=1, sort_keys=True) + "\n"
            (output / "vertices.json").write_text(text, encoding="utf-8")
        for _ in names:
            progress()
        said = f"{len(names)} poses and {len(first)} trusted pairs in {settings.output / FILE}"
        unjudged = "no pair is trusted: where none is judged yet, run `vladmap reconstruct`"
        return Outcome((said, unjudged) if len(first) == 0 else (said,), len(names))


EXPORTER = G2oExporter()


def read_g2o(path: Path) -> Vertices:
    """Read the poses of a g2o file, such as one that an optimiser has solved.

    Lines of other things than VERTEX_SE3:QUAT are passed over. Raises UserError where the file
    cannot be read, has no pose, or has a line that is not a pose.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as g2o text: {error}") from error
    ids, numbers = [], []
    for at, line in enumerate(lines, 1):
        tag, *words = line.split() or [""]
        if tag != _VERTEX:
            continue
        try:
            vertex, values = int(words[0]), [float(word) for word in words[1:]]
        except (ValueError, IndexError):
            vertex, values = 0, []
        size = float(np.linalg.norm(values[3:])) if len(values) == 7 else 0.0
        if not (np.isfinite(values).all() and 0.5 < size < 2.0):
            raise UserError(f"{path}, line {at}: not `{_VERTEX} id x y z qx qy qz qw`")
        ids.append(vertex)
        numbers.append(values)
    if not ids:
        raise UserError(f"{path} has no {_VERTEX}: give a pose graph in three dimensions")
    if len(set(ids)) < len(ids):
        raise UserError(f"{path} has two poses of one id")
    order, poses = np.argsort(ids), np.array(numbers)
    turn = poses[order, 3:] / np.linalg.norm(poses[order, 3:], axis=1, keepdims=True)
    return Vertices(np.array(ids, np.int64)[order], poses[order, :3], turn[:, [3, 0, 1, 2]])


def information(moved: Array) -> Array:
    """The information matrices (m, 6, 6) of relative poses with translations `moved` (m, 3).

    A two-view geometry knows the direction of its baseline to some degrees and nothing of its
    length. Rotations are in radians, as in GTSAM; g2o's own residual of a rotation is the vector of
    its quaternion, half of that.
    """
    length = np.linalg.norm(moved, axis=1)
    along = moved / np.maximum(length, 1e-12)[:, None]
    across = np.maximum(_DIRECTION * length, _LEAST_M) ** -2.0
    lengthwise = np.maximum(_LENGTH * length, _LEAST_M) ** -2.0
    result = np.zeros((len(moved), 6, 6))
    outer = np.einsum("mi,mj->mij", along, along)
    result[:, :3, :3] = across[:, None, None] * np.eye(3)
    result[:, :3, :3] += (lengthwise - across)[:, None, None] * outer
    result[:, 3:, 3:] = _TURN**-2.0 * np.eye(3)
    return result


def _image_ids(atlas: AtlasStore, model: int, names: list[str]) -> list[str]:
    poses = storage.read_table(atlas.path(layout.POSES), ["image_id", "name", "model"])
    mine = poses.filter(pc.equal(poses["model"], model))
    by_name = dict(zip(mine["name"].to_pylist(), mine["image_id"].to_pylist(), strict=True))
    return [by_name[name] for name in names]


def _trusted_pairs(atlas: AtlasStore, ids: list[str]) -> tuple[Indices, Indices, Array]:
    """Rows of the images of trusted pairs, and their relative poses (m, 7) b_from_a."""
    known = pa.array(ids, pa.string())
    ledger = sorted(atlas.ledger(layout.VERIFY_LEDGER).items())
    paths = (atlas.path(entry.file.path) for _, entry in ledger)
    parts = []
    for table in judged_views(paths, ["image_id_a", "image_id_b", "verdict", *_POSE]):
        inside = pc.and_(pc.equal(table["verdict"], VERDICTS[KEPT]), pc.is_valid(table["qw"]))
        for end in "ab":
            inside = pc.and_(inside, pc.is_in(table[f"image_id_{end}"], known))
        parts.append(table.filter(inside))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 7))
    table = pa.concat_tables(parts).sort_by(
        [("image_id_a", "ascending"), ("image_id_b", "ascending")]
    )
    first, second = (
        np.asarray(pc.index_in(table[f"image_id_{end}"], known).to_numpy(), np.int64)
        for end in "ab"
    )
    return first, second, np.stack([table[name].to_numpy() for name in _POSE], axis=1)


def _vertex_lines(position: Array, turn: Array) -> list[str]:
    quaternion = Rotation.from_matrix(turn).as_quat()
    values = np.concatenate([position, quaternion], axis=1)
    lines = [f"{_VERTEX} {row} {_text(values[row])}" for row in range(len(values))]
    return [*lines, "FIX 0"]


def _edge_lines(position: Array, first: Indices, second: Indices, relative: Array) -> list[str]:
    if len(first) == 0:
        return []
    back = Rotation.from_quat(relative[:, [1, 2, 3, 0]]).inv()
    length = np.linalg.norm(position[second] - position[first], axis=1)
    moved = -back.apply(relative[:, 4:]) * length[:, None]
    upper = np.triu_indices(6)
    weights = information(moved)[:, upper[0], upper[1]]
    values = np.concatenate([moved, back.as_quat(), weights], axis=1)
    return [
        f"{_EDGE} {a} {b} {_text(row)}"
        for a, b, row in zip(first.tolist(), second.tolist(), values, strict=True)
    ]


def _text(values: NDArray[np.float64]) -> str:
    # Zero has no sign.
    return " ".join(f"{value + 0.0:.9g}" for value in values.tolist())
