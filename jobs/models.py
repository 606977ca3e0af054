"""`vladmap models`: the descriptor models there are, and what a checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "models",
        "List the descriptor models, or say what checkpoints hold.",
        epilog="example:\n  vladmap models\n  vladmap models mapillary_WPCA512.pth.tar",
    )
    options.add_argument("files", metavar="CHECKPOINT", nargs="*", help="files to look into")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """List the models, or describe checkpoints; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.models.checkpoints.layouts import card, network
        from vladmap.models.registry import catalogue
        from vladmap.weights.reading import is_vocabulary, read_weights

        if not parsed.files:
            for name, text in catalogue().items():
                print(f"{name:<18} {text}")
        for path in parsed.files:
            file = read_weights(path)
            facts = dict(file.metadata) if is_vocabulary(file) else card(network(file))
            print(f"{path}: {json.dumps(facts, indent=2)}")
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
