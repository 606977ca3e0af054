"""Arrow schemas of every table in an atlas. Units are in the field metadata under `unit`.

Only nullable fields may be null. Angles are in degrees, lengths in metres, times in UTC, image
coordinates in pixels with COLMAP's origin (the upper-left corner of the upper-left pixel, whose
centre is at 0.5, 0.5).

The files of `images/`, `descriptors/`, `patches/` and `features/` lie in folders `cell=<h3>`. The
column `cell` is in the path alone: programs that read such folders give it different types, and
refuse files in which the column has another type than theirs.
"""

from __future__ import annotations

import pyarrow as pa

from vladmap.schemas.fields import field as _field
from vladmap.schemas.fields import table as _schema

_TIMESTAMP = pa.timestamp("us", tz="UTC")

_NAME = _field(
    "name",
    pa.string(),
    note="relative to the collection; the image name of COLMAP models. Of a photograph outside the"
    " folder of its manifest, the uri",
)
_GEOMETRY = _field(
    "geometry",
    pa.binary(),
    nullable=True,
    note="WKB point, OGC:CRS84; its z is the altitude, where that is known",
)
_BBOX = _field(
    "bbox",
    pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")]),
    "degree",
    nullable=True,
    note="GeoParquet's covering of the geometry, by which readers leave out what lies elsewhere",
)

IMAGES = _schema(
    "images",
    [
        _field("image_id", pa.string(), note="BLAKE2b-128, hex, of the collection-relative path"),
        _NAME,
        _field("uri", pa.string(), note="where it was read; absolute"),
        _field("content_hash", pa.string(), note="BLAKE2b-128 of the file's bytes, hex"),
        _field("width", pa.int32(), "px", note="after EXIF orientation"),
        _field("height", pa.int32(), "px", note="after EXIF orientation"),
        _field("make", pa.string(), nullable=True, note="of the camera"),
        _field("model", pa.string(), nullable=True, note="of the camera"),
        _field(
            "focal_px",
            pa.float64(),
            "px",
            nullable=True,
            note="focal length at this size, by the sensor's sampling or the 35 mm equivalent",
        ),
        _field(
            "projection",
            pa.string(),
            note="perspective (one lens, fisheye or not), equirectangular, cylindrical or unknown;"
            " only perspective is mapped",
        ),
        _field("captured_at", _TIMESTAMP, "UTC", nullable=True, note="see time_source"),
        _field(
            "captured_local",
            pa.timestamp("us"),
            nullable=True,
            note="what the camera's clock showed, in a zone of its own",
        ),
        _field(
            "time_source",
            pa.string(),
            nullable=True,
            note="where captured_at came from: offset, gps_zone, gps, mapillary, manifest,"
            " neighbours or assumed_utc",
        ),
        _field("latitude", pa.float64(), "degree", nullable=True, note="WGS84"),
        _field("longitude", pa.float64(), "degree", nullable=True, note="WGS84, -180 to 180"),
        _field("altitude", pa.float64(), "m", nullable=True, note="as the camera wrote it"),
        _field("gps_accuracy_m", pa.float64(), "m", nullable=True, note="one sigma, horizontal"),
        _field(
            "heading_deg",
            pa.float64(),
            "degree",
            nullable=True,
            note="direction of view, clockwise from true north, or from magnetic north where only"
            " that is written; 0 to 360",
        ),
        _field("sequence_id", pa.string(), nullable=True, note="of the drive: given, or found"),
        _field("sequence_index", pa.int32(), nullable=True, note="place in the drive, from 0"),
        _field("duplicate_of", pa.string(), nullable=True, note="image_id with the same bytes"),
        _field("sharpness", pa.float64(), "grey level^2", note="variance of the Laplacian"),
        _GEOMETRY,
        _BBOX,
    ],
)

REJECTS = _schema(
    "rejects",
    [
        _field("uri", pa.string(), note="where it was read, or should have been; absolute"),
        _field("image_id", pa.string()),
        _field("stage", pa.string(), note="that could not use it"),
        _field("reason", pa.string(), note="schemas.rejects.RejectReason"),
        _field("detail", pa.string(), note="the reason in words"),
    ],
)

