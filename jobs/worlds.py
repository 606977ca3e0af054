"""`vladmap worlds`: rendered cities on many days, to train and evaluate place recognition on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vladmap.console.numbers import real, whole
from vladmap.console.quiet import hidden
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.schemas.rejects import UserError
from vladmap.simulation.names import ALIGNED, CONDITIONS, MOST_SEED, SPLITS

_EPILOG = f"""conditions: {", ".join(CONDITIONS)}

By convention train seeds begin at 0, val at 1000, test at 2000: no world is in two splits. The
command may be repeated: worlds that OUT holds are left as they are.

example:
  vladmap worlds worlds --seeds 0:40 --split train --places 100
  vladmap worlds worlds --seeds 1000:1004 --split val
  vladmap worlds worlds --seeds 2000:2004 --split test --queries day night snow fog viewpoint
  vladmap worlds places --seeds 0:40 --places 100 --every 7 --aligned
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "worlds",
        "Render cities, each seen on many days: OUT/images/SPLIT/{database,queries}/@...@.jpg.",
        epilog=_EPILOG,
    )
    options.add_argument("out", metavar="OUT", type=Path, help="folder to write, made if need be")
    options.add_argument(
        "--seeds", default="0:4", help="worlds, as FIRST:END (END excluded) or 1,5,9 (default: 0:4)"
    )
    options.add_argument("--split", default="train", choices=SPLITS)
    options.add_argument(
        "--places", type=whole(1), default=100, help="database photographs a world (default: 100)"
    )
    options.add_argument(
        "--query-places",
        type=whole(0),
        default=None,
        help="queries a world and condition (default: half of --places)",
    )
    options.add_argument(
        "--conditions", nargs="+", metavar="NAME", help="of the database (default: day)"
    )
    options.add_argument(
        "--queries",
        nargs="+",
        metavar="NAME",
        help="of the queries (default: all)",
    )
    options.add_argument(
        "--size", default="320x240", metavar="WxH", help="pixels (default: 320x240)"
    )
    options.add_argument(
        "--gps-sigma-m",
        type=real(0, 10_000),
        default=None,
        help="GPS noise, one sigma (default: 3 for train and val, 0 for test)",
    )
    options.add_argument(
        "--aligned",
        action="store_true",
        help="a database that shows each place from the very same camera under all --conditions\n"
        "(all by default), and no queries: what `vladmap distil` learns from",
    )
    options.add_argument(
        "--every",
        type=whole(1),
        default=1,
        metavar="N",
        help="keep each N-th place of the database: more streets than photographs (default: 1)",
    )
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options.add_argument(
        "--workers", type=whole(1, 1024), default=None, help="processes (default: a core each)"
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Render the worlds; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from tqdm import tqdm

        from vladmap.simulation.worlds import images_a_world, write_worlds

        seeds = _seeds(parsed.seeds)
        half = parsed.query_places
        half = max(1, parsed.places // 2) if half is None else half
        conditions = parsed.conditions or (list(ALIGNED) if parsed.aligned else ["day"])
        queries = parsed.queries or ([] if parsed.aligned else list(CONDITIONS))
        each = images_a_world(parsed.places, half, conditions, queries, max(1, parsed.every))
        total = max(0, each * len(seeds))
        with tqdm(total=total, desc="worlds", unit=" images", disable=hidden()) as bar:
            try:
                write_worlds(
                    parsed.out,
                    seeds,
                    parsed.split,
                    parsed.places,
                    conditions,
                    queries,
                    query_places=half,
                    size=size_of(parsed.size),
                    gps_sigma_m=parsed.gps_sigma_m,
                    aligned=parsed.aligned,
                    every=parsed.every,
                    device=parsed.device,
                    workers=parsed.workers,
                    progress=bar.update,
                )
            except OSError as error:
                raise UserError(f"{parsed.out} cannot be written: {error}") from error
        where = parsed.out / "images" / parsed.split
        print(f"{len(seeds)} worlds, {total} photographs in {where}")
        return 0

    return guarded(work, log_options(parsed))


def _seeds(text: str) -> list[int]:
    seeds: Sequence[int]
    try:
        if ":" in text:
            first, end = (int(part) for part in text.split(":"))
            seeds = range(first, end)
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds must be FIRST:END or numbers with commas, not {text!r}") from None
    if not seeds or min(seeds[0], seeds[-1]) < 0 or max(seeds[0], seeds[-1]) > MOST_SEED:
        raise UserError(f"--seeds must be from 0 to {MOST_SEED:,}, not {text}")
    return list(seeds)


def size_of(text: str) -> tuple[int, int]:
    """(width, height) in pixels of `WxH`; UserError where the text is none."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UserError(f"--size must be such as 320x240, not {text!r}") from None
    if not (16 <= width <= 16_384 and 16 <= height <= 16_384):
        raise UserError(f"--size must be from 16 to 16,384 pixels a side, not {text}")
    return width, height


if __name__ == "__main__":
    leave(main)
