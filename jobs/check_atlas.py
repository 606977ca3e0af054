"""`vladmap check-atlas`: is every file of an atlas as it was committed?"""

from __future__ import annotations

from collections.abc import Sequence

from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.schemas.rejects import UserError

_EPILOG = """\
Reads every file that the ledger knows: its size and digest, whether it parses, its columns and
rows, whether each image id is one of images/; and looks for files that no line of the ledger knows.
A build does so by itself for files that changed after they were written.

--repair takes what is damaged out of the atlas and runs the build that made it: with the options
that it was made with, on the photographs that it was made from, or on those that --images names.

exit code: 0 where all is well, or is again; 1 where something is wrong.

example:
  vladmap check-atlas --atlas atlas --repair
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "check-atlas",
        "Read and check every file of an atlas, and name what is damaged. (Also: verify-atlas.)",
        epilog=_EPILOG,
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--repair", action="store_true", help="make anew what is damaged, and check again"
    )
    options.add_argument(
        "--images",
        metavar="SOURCE",
        help="with --repair: where the photographs are now (default: where they were)",
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is wrong with an atlas; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.pipeline.atlas_check import check, repair

        if parsed.images and not parsed.repair:
            raise UserError("--images is for --repair: the check itself reads no photographs")
        findings = check(parsed.atlas)
        if not findings or not parsed.repair:
            return 1 if findings else 0
        repair(parsed.atlas, findings, parsed.images or "")
        return 1 if check(parsed.atlas) else 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
