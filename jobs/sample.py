"""`vladmap sample`: rendered cities with known truth, to try everything on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vladmap.console.numbers import MOST_SEED, real, whole
from vladmap.console.quiet import hidden
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.schemas.rejects import UserError
from vladmap.simulation.names import ALIGNED, CAMERAS, FAULTS, GPS

_EPILOG = f"""a street network (--network): a grid of streets with dead ends, a square and a park.
Drives go through it on different days: tours that come back to where they began, laps round some
blocks, and ways back against the others' direction; each begins where another drove.
OUT/truth_pairs.parquet says which pairs of photographs truly show the same surfaces, and how much
of them.

GPS: good: a metre or two. canyon: besides, most streets have a bias of 10 to 30 m as long as the
street lasts, and there are jumps, 200 m without a position in each kilometre, and wrong headings.

conditions: {", ".join(ALIGNED)}

faults: backwards: the last drive, its photographs in reverse order. borrowed: the last drive, with
the positions of the first. frozen: the first drive, whose GPS stands still for a minute. clocks: a
second camera on the first car, one hour ahead. twice: the last drive again under another name.

example:
  vladmap sample city --images 120 --seed 0
  vladmap sample hard --network --images 1000 --repeated 0.3 --terraces 0.2 --gps canyon
  vladmap sample seasons --network --images 600 --drives 2 --conditions day winter
  vladmap sample apart --network --images 400 --drives 2 --cities 2 --gps none
