"""Checking the words of a command line that are meant for Beam.

Beam ignores words that it does not know, so that a mistyped option would silently have its default.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.options.pipeline_options import _BeamArgumentParser as BeamArgumentParser
from apache_beam.runners.runner import create_runner

from vladmap.console.suggest import did_you_mean, unknown
from vladmap.pipeline.command_options import END
from vladmap.schemas.rejects import UserError


def checked(words: Sequence[str], own: Collection[str] = (), strange: str = "") -> list[str]:
    """The words for Beam, each an option of its own classes, those of the runner among them.

    `own` are vladmap's options, which are suggested for mistyped words; `strange` is put before the
    messages.

    Raises UserError for a word that Beam does not know, a value that it does not take, and a runner
    that is not there.
    """
    cut = list(words).index(END) if END in words else len(words)
    known, unchecked = list(words[:cut]), list(words[cut + 1 :])
    parser = _Parser(allow_abbrev=False, add_help=False)
    StandardOptions._add_argparse_args(parser)
    _require_runner(parser.parse_known_args(known + unchecked)[0].runner)
    # After the runner is loaded: its module may define options of its own.
    parser = _Parser(allow_abbrev=False, add_help=False)
    for options in {str(each): each for each in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    left = parser.parse_known_args(known)[1]
    if left:
        names = [*own, *(flag for action in parser._actions for flag in action.option_strings)]
        raise UserError(strange + unknown(left[0], names))
    return known + unchecked


def _require_runner(name: str | None) -> None:
    if not name:
        return
    try:
        create_runner(name)
    except ImportError as error:
        raise UserError(f"--runner {name}: {error}") from error
    except Exception as error:  # not a class of options, or one that cannot be instantiated
        known = [path.rpartition(".")[2] for path in StandardOptions.ALL_KNOWN_RUNNERS]
        hint = did_you_mean(name, known)
        raise UserError(
            f"--runner {name}: there is no such runner{hint or ': ' + ', '.join(known)}"
        ) from error


class _Parser(BeamArgumentParser):
    """Beam's parser, with errors raised as UserError instead of printed with the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)