UNREGISTERED = _schema(
    "unregistered",
    [
        _field("image_id", pa.string()),
        _NAME,
        _field("uri", pa.string(), note="where it was read, or should have been; absolute"),
        _field("stage", pa.string(), note="the stage in which it fell out"),
        _field("reason", pa.string(), note="schemas.rejects.UnregisteredReason"),
        _field("detail", pa.string()),
        _field("latitude", pa.float64(), "degree", nullable=True, note="WGS84, of its GPS"),
        _field("longitude", pa.float64(), "degree", nullable=True, note="WGS84, of its GPS"),
        _field("altitude", pa.float64(), "m", nullable=True, note="as the camera wrote it"),
        _GEOMETRY,
        _BBOX,
    ],
)

PAIRS = _schema(
    "pairs",
    [
        _field("image_id_a", pa.string(), note="image_id_a < image_id_b"),
        _field("image_id_b", pa.string()),
        _field("sources", pa.list_(pa.string()), note="of near, global, sequence; sorted"),
        _field("similarity", pa.float32(), "cosine", note="of the two descriptors"),
        _field("rank", pa.int32(), note="best rank by descriptor, 0 is the best", nullable=True),
        _field(
            "patch_score",
            pa.float32(),
            nullable=True,
            note="where it was re-ranked, larger is better: inliers of the fundamental matrix of "
            "local features; of patches the rapid score, or the share of a homography's inliers",
        ),
        _field("gps_distance_m", pa.float64(), "m", nullable=True, note="null without both GPS"),
    ],
)

_MATCHES = pa.list_(pa.list_(pa.uint32(), 2))
# Nine numbers. Not a fixed-size list: some Parquet readers fail on nulls in those.
_MATRIX = pa.list_(pa.float64())

TWO_VIEWS = _schema(
    "two_views",
    [
        _field("image_id_a", pa.string(), note="image_id_a < image_id_b"),
        _field("image_id_b", pa.string()),
        _field("configuration", pa.string(), note="COLMAP's two-view configuration"),
        _field("matches", _MATCHES, note="keypoint indices of a and b"),
        _field("inliers", _MATCHES, note="the matches that the geometry explains"),
        _field("fundamental", _MATRIX, nullable=True, note="3x3, row-major; x_b^T F x_a = 0"),
        _field("essential", _MATRIX, nullable=True, note="3x3, row-major"),
        _field("homography", _MATRIX, nullable=True, note="3x3, row-major"),
        _field("qw", pa.float64(), nullable=True, note="rotation of b_from_a"),
        _field("qx", pa.float64(), nullable=True),
        _field("qy", pa.float64(), nullable=True),
        _field("qz", pa.float64(), nullable=True),
        _field("tx", pa.float64(), nullable=True, note="translation of b_from_a, unit length"),
        _field("ty", pa.float64(), nullable=True),
        _field("tz", pa.float64(), nullable=True),
        _field(
            "verdict",
            pa.string(),
            nullable=True,
            note="kept: trusted, the map is made from it; else why not (mapping.judging.VERDICTS)."
            " Null until reconstruct has judged it, and of a pair that is not verified",
        ),
        _field(
            "probability",
            pa.float32(),
            nullable=True,
            note="that both see the same surface; null where no pose graph holds both",
        ),
        _field(
            "distance_m",
            pa.float32(),
            "m",
            nullable=True,
            note="between the photographs, in the pose graph; where none holds both, by GPS and"
            " drives",
        ),
        _field(
            "fit_share",
            pa.float32(),
            nullable=True,
            note="of its inliers, within 4 px of the epipolar lines of the pose graph",
        ),
        _field(
            "depth_agreement",
            pa.float32(),
            nullable=True,
            note="0 to 1: share of the other pairs of its keypoints that see them as far away",
        ),
        _field("depth_compared", pa.int32(), nullable=True, note="how many pairs that is of"),
        _field(
            "depth_usual",
            pa.float32(),
            nullable=True,
            note="share of its inliers that lie where the depths by other pairs put them",
        ),
    ],
)

JUDGEMENT = (
    "verdict", "probability", "distance_m", "fit_share", "depth_agreement", "depth_compared",
    "depth_usual",
)  # fmt: skip
"""The columns of TWO_VIEWS that say what is thought of a pair: null until all are judged."""

