"""What localisation says of photographs: the table `localisations`, and its words."""

from __future__ import annotations

import enum

import pyarrow as pa

from vladmap.schemas.fields import field, table
from vladmap.schemas.tables import IMAGES


class LocalisationStatus(enum.StrEnum):
    """How much is told of a photograph.

    `pose`: where its camera was and how it was turned. `place`: which photograph of the atlas shows
    the same place, and no more. `unknown`: neither can be told right from wrong.
    """

    POSE = "pose"
    PLACE = "place"
    UNKNOWN = "unknown"


class LocalisationReason(enum.StrEnum):
    """Why a photograph has no pose, in the order in which it can fail.

    `rejected`: it cannot be used, see `detail`. `panorama`: it is not the picture of one lens.
    `no_map`: the atlas has no map. `none_near`: the atlas has no photograph within reach of its
    GPS. `no_features`: it shows nothing to be matched. `few_inliers`: too few of its keypoints show
    points of the map in one pose. `ambiguous`: another place of the map explains nearly as many.
    `partly_explained`: a part of the picture fits the map, the rest does not: a place that looks
    alike, or a changed one. `loose`: the points do not hold the position. `far_from_gps`: the pose
    lies out of reach of its GPS.
    """

    REJECTED = "rejected"
    PANORAMA = "panorama"
    NO_MAP = "no_map"
    NONE_NEAR = "none_near"
    NO_FEATURES = "no_features"
    FEW_INLIERS = "few_inliers"
    AMBIGUOUS = "ambiguous"
    PARTLY_EXPLAINED = "partly_explained"
    LOOSE = "loose"
    FAR_FROM_GPS = "far_from_gps"


LOCALISATIONS = table(
    "localisations",
    [
        field("image_id", pa.string(), note="BLAKE2b-128, hex, of the path among the queries"),
        field("name", pa.string(), note="relative to the queries' folder"),
        field("uri", pa.string(), note="where it was read; absolute"),
        field("status", pa.string(), note="pose, place or unknown"),
        field("reason", pa.string(), nullable=True, note="why it has no pose; null where it has"),
        field("detail", pa.string(), nullable=True, note="the reason in words"),
        field("latitude", pa.float64(), "degree", nullable=True, note="WGS84, of the camera"),
        field("longitude", pa.float64(), "degree", nullable=True, note="WGS84"),
        field("altitude", pa.float64(), "m", nullable=True, note="in the height system of the map"),
        field(
            "heading_deg",
            pa.float64(),
            "degree",
            nullable=True,
            note="direction of view, clockwise from true north, 0 to 360",
        ),
        *(
            field(
                name,
                pa.float64(),
                nullable=True,
                note="rotation of camera_from_enu, at the model's origin" if name == "qw" else "",
            )
            for name in ("qw", "qx", "qy", "qz")
        ),
        field(
            "covariance_m2",
            pa.list_(pa.float64()),
            "m2",
            nullable=True,
            note="3 x 3, row-major, of east, north, up: what noise of keypoints does",
        ),
        field("sigma_m", pa.float64(), "m", nullable=True, note="root of the covariance's trace"),
        field("inliers", pa.int32(), note="keypoints that show points of the map in the pose"),
        field("matched", pa.int32(), note="keypoints that may show points of the map"),
        field(
            "rival_inliers",
            pa.int32(),
            nullable=True,
            note="inliers of the best pose elsewhere; null where there is none",
        ),
        field(
            "explained_share",
            pa.float64(),
            nullable=True,
            note="see localisation.evidence: of the picture's parts in which the map has points to "
            "show, those in which it does",
        ),
        field("reprojection_error_px", pa.float64(), "px", nullable=True, note="median of inliers"),
        field("focal_px", pa.float64(), "px", nullable=True, note="that was used or found"),
        field("camera_source", pa.string(), nullable=True, note="atlas, exif or estimated"),
        field("map_model", pa.int32(), nullable=True, note="the folder under model/ of the atlas"),
        field("place", pa.string(), nullable=True, note="image_id of the photograph of the atlas"),
        field("place_name", pa.string(), nullable=True),
        field("place_rank", pa.int32(), nullable=True, note="by descriptor, 0 is the most alike"),
        field("place_similarity", pa.float64(), "cosine", nullable=True),
        field("place_inliers", pa.int32(), nullable=True, note="of the geometry with it"),
        field("place_latitude", pa.float64(), "degree", nullable=True),
        field("place_longitude", pa.float64(), "degree", nullable=True),
        IMAGES.field("geometry"),
        IMAGES.field("bbox"),
    ],
)
