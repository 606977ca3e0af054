"""What every job does alike: parse, run, and turn an error into one clear line."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from vladmap.console.quiet import set_quiet
from vladmap.console.suggest import unknown
from vladmap.jobs.failures import causes, explained
from vladmap.photos import processes
from vladmap.schemas import VERSION
from vladmap.schemas.rejects import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
_ENDINGS = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: 143, signal.SIGHUP: 129}
_PATIENCE_S = 5.0
SAYING = ("verbose", "quiet", "log_file", "json")
"""Options on what is said alone: no result depends on them."""

log = logging.getLogger("vladmap")


class Ended(KeyboardInterrupt):
    """A signal asked for the end of the run."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


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


def parser(job: str, text: str, *, epilog: str = "", json_help: str = "") -> Parser:
    """A parser whose help names the command as people type it.

    `json_help` says what `--json` prints, where a job has it.
    """
    made = Parser(
        prog=f"vladmap {job}",
        description=text,
        epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    said = made.add_argument_group("what is said")
    said.add_argument("--version", action="version", version=f"vladmap {VERSION}")
    loud = said.add_mutually_exclusive_group()
    loud.add_argument(
        "-v", "--verbose", action="store_true", help="also what Beam and other libraries say"
    )
    loud.add_argument(
        "-q", "--quiet", action="store_true", help="no progress: only warnings, errors, results"
    )
    said.add_argument(
        "--log-file", metavar="FILE", help="append all that is said to a file, with dates"
    )
    if json_help:
        said.add_argument("--json", action="store_true", help=json_help)
    return made


def guarded(work: Callable[[], int | None], parsed: argparse.Namespace | None = None) -> int:
    """Run a job's work. What the user can mend is one line on stderr and exit code 2.

    An interruption (Ctrl-C, SIGTERM, SIGHUP) is one line, too, and 128 and the signal's number.
    """
    with _signals():
        try:
            _log(parsed or argparse.Namespace())
            return work() or 0
        except BrokenPipeError:
            # `vladmap ... | head`: whoever read our words has gone.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (Exception, KeyboardInterrupt) as error:
            ends = [cause for cause in causes(error) if isinstance(cause, KeyboardInterrupt)]
            if ends:
                return interrupted(next((end for end in ends if isinstance(end, Ended)), ends[0]))
            said = explained(error)
            if said is None:
                log.debug("this should not have happened", exc_info=True)
                raise
            log.debug("where it was raised", exc_info=True)
            print(f"vladmap: {said}", file=sys.stderr)
            return EXIT_USER_ERROR


def interrupted(error: KeyboardInterrupt) -> int:
    """Say that the run was interrupted; returns the exit code."""
    print("vladmap: interrupted; the same command goes on from here", file=sys.stderr, flush=True)
    return error.code if isinstance(error, Ended) else EXIT_INTERRUPTED


def leave(main: Callable[[], int]) -> NoReturn:
    """Run a job as a program: its exit code is the process's.

    An interrupted run does not wait for threads that are still at work: what they have not
    committed is made again.
    """
    try:
        code = main()
    except KeyboardInterrupt as error:  # before the work began
        code = interrupted(error)
    if code in _ENDINGS.values():
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # Beam stops the job servers that it started
        os._exit(code)
    sys.exit(code)


@contextmanager
def _signals() -> Iterator[None]:
    """In the block a signal to end raises Ended; one that is not heard in time ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _end) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    ended = Ended(_ENDINGS[signal.Signals(number)])

    def at_once() -> None:
        interrupted(ended)
        os._exit(ended.code)

    for each in _ENDINGS:
        # Again: whoever asks twice does not want to wait.
        signal.signal(each, lambda *_: at_once())
    # Beam's account of how its threads were ended helps nobody.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    processes.end_all()
    timer = threading.Timer(_PATIENCE_S, at_once)
    timer.daemon = True
    timer.start()
    raise ended


def _log(parsed: argparse.Namespace) -> None:
    """What is said on stderr and in `--log-file`.

    Beam sets up logging of its own when it is imported; a run speaks in its own words.
    """
    verbose, quiet = getattr(parsed, "verbose", False), getattr(parsed, "quiet", False)
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    if not verbose:
        shown.addFilter(_ours)
    shown.setLevel(logging.WARNING if quiet else logging.INFO)
    handlers: list[logging.Handler] = [shown]
    if path := getattr(parsed, "log_file", None):
        try:
            kept = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--log-file {path} cannot be written: {error.strerror}") from error
        kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(kept)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    log.setLevel(logging.DEBUG)
    set_quiet(quiet)


def _ours(record: logging.LogRecord) -> bool:
    """What vladmap says; of libraries warnings, of Beam errors.

    What a worker of Beam's raises comes back to this process and is told there, once: Beam's own
    accounts of it are left out.
    """
    package = record.name.partition(".")[0]
    if package == "vladmap":
        return record.levelno >= logging.INFO
    if package == "apache_beam":
        told = record.exc_info or "Traceback (most recent call last)" in record.getMessage()
        return record.levelno >= logging.ERROR and not told
    # Beam's word, at each start, on what only its BigQuery needs.
    return record.levelno >= logging.WARNING and "apitools not found" not in str(record.msg)


def recorded(parsed: argparse.Namespace, without: Sequence[str] = ()) -> dict[str, Any]:
    """The options that a result depends on, as JSON holds them, for the record of a run."""
    left_out = {*SAYING, *without}
    options = {name: value for name, value in vars(parsed).items() if name not in left_out}
    record: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return record


def words(argv: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if argv is None else argv)
