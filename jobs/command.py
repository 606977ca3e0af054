"""What all jobs share: their parser, logging, signals, and errors as one clear line."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
OUTPUT_OPTIONS = ("verbose", "quiet", "log_file", "json")
"""Options on what a job prints and logs; no result depends on them."""

log = logging.getLogger("vladmap")


@dataclass(frozen=True)
class LogOptions:
    """What a job logs on stderr, and the file that it appends its log to, if any."""

    verbose: bool = False
    quiet: bool = False
    log_file: str | None = None


class Ended(KeyboardInterrupt):
    """A signal asked the run to end; `code` is the exit code that tells which."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line and suggests the option that was meant."""

    def flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(EXIT_USER_ERROR, f"vladmap: {message} (see `{self.prog} --help`)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all words; one that belongs to no option is an error."""
        parsed, left = self.parse_known_args(args, namespace)
        if left:
            self.error(unknown(left[0], self.flags()))
        return parsed


def parser(job: str, text: str, *, epilog: str = "", json_help: str = "") -> Parser:
    """The parser of `vladmap JOB`, with the options that all jobs share.

    `json_help` describes what `--json` prints; without it the job has no such option.
    """
    options = Parser(
        prog=f"vladmap {job}",
        description=text,
        epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    output = options.add_argument_group("output")
    output.add_argument("--version", action="version", version=f"vladmap {VERSION}")
    loud = output.add_mutually_exclusive_group()
    loud.add_argument(
        "-v", "--verbose", action="store_true", help="also the log of Beam and other libraries"
    )
    loud.add_argument(
        "-q", "--quiet", action="store_true", help="no progress: only warnings, errors, results"
    )
    output.add_argument("--log-file", metavar="FILE", help="append the log to a file, with dates")
    if json_help:
        output.add_argument("--json", action="store_true", help=json_help)
    return options


def log_options(parsed: argparse.Namespace) -> LogOptions:
    """The options on logging of a command line that a parser made by `parser` has parsed."""
    return LogOptions(parsed.verbose, parsed.quiet, parsed.log_file)


def guarded(work: Callable[[], int | None], logged: LogOptions | None = None) -> int:
    """Run a job's work and return its exit code.

    An error that the user can mend is one line on stderr and exit code 2. An interruption (Ctrl-C,
    SIGTERM, SIGHUP) is one line, too; its exit code is 128 plus the number of the signal.
    """
    with _signals():
        try:
            _configure_logging(logged or LogOptions())
            return work() or 0
        except BrokenPipeError:
            _discard_output()
            return 0
        except (Exception, KeyboardInterrupt) as error:
            ends = [cause for cause in causes(error) if isinstance(cause, KeyboardInterrupt)]
            if ends:
                return interrupted(next((end for end in ends if isinstance(end, Ended)), ends[0]))
            explanation = explained(error)
            if explanation is None:
                log.debug("this should not have happened", exc_info=True)
                raise
            log.debug("where it was raised", exc_info=True)
            print(f"vladmap: {explanation}", file=sys.stderr)
            return EXIT_USER_ERROR


def interrupted(error: KeyboardInterrupt) -> int:
    """Print that the run was interrupted; returns the exit code."""
    print("vladmap: interrupted; the same command goes on from here", file=sys.stderr, flush=True)
    return error.code if isinstance(error, Ended) else EXIT_INTERRUPTED


def leave(main: Callable[[], int]) -> NoReturn:
    """Run a job as a program, and end the process with the job's exit code.

    An interrupted run does not wait for threads that are still at work: the next run does again
    what they have not committed.
    """
    try:
        try:
            code = main()
        except SystemExit:  # argparse, after --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        code = 0
    except KeyboardInterrupt as error:  # before the work began
        code = interrupted(error)
    if code in _ENDINGS.values():
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # Beam stops the job servers that it started
        os._exit(code)
    sys.exit(code)


def _discard_output() -> None:
    """Send the rest of stdout nowhere: its reader has gone, as in `vladmap ... | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _signals() -> Iterator[None]:
    """Within the block a signal to end raises Ended.

    If the run has not ended some seconds later, or at a second signal, the process is ended.
    """
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
        # A second signal ends the process without waiting.
        signal.signal(each, lambda *_: at_once())
    # Beam would log an error for each of its threads that is ended now.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    processes.end_all()
    timer = threading.Timer(_PATIENCE_S, at_once)
    timer.daemon = True
    timer.start()
    raise ended


def _configure_logging(options: LogOptions) -> None:
    """Set up the log on stderr and in `--log-file`, in place of what Beam's import set up."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    if not options.verbose:
        shown.addFilter(_ours)
    shown.setLevel(logging.WARNING if options.quiet else logging.INFO)
    handlers: list[logging.Handler] = [shown]
    if path := options.log_file:
        try:
            file = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--log-file {path} cannot be written: {error.strerror}") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    log.setLevel(logging.DEBUG)
    set_quiet(options.quiet)


def _ours(record: logging.LogRecord) -> bool:
    """Whether a record is shown: vladmap's own, warnings of libraries, errors of Beam.

    An exception in a Beam worker is raised again in this process and reported once, so Beam's own
    log of it is not shown.
    """
    package = record.name.partition(".")[0]
    if package == "vladmap":
        return record.levelno >= logging.INFO
    if package == "apache_beam":
        exception = record.exc_info or "Traceback (most recent call last)" in record.getMessage()
        return record.levelno >= logging.ERROR and not exception
    # At each start Beam warns of a library that only its BigQuery connector needs.
    return record.levelno >= logging.WARNING and "apitools not found" not in str(record.msg)


def recorded(options: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """The options that a result depends on, as JSON values, for the record of a run."""
    left_out = {*OUTPUT_OPTIONS, *without}
    chosen = {name: value for name, value in options.items() if name not in left_out}
    record: dict[str, Any] = json.loads(json.dumps(chosen, default=str))
    return record


def words(argv: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if argv is None else argv)
