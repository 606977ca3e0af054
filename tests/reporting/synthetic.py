"""Report data of a made-up collection: a loop through a town, with all that can go wrong."""

from __future__ import annotations

import datetime
import io
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from vladmap.reporting.data import TWO_VIEW_SUMMARY, Match, ReportData, Retrieval
from vladmap.reporting.report import render
from vladmap.schemas import tables

METRES_PER_DEGREE = 111_195.08  # of latitude, on the sphere that the report measures on
HOSTILE = "drive/<script>alert('uri')</script>\"'&{{7*7}}.jpg"


def write_report(data: ReportData, folder: pathlib.Path) -> None:
    """The page as `index.html` of a folder, as a build writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_bytes(render(data).encode("utf-8", "replace"))


def table(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    """A table of the schema; columns not given are null."""
    rows = len(next(iter(columns.values())))
    return pa.table(
        {f.name: pa.array(list(columns.get(f.name, [None] * rows)), f.type) for f in schema},
        schema=pa.schema([f.with_nullable(True) for f in schema]),
    )


def thumbnail(hue: int, number: int) -> bytes:
    """A small JPEG: a street of one hue under a sky."""
    picture = Image.new("RGB", (160, 120), (196, 214, 232))
    draw = ImageDraw.Draw(picture)
    wall = Image.new("HSV", (1, 1), (hue % 256, 90, 190)).convert("RGB").getpixel((0, 0))
    draw.polygon([(0, 10), (70, 50), (70, 70), (0, 105)], fill=wall)
    draw.polygon([(160, 0), (90, 50), (90, 70), (160, 112)], fill=wall)
    draw.polygon([(70, 70), (90, 70), (160, 120), (0, 120)], fill=(92, 94, 98))
    for k in range(4):
        x = 8 + 15 * k + number % 5
        draw.rectangle([x, 40, x + 7, 60], fill=(60, 74, 98))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


def loop_report(
    count: int = 120,
    *,
    centre: tuple[float, float] = (55.7047, 13.1910),
    gps: bool = True,
    unregistered: int = 4,
    rejected: int = 3,
    neighbours: int = 6,
    first_uri: str = HOSTILE,
    title: str = "Sample city",
) -> ReportData:
    """A rectangular loop driven once: `count` images 4 m apart, GPS with 3 m of noise.

    The last `rejected` images have a row among the rejects, the `unregistered` before them are
    merely not registered. One image has no position. Two rejects were never read.
    """
    random = np.random.default_rng(0)
    side = count / 4
    step = np.arange(count)
    leg, along = step // max(side, 1), step % max(side, 1)
    ways = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 0]])
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * side
    metres = 4.0 * (corners[leg.astype(int)] + along[:, None] * ways[leg.astype(int)])
    heading = np.array([90.0, 0.0, 270.0, 180.0, 90.0])[leg.astype(int)]
    per_degree = METRES_PER_DEGREE * np.array([np.cos(np.radians(centre[0])), 1.0])
    true_lon, true_lat = (metres / per_degree + [centre[1], centre[0]]).T
    true_lon = (true_lon + 180) % 360 - 180
    noise = random.normal(0, 3, (count, 2)) / per_degree
    lon, lat = (true_lon + noise[:, 0] + 180) % 360 - 180, true_lat + noise[:, 1]
    ids = [f"{i:032x}" for i in range(count)]
    uris = [f"drive/IMG_{i:04d}.jpg" for i in range(count)]
    uris[0] = first_uri
    placed = np.full(count, gps)
    if count > 20:
        placed[17] = False
    start = datetime.datetime(2024, 5, 14, 9, 0, tzinfo=datetime.UTC)
    images = table(
        tables.IMAGES,
        {
            "image_id": ids,
            "name": uris,
            "uri": [f"/photos/{name}" for name in uris],
            "content_hash": ids,
            "width": [640] * count,
            "height": [480] * count,
            "projection": ["perspective"] * count,
            "captured_at": [start + datetime.timedelta(seconds=int(i)) for i in step],
            "latitude": [float(v) if ok else None for v, ok in zip(lat, placed, strict=True)],
            "longitude": [float(v) if ok else None for v, ok in zip(lon, placed, strict=True)],
            "heading_deg": heading if gps else [None] * count,
            "sequence_id": [f"drive-{int(v) % 2}" for v in leg],
            "sequence_index": step,
            "sharpness": [120.0] * count,
        },
    )
    mapped = count - unregistered - rejected
    half = np.radians(heading[:mapped]) / 2
    # Level cameras: the optical axis points along the heading. From ENU (east, north, up) a turn
    # about up by the heading, then the camera's axes x right, y down, z ahead.
    level = np.sqrt(0.5)
    placeless = np.full(mapped, np.nan)
    poses = table(
        tables.POSES,
        {
            "image_id": ids[:mapped],
            "name": uris[:mapped],
            "uri": [f"/photos/{name}" for name in uris[:mapped]],
            "model": np.where(leg[:mapped] == 3, 1, 0),
            "latitude": true_lat[:mapped] if gps else placeless,
            "longitude": true_lon[:mapped] if gps else placeless,
            "altitude": np.full(mapped, 30.0) if gps else placeless,
            "qw": level * np.cos(half),
            "qx": level * np.cos(half),
            "qy": -level * np.sin(half),
            "qz": level * np.sin(half),
            "points": random.integers(300, 900, mapped),
            "reprojection_error_px": random.uniform(0.5, 0.9, mapped),
            "predicted_error_m": [0.05 if gps else None] * mapped,
        },
    )
    a, b = (
        np.repeat(step, neighbours),
        (np.repeat(step, neighbours) + np.tile(np.arange(1, neighbours + 1), count)),
    )
    a, b = a[b < count], b[b < count]
    inliers = np.maximum(0, 420 - 70 * (b - a))
    failed = random.random(len(a)) < 0.15
    two_views = pa.table(
        {
            "image_id_a": [ids[i] for i in a],
            "image_id_b": [ids[i] for i in b],
            "inliers": pa.array(np.where(failed, 0, inliers), pa.int32()),
            "configuration": np.where(failed, "DEGENERATE", "CALIBRATED"),
        },
        schema=TWO_VIEW_SUMMARY,
    )
    pairs = table(
        tables.PAIRS,
        {
            "image_id_a": two_views["image_id_a"].to_pylist(),
            "image_id_b": two_views["image_id_b"].to_pylist(),
            "similarity": np.full(len(a), 0.8),
        },
    )
    rejects = [
        ("drive/empty.jpg", "f" * 32, "ingest", "empty_file", "the file has 0 bytes"),
        ("drive/page.jpg", "e" * 32, "ingest", "not_an_image", "it starts like an HTML page"),
    ] + [
        (uris[i], ids[i], "verify", "no_features", "0 keypoints found")
        for i in range(count - rejected, count)
    ]
    missing = list(range(mapped, count))
    rejected_ids = {row[1] for row in rejects}
    table_of_missing = table(
        tables.UNREGISTERED,
        {
            "image_id": [*(ids[i] for i in missing), *(row[1] for row in rejects[:2])],
            "uri": [*(uris[i] for i in missing), *(row[0] for row in rejects[:2])],
            "name": [*(uris[i] for i in missing), *(row[0] for row in rejects[:2])],
            "stage": [*("verify" if ids[i] in rejected_ids else "reconstruct" for i in missing)]
            + ["ingest"] * 2,
            "reason": [
                *("rejected" if ids[i] in rejected_ids else "left_out_by_mapper" for i in missing)
            ]
            + ["rejected"] * 2,
            "detail": ["it says why"] * (len(missing) + 2),
            "latitude": [float(lat[i]) if placed[i] else None for i in missing] + [None] * 2,
            "longitude": [float(lon[i]) if placed[i] else None for i in missing] + [None] * 2,
        },
    )
    positions = np.column_stack([metres, np.zeros(count)])[:mapped] * 0.07
    return ReportData(
        title=title,
        created="2024-05-14 10:00 UTC",
        images=images,
        rejects=pa.table(dict(zip(tables.REJECTS.names, zip(*rejects, strict=True), strict=False)))
        .select(["uri", "image_id"])
        .append_column("stage", pa.array([r[2] for r in rejects]))
        .append_column("reason", pa.array([r[3] for r in rejects]))
        .append_column("detail", pa.array([r[4] for r in rejects])),
        pairs=pairs,
        two_views=two_views,
        poses=poses,
        tiles=[
            {
                "name": "8b1f0-000",
                "images": count,
                "registered": mapped,
                "models": 2,
                "points": 48_211,
                "reprojection_error_px": 0.71,
                "gps_residual_horizontal_median_m": 2.84,
                "predicted_error_median_m": 0.06,
                "doubtful": 1,
                "gps_residual_horizontal_max_m": 9.6,
                "seconds": 84.2,
            },
            {
                "name": "8b1f1-000",
                "images": 6,
                "registered": 0,
                "models": 0,
                "points": 0,
                "seconds": 600.0,
                "failure": "no model within 600 s",
            },
        ],
        merges=[
            {
                "a": "8b1f0-000/0",
                "b": "8b1f0-000/1",
                "merged": False,
                "common_images": 3,
                "residual_median_m": 4.81,
                "residual_max_m": 22.4,
                "turn_median_deg": 1.2,
                "gps_residual_horizontal_before_m": 2.84,
                "gps_residual_horizontal_after_m": 7.9,
                "reason": "GPS residual would rise from 2.84 m to 7.90 m",
            },
            {
                "a": "8b1f0-000/0",
                "b": "8b1f2-000/0",
                "merged": True,
                "common_images": 24,
                "residual_median_m": 0.08,
                "residual_max_m": 0.31,
                "gps_residual_horizontal_before_m": 2.84,
                "gps_residual_horizontal_after_m": 2.82,
            },
        ],
        stages=[
            _stage("ingest", count + 2, 1.9, "cpu"),
            _stage("describe", count, 21.4, "cpu"),
            _stage("index", count, 0.31, "cpu"),
            _stage("pair", len(a), 0.62, "cpu", "pairs"),
            _stage("verify", len(a), 66.0, "cpu", "pairs"),
            _stage("reconstruct", 2, 84.2, "cpu", "tiles"),
            _stage("merge", 2, 3.4, "cpu", "models"),
        ],
        index={
            "model": "netvlad-lite",
            "factory": "Flat",
            "count": count,
            "dimension": 4096,
            "recall": 1.0,
            "recall_at": 10,
        },
        retrievals=_retrievals(ids, count),
        model_positions=None
        if gps
        else pa.table(
            {
                "image_id": ids[:mapped],
                "model": pa.array(np.where(leg[:mapped] == 3, 1, 0), pa.int32()),
                "x": positions[:, 0],
                "y": positions[:, 1],
                "z": positions[:, 2],
            }
        ),
        unregistered=table_of_missing,
        pictures={ids[i]: thumbnail(3 * i, i) for i in missing},
        software={"vladmap": "0.1.0", "pycolmap": "4.2.1", "faiss": "1.15.0"},
    )


def _stage(stage: str, elements: int, seconds: float, device: str, unit: str = "images") -> Any:
    return {
        "stage": stage,
        "elements": elements,
        "reused": 0,
        "seconds": seconds,
        "rate": elements / seconds,
        "device": device,
        "unit": unit,
    }


def _retrievals(ids: list[str], count: int) -> list[Retrieval]:
    queries = np.linspace(0, count - 1, min(10, count)).astype(int)
    retrievals = []
    for query in queries:
        others = [i for i in range(query - 3, query + 5) if 0 <= i < count and i != query][:4]
        others.append((query + count // 2) % count)
        matches = [
            Match(
                ids[i],
                similarity=0.93 - 0.04 * rank,
                gps_distance_m=None if i == 17 else 4.0 * abs(int(i - query)),
                thumbnail=None if rank == 3 else thumbnail(2 * int(i), int(i)),
            )
            for rank, i in enumerate(others)
            if i != query
        ]
        retrievals.append(Retrieval(ids[query], thumbnail(2 * int(query), int(query)), matches))
    return retrievals
