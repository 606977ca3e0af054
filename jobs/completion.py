"""`vladmap completion`: what a shell needs to complete vladmap's jobs and options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words

_EPILOG = """\
examples:
  eval "$(vladmap completion bash)"        # in ~/.bashrc
  eval "$(vladmap completion zsh)"         # in ~/.zshrc, after compinit
  vladmap completion fish >~/.config/fish/completions/vladmap.fish
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser("completion", "Print a shell's completion of vladmap.", epilog=_EPILOG)
    options.add_argument("shell", choices=("bash", "zsh", "fish"))
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        import argcomplete

        print(argcomplete.shellcode(["vladmap"], shell=parsed.shell))
        return 0

    return guarded(work, log_options(parsed))


def is_asked() -> bool:
    """Whether a shell, not a person, has called the command."""
    return "_ARGCOMPLETE" in os.environ


def complete(jobs: Mapping[str, str], load: Callable[[str], Any]) -> None:
    """Answer the shell that asks for a completion, and end the process."""
    import argcomplete

    argcomplete.autocomplete(_all(jobs, load, os.environ.get("COMP_LINE", "").split()))


def _all(
    jobs: Mapping[str, str], load: Callable[[str], Any], line: Sequence[str]
) -> argparse.ArgumentParser:
    """A parser with a subparser for each job; only the job named in `line` has its options."""
    made = Parser(prog="vladmap", allow_abbrev=False)
    made.add_argument("--version", action="store_true")
    each = made.add_subparsers()
    for name, text in jobs.items():
        parents = []
        if name in line[1:2]:
            parents = [load(name).command_line()]
        each.add_parser(name, help=text, parents=parents, add_help=False)
    return made


if __name__ == "__main__":
    leave(main)
