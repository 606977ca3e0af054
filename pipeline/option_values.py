"""Values of options: their types and ranges checked, stored in a manifest, written as words."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from vladmap.features.names import RERANKING_BY_FEATURES, misfit, reranking_by
from vladmap.models.kinds import LEARN_NOTHING, SHIPPED, WITH_PATCHES
from vladmap.pipeline.options import BuildOptions, flag_of, learning_options
from vladmap.retrieval.names import BY_PATCHES
from vladmap.schemas.rejects import UserError

FIELDS = {option.name: option for option in dataclasses.fields(BuildOptions)}

NOT_STORED = ("atlas", "device", "accelerator", "threads", "batch_size", "relearn")
"""Options on how a run works: the content of an atlas does not depend on them."""


def typed(source: str, name: str, value: Any) -> Any:
    """The value that `source` gives an option, as the option's type; UserError if it is none."""
    option = FIELDS[name]
    kind = {"int": int, "float": float, "str": str, "bool": bool}[str(option.type)]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and whole:
        value = float(value)
    if not isinstance(value, kind) or (kind is int and not whole):
        name = option.name.replace("_", "-")
        raise UserError(f"{source}: {name} must be a {kind.__name__}, not {value!r}")
    choices = option.metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"{source}: {option.name} must be one of {', '.join(choices)}")
    return value


def checked(values: Mapping[str, Any]) -> BuildOptions:
    """Options of these values and the defaults of all others.

    Raises UserError for a number out of its range, and for options that contradict each other.
    """
    options = BuildOptions(**values)
    for name, option in FIELDS.items():
        value, within = getattr(options, name), option.metadata["within"]
        if within is not None and value not in within:
            raise UserError(f"{flag_of(name)} must be {within}, not {value}")
        if isinstance(value, str) and not _is_file_name(value):
            raise UserError(f"{flag_of(name)} {value!r}: no file has such a name")
    if options.dimension > 0 and (options.whiten or options.model == "bovw"):
        raise UserError("--dimension is neither for bovw nor together with --whiten")
    if options.accelerator and options.device == "cpu":
        raise UserError("--accelerator is for --device cuda")
    if options.accelerator and not options.accelerator.startswith("type:"):
        raise UserError(
            f"--accelerator {options.accelerator}: expected type:NAME;count:N;install-nvidia-driver"
        )
    if options.model not in SHIPPED and not options.checkpoint and options.atlas:
        raise UserError(
            f"--model {options.model} needs --checkpoint FILE: `vladmap models` says which"
        )
    if options.model in LEARN_NOTHING and (without_effect := learning_options(options)):
        raise UserError(
            f"--model {options.model} learns nothing from the collection: "
            f"leave out {without_effect}"
        )
    if options.decode == "gpu" and options.device != "cuda":
        raise UserError("--decode gpu needs --device cuda")
    if options.model == "bovw" and options.whiten:
        raise UserError("--whiten is not for bovw: whitened counts are no longer tf-idf")
    if why := misfit(options.features, options.matcher):
        raise UserError(why)
    if options.between_drives == options.features:
        raise UserError(
            f"--between-drives {options.between_drives} is for pairs in which other features find "
            f"too little: with --features {options.features} leave it out"
        )
    if options.rerank in RERANKING_BY_FEATURES:
        features, _ = reranking_by(options.rerank, options.features)
        if features != options.features:
            raise UserError(
                f"--rerank {options.rerank} is by {features}: add --features {features}"
            )
    if options.rerank in BY_PATCHES and options.model not in WITH_PATCHES:
        raise UserError(
            f"--model {options.model} has no patches for --rerank {options.rerank}: choose "
            f"`features`, or one of the models {', '.join(WITH_PATCHES)}"
        )
    return options


def _is_file_name(text: str) -> bool:
    """Whether the text is valid as a file name and as UTF-8, for tables and JSON."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def given(options: BuildOptions) -> dict[str, Any]:
    """The options to store: those not at their defaults that change the content of an atlas."""
    return {
        name: getattr(options, name)
        for name, option in FIELDS.items()
        if name not in NOT_STORED and getattr(options, name) != option.default
    }


def from_manifest(source: str, values: Any) -> BuildOptions:
    """The options that `given` returned, read from a manifest; UserError for a bad value."""
    if not isinstance(values, dict):
        raise UserError(f"{source}: no options")
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise UserError(f"{source}: unknown option {unknown[0]!r}")
    return checked({name: typed(source, name, value) for name, value in values.items()})


def as_words(options: BuildOptions) -> str:
    """The options as they stand on a command line."""
    words = []
    for name, value in given(options).items():
        words.append(flag_of(name))
        if value is not True:
            words.append(str(value))
    return shlex.join(words)
