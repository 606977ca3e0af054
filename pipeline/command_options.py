"""Options on a command line and in a `--config` file: parsed here, passed on as BuildOptions."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from vladmap.console.suggest import did_you_mean
from vladmap.pipeline.option_values import FIELDS, checked, typed
from vladmap.pipeline.options import BuildOptions, flag_of
from vladmap.pipeline.stage import Stage
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import UserError

END = "--"
"""Words after it go to Beam unchecked: options that only the user's own job server knows."""


def stages_with(flag: str) -> list[str]:
    """Names of the stages that read the option of a flag; none where no stage does."""
    return [stage.name for stage in STAGES.values() if flag in map(flag_of, stage.options)]


def add_options(parser: argparse.ArgumentParser, stages: Iterable[Stage]) -> None:
    """Add the options that any of `stages` reads, `--config` and `--dry-run`.

    Each stands in the group of the first stage of a build that reads it.
    """
    read = {name for stage in stages for name in stage.options}
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, option in FIELDS.items():
        if option.metadata["everyones"]:
            title = "everywhere"
        elif name in read:
            first = STAGES[stages_with(flag_of(name))[0]]
            title = first.group or first.name
        else:
            continue
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        group = groups[title]
        text = option.metadata["help"].replace("%", "%%")
        if option.type == "bool":
            group.add_argument(flag_of(name), action="store_true", default=None, help=text)
            continue
        choices, metavar = option.metadata["choices"], option.metadata["metavar"]
        group.add_argument(
            flag_of(name),
            type={"int": int, "float": float, "str": str}[str(option.type)],
            default=None,
            choices=choices or None,
            metavar=None if choices else metavar or None,
            help=text + ("" if option.default == "" else f" (default: {option.default})"),
        )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="options from a file; the command line overrides it"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be done, hours, bytes, money and what is missing for it, and stop",
    )


def build_options(
    parsed: Mapping[str, Any], config: str | None = None
) -> tuple[BuildOptions, list[str]]:
    """Options of a parsed command line over those of its `--config`, and the file's words for Beam.

    `parsed` may hold more than a build's options; None counts as not given. Raises UserError for a
    file that cannot be used or a value out of range.
    """
    values, beam_words = _read_config(config) if config else ({}, [])
    values |= {name: parsed[name] for name in FIELDS if parsed.get(name) is not None}
    return checked(values), beam_words


def _read_config(path: str) -> tuple[dict[str, Any], list[str]]:
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.safe_load(stream) or {}
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    # PyYAML also raises errors that are not its own: for an impossible date, for a number of a
    # thousand digits, for deep nesting.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"--config {path}: expected lines like `tile-images: 500`")
    words = _beam_words(path, content.pop("beam", []))
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in FIELDS:
            hint = did_you_mean(name, [each.replace("_", "-") for each in FIELDS])
            raise UserError(
                f"--config {path}: unknown option {key!r}{hint} (Beam's own go under `beam:`)"
            )
        values[name] = typed(f"--config {path}", name, value)
    return values, words


def _beam_words(path: str, content: Any) -> list[str]:
    if isinstance(content, str):
        try:
            return shlex.split(content)
        except ValueError as error:
            raise UserError(f"--config {path}: `beam`: {error}") from error
    if isinstance(content, list):
        return [str(word) for word in content]
    if isinstance(content, dict):
        words = []
        for name, value in content.items():
            if value is True:
                words.append(f"--{name}")
            elif value is not False:
                words.append(f"--{name}={value}")
        return words
    raise UserError(f"--config {path}: `beam` holds a list of words or a mapping of options")
