"""What an atlas holds of the photographs of a model: features, trusted pairs, descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vladmap.atlas import layout, storage
from vladmap.atlas.atlas import Atlas
from vladmap.atlas.descriptors import Descriptors
from vladmap.atlas.judged_views import judged_views
from vladmap.atlas.store import AtlasStore
from vladmap.features.base import LocalFeatures, Matches
from vladmap.features.colmap import pycolmap
from vladmap.mapping.judging import KEPT, VERDICTS
from vladmap.schemas.rejects import UserError

_COLUMNS = ["image_id_a", "image_id_b", "matches", "inliers", "verdict"]
_OFF_PX = 0.01


@dataclass(frozen=True)
class MatchedPair:
    """The matches (m, 2) of two photographs, and which of them (m,) their geometry explains."""

    a: str
    b: str
    matches: Matches
    explained: NDArray[np.bool_]


class MapContents:
    """The features, trusted pairs and descriptors of the photographs `names`, by image id.

    `names` has the name in an export of each; `counts` the number of keypoints of each name, once
    `features` has given them. What is read is checked against the ledger.
    """

    def __init__(self, atlas: AtlasStore, names: Mapping[str, str]) -> None:
        self.names = dict(sorted(names.items(), key=lambda item: item[1]))
        self._store, self._atlas = atlas, Atlas(atlas.root)
        self.counts: dict[str, int] = {}
        self.kind = self._atlas.features().kind

    def features(self, model: pycolmap.Reconstruction) -> Iterator[tuple[str, LocalFeatures]]:
        """(name, features) of each photograph, shard by shard.

        The first keypoints of an image of the model are these; those of a second kind, in an atlas
        with `--between-drives`, follow them. Raises UserError where they are not, or are missing.
        """
        images = {image.name: image for image in model.images.values()}
        seen: set[str] = set()
        for _, shard in self._atlas.features(self.kind).shards():
            for image_id in sorted(set(shard) & set(self.names)):
                name, found = self.names[image_id], shard[image_id]
                _check(self._atlas.root, name, found, images[name])
                seen.add(image_id)
                self.counts[name] = len(found)
                yield name, found
        if lost := set(self.names) - seen:
            raise UserError(
                f"{self._atlas.root}: {len(lost)} photographs of the model have no {self.kind} "
                f"features ({self.names[min(lost)]}): run the same `vladmap build` again"
            )

    def pairs(self) -> tuple[list[MatchedPair], int]:
        """The trusted pairs by names, each once, sorted, and how many were left out.

        A pair with keypoints beyond `counts` was matched by features of a second kind: it is left
        out.
        """
        known = pa.array(sorted(self.names), pa.string())
        ledger = sorted(self._store.ledger(layout.VERIFY_LEDGER).items())
        paths = [self._store.path(entry.file.path) for _, entry in ledger]
        pairs, beyond = [], 0
        for table in judged_views(paths, _COLUMNS):
            inside = pc.equal(table["verdict"], VERDICTS[KEPT])
            for end in "ab":
                inside = pc.and_(inside, pc.is_in(table[f"image_id_{end}"], known))
            chosen = table.filter(inside)
            ends = (chosen[f"image_id_{end}"].to_pylist() for end in "ab")
            blocks = (chosen[column] for column in ("matches", "inliers"))
            for first, second, matches, inliers in zip(*ends, *blocks, strict=True):
                pair = _pair(self.names[first], self.names[second], _rows(matches), _rows(inliers))
                most = pair.matches.max(axis=0, initial=0)
                if most[0] < self.counts[pair.a] and most[1] < self.counts[pair.b]:
                    pairs.append(pair)
                else:
                    beyond += 1
        return sorted(pairs, key=lambda pair: (pair.a, pair.b)), beyond

    def descriptors(self) -> Descriptors:
        """The global descriptors, by the model of the last build."""
        return self._atlas.descriptors()


def image_ids(atlas: AtlasStore, model: int) -> dict[str, str]:
    """The image id of each photograph of a model, by its name in the atlas."""
    poses = storage.read_table(atlas.path(layout.POSES), ["image_id", "name", "model"])
    mine = poses.filter(pc.equal(poses["model"], model))
    return dict(zip(mine["name"].to_pylist(), mine["image_id"].to_pylist(), strict=True))


def _pair(first: str, second: str, matches: Matches, inliers: Matches) -> MatchedPair:
    """A pair in the order of the names."""
    if second < first:
        return _pair(second, first, matches[:, ::-1], inliers[:, ::-1])
    order = np.argsort(matches[:, 0], kind="stable")
    matches = matches[order]
    # One to one: the keypoint of the first photograph names the match.
    return MatchedPair(first, second, matches, np.isin(matches[:, 0], inliers[:, 0]))


def _rows(cell: pa.Scalar) -> Matches:
    flat = cell.values.flatten() if len(cell.values) else pa.array([], pa.uint32())
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.uint32).reshape(-1, 2)


def _check(root: str, name: str, features: LocalFeatures, image: pycolmap.Image) -> None:
    inside = np.array([point.xy for point in image.points2D], np.float64).reshape(-1, 2)
    first = inside[: len(features)]
    if len(first) < len(features) or np.abs(first - features.keypoints[:, :2]).max() > _OFF_PX:
        raise UserError(
            f"{root}: the keypoints of {name} are not those of the model: its features were made "
            "anew since. Run the same `vladmap build` again"
        )
