"""`vladmap sample`: a rendered city with known truth, to try everything on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vladmap.console.numbers import MOST_SEED, real, whole
from vladmap.console.quiet import hidden
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.schemas.rejects import UserError


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "sample",
        "Render a drive through a city: OUT/images/ with EXIF GPS, OUT/truth.parquet.",
        epilog="example:\n  vladmap sample city --images 120 --seed 0",
    )
    options.add_argument("out", metavar="OUT", type=Path, help="folder to write, made if need be")
    options.add_argument("--images", type=whole(1), default=120, help="photographs (default: 120)")
    options.add_argument(
        "--seed", type=whole(0, MOST_SEED), default=0, help="another city (default: 0)"
    )
    options.add_argument(
        "--gps-sigma-m", type=real(0, 10_000), default=3.0, help="GPS noise, one sigma (default: 3)"
    )
    options.add_argument(
        "--gps-dropout", type=real(0, 1), default=0.05, help="share without GPS (default: 0.05)"
    )
    options.add_argument(
        "--time-of-day",
        type=real(0, 24),
        default=None,
        help="hour of the sun, 0 to 24 (default: 10.5)",
    )
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Render the sample; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from tqdm import tqdm

        from vladmap.simulation.sample import write_sample

        settings = {} if parsed.time_of_day is None else {"time_of_day": parsed.time_of_day}
        with tqdm(total=parsed.images, desc="sample", unit=" images", disable=hidden()) as bar:
            try:
                write_sample(
                    parsed.out,
                    images=parsed.images,
                    seed=parsed.seed,
                    gps_sigma_m=parsed.gps_sigma_m,
                    gps_dropout=parsed.gps_dropout,
                    device=parsed.device,
                    progress=bar.update,
                    **settings,
                )
            except OSError as error:
                raise UserError(f"{parsed.out} cannot be written: {error}") from error
        print(f"{parsed.images} photographs in {parsed.out / 'images'}, truth in {parsed.out}")
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
