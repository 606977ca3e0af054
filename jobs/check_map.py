"""`vladmap check-map`: how far an atlas is from the truth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.command import guarded, parser, words
from mapping.check import check_map, format_check
from pipeline.atlas import Atlas
from schemas import tables
from schemas.rejects import UserError
from transforms import storage


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; returns the exit code."""
    options = parser(
        "check-map",
        "Compare an atlas's poses with the truth: registered share, position and rotation error.",
        epilog="example:\n  vladmap check-map --atlas atlas --truth city/truth.parquet",
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--truth",
        required=True,
        metavar="FILE",
        help="Parquet table of poses, as `vladmap sample` writes it",
    )
    parsed = options.parse_args(words(argv))

    def work() -> int:
        atlas = Atlas.open(parsed.atlas, create=False)
        path = atlas.path("poses.parquet")
        if not storage.exists(path):
            raise UserError(f"{atlas.root} has no poses.parquet: run `vladmap build` to its end")
        print(format_check(check_map(storage.read_table(path), read_truth(parsed.truth))))
        return 0

    return guarded(work)


def read_truth(path: str) -> pa.Table:
    """A truth table. Raises UserError where it is none, naming the columns that it lacks."""
    try:
        table = pq.read_table(Path(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"--truth {path}: {str(error).splitlines()[0]}") from error
    missing = sorted(set(tables.TRUTH.names) - set(table.column_names))
    if missing:
        raise UserError(f"--truth {path} lacks the columns {', '.join(missing)}")
    return table


if __name__ == "__main__":
    sys.exit(main())