POSES = _schema(
    "poses",
    [
        _field("image_id", pa.string()),
        _NAME,
        _field("uri", pa.string(), note="where it was read; absolute"),
        _field("model", pa.int32(), note="the folder under model/"),
        _field(
            "latitude",
            pa.float64(),
            "degree",
            nullable=True,
            note="WGS84, of the projection centre; null where GPS placed no model",
        ),
        _field("longitude", pa.float64(), "degree", nullable=True, note="WGS84"),
        _field(
            "altitude",
            pa.float64(),
            "m",
            nullable=True,
            note="in the height system of the GPS tags",
        ),
        _field("qw", pa.float64(), note="rotation of camera_from_enu, at the model's origin"),
        _field("qx", pa.float64()),
        _field("qy", pa.float64()),
        _field("qz", pa.float64()),
        _field("points", pa.int32(), note="triangulated keypoints"),
        _field("reprojection_error_px", pa.float64(), "px", note="mean over its points"),
        _field(
            "predicted_error_m",
            pa.float64(),
            "m",
            nullable=True,
            note="of the position within its model, as far as its observations tell; null where GPS"
            " placed no model, or nothing holds it",
        ),
        _field(
            "doubt",
            pa.string(),
            nullable=True,
            note="why it must not be used, schemas.rejects.PoseDoubt; null where nothing speaks"
            " against it",
        ),
        _GEOMETRY,
        _BBOX,
    ],
)

QUALITY = ("predicted_error_m", "doubt")
"""The columns of POSES that say how good a pose is: older versions wrote none."""

COVERAGE = _schema(
    "coverage",
    [
        _field("cell", pa.string(), note="H3; `none` for photographs without a position"),
        _field("images", pa.int64(), note="photographs in images/"),
        _field("registered", pa.int64(), note="those of them with a row in poses.parquet"),
        _field(
            "rejected",
            pa.int64(),
            note="photographs in rejects/; those that ingest rejected count in `none`",
        ),
        _field("first_captured_at", _TIMESTAMP, "UTC", nullable=True),
        _field("last_captured_at", _TIMESTAMP, "UTC", nullable=True),
        _field(
            "reprojection_error_px",
            pa.float64(),
            "px",
            nullable=True,
            note="median over the registered of each one's mean; null where none is",
        ),
        _field("geometry", pa.binary(), nullable=True, note="WKB outline of the cell, OGC:CRS84"),
    ],
)

INDEX_IDS = _schema(
    "index_ids",
    [
        _field("id", pa.int64(), note="the id that FAISS returns"),
        _field("image_id", pa.string()),
    ],
)


def descriptors(dimension: int, model: str, fingerprint: str) -> pa.Schema:
    """Schema of a descriptor table: unit-norm float32 rows of `dimension` numbers."""
    return _schema(
        "descriptors",
        [
            _field("image_id", pa.string()),
            _field("descriptor", pa.list_(pa.float32(), dimension), note="unit L2 norm"),
        ],
        **{
            "vladmap:model": model,
            "vladmap:dimension": str(dimension),
            "vladmap:model_fingerprint": fingerprint,
        },
    )


def patches(model: str, fingerprint: str, dimension: int, size: int, stride: int) -> pa.Schema:
    """Schema of a patch table: one row an image, with its patches of `size` cells in row order.

    `descriptors` holds int8 numbers as bytes: Parquet has no one-byte type, and writing a list took
    fifteen times as long. A patch's descriptor is its `dimension` numbers times its entry of
    `scales`. The centre of the patch in row r, column c is at stride_px * (c + patch_size / 2) -
    0.5 pixels in x, and likewise in y, in the image at the model's input size with the centre of
    the first pixel at 0.
    """
    return _schema(
        "patches",
        [
            _field("image_id", pa.string()),
            _field("rows", pa.int32(), note="of the grid of patches"),
            _field("columns", pa.int32()),
            _field("descriptors", pa.large_binary(), note="int8, rows * columns * dimension"),
            _field("scales", pa.list_(pa.float32()), note="rows * columns"),
        ],
        **{
            "vladmap:model": model,
            "vladmap:model_fingerprint": fingerprint,
            "vladmap:dimension": str(dimension),
            "vladmap:patch_size": str(size),
            "vladmap:stride_px": str(stride),
        },
    )


def features(detector: str, dimension: int, dtype: pa.DataType) -> pa.Schema:
    """Schema of a local feature table: one row an image, its n keypoints as nested lists."""
    return _schema(
        "features",
        [
            _field("image_id", pa.string()),
            _field("width", pa.int32(), "px"),
            _field("height", pa.int32(), "px"),
            _field(
                "keypoints",
                pa.list_(pa.list_(pa.float32(), 4)),
                "px, px, px, radian",
                note="x, y, scale, orientation in the full-size upright image",
            ),
            _field("descriptors", pa.list_(pa.list_(dtype, dimension))),
        ],
        **{"vladmap:detector": detector, "vladmap:dimension": str(dimension)},
    )
