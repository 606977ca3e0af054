"""What every job does alike: parse, run, and turn an error into one clear line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipeline.suggest import unknown
from schemas.rejects import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and names what was meant."""

    def flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """One line on stderr and exit code 2."""
        self.exit(EXIT_USER_ERROR, f"vladmap: {message} (see `{self.prog} --help`)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """All words; one that no option takes is an error."""
        parsed, left = self.parse_known_args(args, namespace)
        if left:
            self.error(unknown(left[0], self.flags()))
        return parsed


def parser(job: str, text: str, *, epilog: str = "") -> Parser:
    """A parser whose help names the command as people type it."""
    return Parser(
        prog=f"vladmap {job}",
        description=text,
        epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def guarded(work: Callable[[], int | None]) -> int:
    """Run a job's work. What the user can mend is one line on stderr and exit code 2."""
    # Beam sets up logging of its own when it is imported; a run speaks in its own words.
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("vladmap").setLevel(logging.INFO)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    try:
        return work() or 0
    except UserError as error:
        return _explain(error)
    except KeyboardInterrupt:
        print("vladmap: interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `vladmap ... | head`: whoever read our words has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        # Beam wraps what a DoFn raised; a cause that the user can mend stays one line.
        cause = _user_error(error)
        if cause is None:
            raise
        return _explain(cause)


def _explain(error: UserError) -> int:
    print(f"vladmap: {error}", file=sys.stderr)
    return EXIT_USER_ERROR


def _user_error(error: BaseException) -> UserError | None:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, UserError):
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


def words(argv: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if argv is None else argv)
