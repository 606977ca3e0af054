"""`vladmap route`: from one place to another along the photographs of a map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vladmap.console.numbers import real
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words

_EPILOG = """\
The roads are those that were driven: photographs that follow each other in a drive, and drives
joined where a trusted pair says that two photographs show the same surface from nearly the same
place. Nothing leads across a jump in time or space, or through a photograph that must not be used
(doubt in poses.parquet). Streets may be taken in both directions.

--by quality takes the way on which one is localised best: metres times the predicted error of the
photographs on them.

OUTPUT/route.geojson has the line and a point for each instruction with its photograph,
OUTPUT/route.gpx the track and the same instructions as route points.

examples:
  vladmap route --atlas atlas --from 48.2082,16.3738 --to 48.2101,16.3702 --output way
  vladmap route --atlas atlas --from drive-0/000012.jpg --to drive-2/000140.jpg --by quality
"""
_PLACES = ("--from", "--to")


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "route",
        "Find the way from one place to another along the photographs of a map.",
        epilog=_EPILOG,
        json_help="print the route as a JSON object",
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    for flag, what in zip(_PLACES, ("start", "end"), strict=True):
        options.add_argument(
            flag, dest=what, required=True, metavar="PLACE",
            help="LAT,LON in degrees, or the path or image_id of a photograph",
        )  # fmt: skip
    options.add_argument(
        "--by", default="length", choices=("length", "quality"),
        help="what the route is shortest by (default: length)",
    )  # fmt: skip
    options.add_argument(
        "--reach-m", type=real(0, 100_000), default=50.0, metavar="M",
        help="how far a place may be from the nearest photograph (default: 50)",
    )  # fmt: skip
    options.add_argument(
        "--output", type=Path, metavar="DIR",
        help="a new folder, or an empty one, for route.geojson and route.gpx",
    )  # fmt: skip
    return options


def find(
    atlas: str, start: str, end: str, by: str, reach_m: float, output: Path | None, *, as_json: bool
) -> None:
    """Find a route, write its files and print it."""
    from vladmap.atlas.routing import route
    from vladmap.exports.route_files import write_route
    from vladmap.mapping.routes import WORDS

    found = route(atlas, start, end, by, reach_m)
    files = [] if output is None else write_route(found, output)
    facts = found.facts()
    if as_json:
        print(json.dumps({**facts, "files": [str(path) for path in files]}, indent=1), flush=True)
        return
    error = facts["predicted_error_mean_m"]
    known = "" if error is None else f", predicted error {error:.2f} m on average"
    print(f"{found.length_m:,.0f} m along {len(found.rows):,} photographs{known}")
    for told in facts["instructions"]:
        print(f"{told['at_m']:8,.0f} m  {WORDS[told['action']]:<12} {told['name']}")
    left_out = found.graph.without_place, found.graph.doubtful
    if any(left_out):
        print(
            f"not used: {left_out[0]:,} photographs without a place, {left_out[1]:,} that must not "
            "be used"
        )
    for path in files:
        print(path)


def joined(arguments: Sequence[str]) -> list[str]:
    """The words of a command line, with each place joined to its flag: one may begin with `-`."""
    left, found = list(arguments), []
    while left:
        word = left.pop(0)
        found.append(f"{word}={left.pop(0)}" if word in _PLACES and left else word)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Find a route; returns the exit code."""
    parsed = command_line().parse_args(joined(words(argv)))

    def work() -> int:
        find(
            parsed.atlas, parsed.start, parsed.end, parsed.by, parsed.reach_m, parsed.output,
            as_json=parsed.json,
        )  # fmt: skip
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