"""
_NETWORK = {
    "drives": 3,
    "blocks": None,
    "cameras": ["standard"],
    "conditions": ["day"],
    "repeated": 0.0,
    "terraces": 0.0,
    "gps": "good",
    "drives_without_gps": 0,
    "gps_shift_m": 0.0,
    "faults": [],
    "cities": 1,
    "cities_apart_m": 20_000.0,
    "workers": None,
}
_STREET = {"gps_sigma_m": 3.0, "gps_dropout": 0.05, "time_of_day": 10.5, "queries": 0}


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "sample",
        "Render drives through a city: OUT/images/ with EXIF GPS, OUT/truth.parquet.",
        epilog=_EPILOG,
    )
    options.add_argument("out", metavar="OUT", type=Path, help="folder to write, made if need be")
    options.add_argument(
        "--images", type=whole(1), help="photographs (default: 120; with --network: 1000)"
    )
    options.add_argument(
        "--seed", type=whole(0, MOST_SEED), default=0, help="another city (default: 0)"
    )
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    _street_options(options)
    _network_options(options)
    return options


def _street_options(options: Parser) -> None:
    street = options.add_argument_group("loops around blocks (without --network)")
    street.add_argument(
        "--gps-sigma-m", type=real(0, 10_000), help="GPS noise, one sigma (default: 3)"
    )
    street.add_argument("--gps-dropout", type=real(0, 1), help="share without GPS (default: 0.05)")
    street.add_argument(
        "--time-of-day", type=real(0, 24), help="hour of the sun, 0 to 24 (default: 10.5)"
    )
    street.add_argument(
        "--queries", type=whole(0, 1_000_000), metavar="N",
        help="photographs of another day, to be localised, in OUT/queries (default: 0)",
    )  # fmt: skip


def _network_options(options: Parser) -> None:
    network = options.add_argument_group("a street network (with --network)")
    network.add_argument(
        "--network", action="store_true", help="many blocks and drives, and the truth of pairs"
    )
    network.add_argument("--drives", type=whole(1), metavar="N", help="(default: 3)")
    network.add_argument(
        "--blocks", metavar="EASTxNORTH", type=_blocks, help="such as 4x3 (default: as drives need)"
    )
    network.add_argument(
        "--cameras", nargs="+", choices=CAMERAS, metavar="NAME",
        help=f"of the drives in turn: {', '.join(CAMERAS)} (default: standard)",
    )  # fmt: skip
    network.add_argument(
        "--conditions", nargs="+", choices=ALIGNED, metavar="NAME",
        help="of the drives in turn, see below (default: day)",
    )  # fmt: skip
    network.add_argument(
        "--repeated", type=real(0, 1), metavar="SHARE",
        help="of the blocks that have the houses of one of two others (default: 0)",
    )  # fmt: skip
    network.add_argument(
        "--terraces", type=real(0, 1), metavar="SHARE",
        help="of the other rows of houses in which all are alike (default: 0)",
    )  # fmt: skip
    network.add_argument("--gps", choices=GPS, help="what receivers make of it (default: good)")
    network.add_argument(
        "--drives-without-gps", type=whole(0), metavar="N", help="the last N (default: 0)"
    )
    network.add_argument(
        "--gps-shift-m", type=real(-10_000, 10_000), metavar="M",
        help="the GPS of the last drive that has it lies so far to the east (default: 0)",
    )  # fmt: skip
    network.add_argument(
        "--faults", nargs="+", choices=FAULTS, metavar="NAME", help="see below (default: none)"
    )
    network.add_argument(
        "--cities", type=whole(1), metavar="N", help="that the drives visit in turn (default: 1)"
    )
    network.add_argument(
        "--cities-apart-m", type=real(1500, 50_000), metavar="M",
        help="from one to the next; from 1500 m on they do not see each other (default: 20000)",
    )  # fmt: skip
    network.add_argument(
        "--workers", type=whole(1, 1024), metavar="N", help="processes (default: a core each)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Render the sample; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        own, other = (_NETWORK, _STREET) if parsed.network else (_STREET, _NETWORK)
        for name in other:
            if getattr(parsed, name) is not None:
                word = "does not go" if parsed.network else "only goes"
                raise UserError(f"--{name.replace('_', '-')} {word} with --network")
        settings = {
            name: usual if getattr(parsed, name) is None else getattr(parsed, name)
            for name, usual in own.items()
        }
        render = _network if parsed.network else _street
        try:
            return render(parsed.out, parsed.images, parsed.seed, parsed.device, settings)
        except OSError as error:
            raise UserError(f"{parsed.out} cannot be written: {error}") from error

    return guarded(work, log_options(parsed))


def _street(out: Path, images: int | None, seed: int, device: str, settings: dict[str, Any]) -> int:
    from tqdm import tqdm

    from vladmap.simulation.sample import write_sample

    count = images or 120
    with tqdm(total=count, desc="sample", unit=" images", disable=hidden()) as bar:
        write_sample(out, count, seed, device=device, progress=bar.update, **settings)
    print(f"{count} photographs in {out / 'images'}, truth in {out}")
    return 0


def _network(
    out: Path, images: int | None, seed: int, device: str, settings: dict[str, Any]
) -> int:
    from tqdm import tqdm

    from vladmap.simulation.network import NetworkSettings
    from vladmap.simulation.photographing import drives_of, write_network

    workers = settings.pop("workers")
    lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    chosen = NetworkSettings(images=images or 1000, seed=seed, **(settings | lists))
    total = sum(len(drive) for drive in drives_of(chosen))
    bars: list[tqdm] = []

    def bar(what: str) -> Callable[[int], object]:
        bars.append(tqdm(total=total, desc=what, unit=" images", disable=hidden()))
        return bars[-1].update

    try:
        count, pairs = write_network(
            out,
            chosen,
            device=device,
            workers=workers,
            progress=bar("photographs"),
            paired=bar("true pairs"),
        )
    finally:
        for each in bars:
            each.close()
    print(
        f"{count} photographs in {out / 'images'}, truth in {out}: "
        f"{pairs:,} pairs show the same surfaces"
    )
    return 0


def _blocks(text: str) -> tuple[int, int]:
    try:
        east, north = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be such as 4x3, not {text}") from None
    if not (1 <= east <= 40 and 1 <= north <= 40):
        raise argparse.ArgumentTypeError(f"must be from 1x1 to 40x40, not {text}")
    return east, north


if __name__ == "__main__":
    leave(main)
