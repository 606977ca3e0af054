"""How fast a worker is at each step of a build, and how many bytes each step leaves on disk.

Rates come from a file (TOML or JSON), from what an atlas remembers of its own runs, or from a build
of a few photographs. pipeline/estimate.py makes hours and bytes of them.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vladmap.atlas import storage
from vladmap.console.suggest import did_you_mean
from vladmap.pipeline.options import BuildOptions, precision_of
from vladmap.pipeline.stages import STAGES
from vladmap.retrieval.names import BY_PATCHES
from vladmap.schemas.rejects import UserError

_SHIPPED = Path(__file__).parent / "rate_files"
DEFAULT = "two-cores"
"""The rates that ship of a small machine without a GPU: they stand in where nothing is known."""

EACH_IMAGE = ("images", "features", "tiles", "model")
EACH_PAIR = ("pairs", "two_views")
EACH_NUMBER = ("descriptors", "index", "work")
"""Folders of an atlas by what their size is proportional to; the last to numbers of descriptors."""

_PATCHES = "patches"
"""In a condition beside the options: whether images are described with patches."""

MADE_BY = {
    "images": "ingest",
    "features": "features",
    "tiles": "reconstruct",
    "model": "merge",
    "pairs": "pair",
    "two_views": "verify",
    "descriptors": "describe",
    "index": "merge index",
    "work": "index",
}
"""Titles of the steps that write these folders, or most of them."""

_KEYS = {"source", "start_s", "rate", "bytes", "most"}
_RATE_KEYS = {"step", "seconds", "per_second", "size", "when"}


@dataclass(frozen=True)
class Rate:
    """Seconds that one worker takes for one unit of a step, measured at one `size`.

    The unit is the step's, but for `reconstruct`, where it is an image and `size` the images of a
    tile; elsewhere `size` is the bytes of a photograph's file. None: it was not noted.
    """

    step: str
    seconds: float
    size: float | None = None


@dataclass(frozen=True)
class Rates:
    """Rates of one worker, and bytes on disk, as one `source` knows them.

    `bytes` has for folders of the atlas bytes an image (EACH_IMAGE), a pair (EACH_PAIR) or a number
    of all descriptors (EACH_NUMBER), on average; `most` those of the shard that had most of them,
    where several were seen. `start_s` are the seconds that each of a build's pipelines
    takes until its workers work.
    """

    source: str
    rates: tuple[Rate, ...] = ()
    bytes: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    start_s: float = 0.0

    def of(self, step: str) -> list[Rate]:
        """The rates of a step, the smallest size first."""
        return sorted(
            (rate for rate in self.rates if rate.step == step), key=lambda rate: rate.size or 0
        )

    def to_json(self) -> dict[str, Any]:
        """What `read_rates` reads back, from JSON."""
        found = [
            {name: value for name, value in asdict(rate).items() if value is not None}
            for rate in self.rates
        ]
        return {
            "source": self.source,
            "start_s": self.start_s,
            "rate": found,
            "bytes": dict(self.bytes),
            "most": dict(self.most),
        }


def at_size(points: Sequence[Rate], size: float) -> float:
    """Seconds a unit at `size`: on the straight line through two points, both axes logarithmic.

    Beyond the first and the last point the line goes on. One point alone, or points without a size,
    hold for every size. Raises ValueError without points.
    """
    sized = [(rate.size, rate.seconds) for rate in points if rate.size]
    if len(sized) < 2 or size <= 0:
        return min(rate.seconds for rate in points)
    at = next((n for n, (end, _) in enumerate(sized) if end >= size), len(sized) - 1)
    (low, slow), (high, fast) = sized[max(0, at - 1)], sized[max(1, at)]
    slope = math.log(fast / slow) / math.log(high / low)
    return float(slow * (size / low) ** slope)


def shipped_names() -> list[str]:
    """Names of the rates that come with vladmap."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def read_rates(name: str, options: BuildOptions) -> Rates:
    """Rates of a file, or of those that ship, by name; only those that hold for `options`.

    Raises UserError for a file that cannot be read or holds something else.
    """
    if name in shipped_names():
        path, data = name, (_SHIPPED / f"{name}.toml").read_bytes()
    else:
        path = name
        try:
            data = storage.read_bytes(name)
        except OSError as error:
            known = ", ".join(shipped_names())
            raise UserError(
                f"--rates {name}: {error.strerror or error} (those that ship: {known})"
            ) from error
    try:
        text = data.decode()
        content = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--rates {path} is neither TOML nor JSON: {error}") from error
    return _checked(f"--rates {path}", content, options)


