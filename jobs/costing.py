"""The options of `--dry-run`: whose rates count, how many workers there are, what they cost."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vladmap.console.numbers import real, whole
from vladmap.pipeline.options import flag_of
from vladmap.schemas.rejects import UserError

if TYPE_CHECKING:
    from vladmap.pipeline.dry_run import Costing

_PRICES = {
    "worker_price": "price of one worker for an hour, in any currency",
    "gpu_price": "price of one worker with a GPU for an hour, where stages run on --device cuda",
    "storage_price": "price of a GB (10^9 bytes) of storage for a month",
}


def add_costing_options(parser: argparse.ArgumentParser) -> None:
    """Add what a dry run counts with; each is an error in any other run."""
    group = parser.add_argument_group("what it would take (with --dry-run)")
    group.add_argument(
        "--rates",
        metavar="FILE",
        help="rates of the workers, TOML or JSON, or by name those that ship (two-cores, h100); by "
        "default those of this atlas's last runs, else 16 of the photographs are built to measure "
        "this machine",
    )
    group.add_argument(
        "--workers",
        type=whole(1, 100_000),
        metavar="N",
        help="workers beside each other (default: as Beam's options say, 1 on this machine)",
    )
    group.add_argument(
        "--no-calibration",
        action="store_true",
        default=None,
        help="build nothing to measure this machine: count with the rates of two-cores",
    )
    for name, text in _PRICES.items():
        group.add_argument(flag_of(name), type=real(0), metavar="P", help=text)


def costing(parsed: Mapping[str, Any]) -> Costing | None:
    """What the options of a dry run say, None for a build. UserError for one of them in a build."""
    names = ("rates", "workers", "no_calibration", *_PRICES)
    given = [flag_of(name) for name in names if parsed[name] is not None]
    if given and not parsed["dry_run"]:
        raise UserError(f"{', '.join(given)}: only with --dry-run")
    if not parsed["dry_run"]:
        return None
    # Brings FAISS and torch, which a stage such as ingest does without.
    from vladmap.pipeline.dry_run import Costing
    from vladmap.pipeline.estimate import Prices

    return Costing(
        rates=parsed["rates"] or "",
        workers=parsed["workers"] or 0,
        calibration=not parsed["no_calibration"],
        prices=Prices(
            worker_hour=parsed["worker_price"],
            gpu_hour=parsed["gpu_price"],
            gb_month=parsed["storage_price"],
        ),
    )
