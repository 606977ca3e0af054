"""A page of localised photographs, each beside a photograph of the atlas of the same place."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

_HERE = Path(__file__).resolve().parent
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
_MOST_LINES = 60
"""Lines drawn between two pictures; of more inliers, so many spread evenly."""
_GAP = 8  # pixels between the pictures


@dataclass(frozen=True)
class Shown:
    """A localised photograph for people.

    `told` is what was found, in words, `status` pose, place or unknown. `query` and `place` are
    (H, W, 3) uint8 pixels, None where there is no picture; `lines` (k, 4) are inliers: x, y in the
    query, x, y in the photograph of the place, as shares of their widths and heights.
    """

    name: str
    status: str
    told: str
    query: NDArray[np.uint8] | None
    place_name: str | None = None
    place: NDArray[np.uint8] | None = None
    lines: NDArray[np.float64] | None = None


def write_localised(path: Path, atlas: str, told: Sequence[str], shown: Sequence[Shown]) -> None:
    """Write the page, one HTML file that opens from disk; `told` are lines on all of them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    page = environment.get_template("localised.html.j2").render(
        atlas=atlas,
        told=told,
        shown=[_drawn(each) for each in shown],
        policy=_POLICY,
        css=Markup((_HERE / "static" / "report.css").read_text(encoding="utf-8")),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.encode("utf-8", "replace"))


def _drawn(shown: Shown) -> dict[str, object]:
    """The two pictures side by side at one height, in one drawing with the lines between them."""
    pictures = [each for each in (shown.query, shown.place) if each is not None]
    height = max((each.shape[0] for each in pictures), default=0)
    placed, left = [], 0.0
    for each in pictures:
        width = each.shape[1] * height / each.shape[0]
        placed.append({"uri": _data_uri(each), "x": round(left, 1), "width": round(width, 1)})
        left += width + _GAP
    lines: list[list[float]] = []
    if len(pictures) == 2 and shown.lines is not None and len(shown.lines):
        count = min(len(shown.lines), _MOST_LINES)
        chosen = shown.lines[np.linspace(0, len(shown.lines) - 1, count).round().astype(int)]
        widths = np.array([placed[0]["width"], height, placed[1]["width"], height], float)
        ends = chosen * widths + np.array([0.0, 0.0, placed[1]["x"], 0.0])
        lines = ends.round(1).tolist()
    return {
        "name": shown.name,
        "status": shown.status,
        "told": shown.told,
        "place_name": shown.place_name,
        "pictures": placed,
        "lines": lines,
        "width": round(max(0.0, left - _GAP), 1),
        "height": height,
    }


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