def _checked(at: str, content: Any, options: BuildOptions) -> Rates:
    if not isinstance(content, dict):
        raise UserError(f"{at}: expected a table of rates")
    _known(at, content, _KEYS)
    source = content.get("source")
    if not isinstance(source, str) or not source:
        raise UserError(f"{at}: `source` must say in words where the rates were measured")
    entries, folders = content.get("rate", []), content.get("bytes", {})
    most = content.get("most", {})
    if not (isinstance(entries, list) and isinstance(folders, dict) and isinstance(most, dict)):
        raise UserError(f"{at}: `rate` is a list of tables, `bytes` and `most` are one table each")
    _known(f"{at}, bytes", folders, {*EACH_IMAGE, *EACH_PAIR, *EACH_NUMBER})
    _known(f"{at}, most", most, set(folders))
    rates = tuple(
        rate for entry in entries if (rate := _rate(f"{at}, rate", entry, options)) is not None
    )
    points = [(rate.step, rate.size) for rate in rates]
    for step, size in points:
        if points.count((step, size)) > 1:
            raise UserError(f"{at}: {step} has two rates of one size, under the same options")
    return Rates(
        source,
        rates,
        {name: _number(f"{at}, bytes: {name}", value) for name, value in folders.items()},
        {name: _number(f"{at}, most: {name}", value) for name, value in most.items()},
        _number(f"{at}: start_s", content.get("start_s", 0.0)),
    )


def _rate(at: str, entry: Any, options: BuildOptions) -> Rate | None:
    """The rate of one table; None where its conditions do not hold for the options."""
    if not isinstance(entry, dict):
        raise UserError(f"{at}: a rate is a table")
    _known(at, entry, _RATE_KEYS)
    titles = [step.title for stage in STAGES.values() for step in stage.steps]
    step = entry.get("step")
    if step not in titles:
        raise UserError(f"{at}: unknown step {step!r}{did_you_mean(str(step), titles)}")
    at = f"{at} of {step}"
    if ("seconds" in entry) == ("per_second" in entry):
        raise UserError(f"{at}: give either `seconds` or `per_second`")
    if "seconds" in entry:
        seconds = _number(f"{at}: seconds", entry["seconds"], above=True)
    else:
        seconds = 1.0 / _number(f"{at}: per_second", entry["per_second"], above=True)
    size = _number(f"{at}: size", entry["size"], above=True) if "size" in entry else None
    when = entry.get("when", {})
    if not isinstance(when, dict):
        raise UserError(f"{at}: `when` is a table of options")
    known = {
        **vars(options),
        "precision": precision_of(options),
        _PATCHES: options.rerank in BY_PATCHES,
    }
    _known(f"{at}, when", when, set(known))
    holds = all(
        known[name] in (value if isinstance(value, list) else [value])
        for name, value in when.items()
    )
    return Rate(step, seconds, size) if holds else None


def _known(at: str, content: Mapping[str, Any], names: set[str]) -> None:
    for name in content:
        if name not in names:
            raise UserError(f"{at}: unknown key {name!r}{did_you_mean(name, sorted(names))}")


def _number(at: str, value: Any, *, above: bool = False) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < 0 or (above and value == 0):
        least = "more than 0" if above else "at least 0"
        raise UserError(f"{at} must be a number {least}, not {value!r}")
    return float(value)
