"""The pages of an evaluation: its figures and plots, and its failures side by side."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup
from PIL import Image

from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.files import read_photo
from vladmap.reporting import number_formats as formats
from vladmap.schemas.rejects import PhotoError

MAX_FAILURES = 100
"""Failures on the page, the most certain of their wrong match first; queries.csv has them all."""

_HERE = Path(__file__).parent
_THUMBNAIL_LONG_SIDE = 320
# Pages are opened from disk: nothing but pictures beside them is ever fetched.
_POLICY = "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; base-uri 'none'"


@dataclass(frozen=True)
class RecallRow:
    """A line of the table; shares are 0 to 1, of all `queries` or of those with a positive."""

    name: str
    queries: int
    with_positive: int
    recall: dict[int, float]
    recall_with_positive: dict[int, float]
    mean_average_precision: float


@dataclass(frozen=True)
class Failure:
    """A query whose best match is wrong, and a right one; `right_rank` counts from 1, 0: none."""

    query: Path
    wrong: Path
    right: Path
    condition: str
    wrong_distance_m: float | None
    right_rank: int


@dataclass(frozen=True)
class Evaluation:
    """What the pages show. `facts` are names and values, `notes` sentences.

    `failures` may be more than MAX_FAILURES.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    rows: Sequence[RecallRow]
    failures: Sequence[Failure]


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `index.html`, `failures.html` and their thumbnails; the plots lie beside them.

    The same evaluation gives the same bytes. A photograph that cannot be read has no picture.
    """
    thumbnails = folder / "thumbnails"
    thumbnails.mkdir(parents=True, exist_ok=True)
    for stale in thumbnails.glob("*.jpg"):
        stale.unlink()
    shown = evaluation.failures[:MAX_FAILURES]
    pictures = {
        path: _thumbnail(path, thumbnails)
        for failure in shown
        for path in (failure.query, failure.wrong, failure.right)
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    for name in ("count", "share", "metres"):
        environment.filters[name] = getattr(formats, name)
    css = (_HERE / "static" / "report.css").read_text(encoding="utf-8")
    css += (_HERE / "static" / "evaluation.css").read_text(encoding="utf-8")
    for page in ("index", "failures"):
        template = environment.get_template(f"evaluation_{page}.html.j2")
        text = template.render(
            evaluation=evaluation,
            shown=shown,
            pictures=pictures,
            ranks=sorted(evaluation.rows[0].recall),
            policy=_POLICY,
            css=Markup(css),
        )
        (folder / f"{page}.html").write_bytes(text.encode("utf-8", "replace"))


def _thumbnail(path: Path, folder: Path) -> str | None:
    """The address of a small picture of a photograph, relative to the pages."""
    try:
        pixels = decode_rgb(read_photo(path), target=_small)
    except (OSError, PhotoError):
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    data = buffer.getvalue()
    name = f"{hashlib.blake2b(data, digest_size=8).hexdigest()}.jpg"
    (folder / name).write_bytes(data)
    return f"{folder.name}/{name}"


def _small(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _THUMBNAIL_LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
