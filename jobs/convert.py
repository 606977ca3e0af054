"""`vladmap convert`: a checkpoint in any layout that is known, to safetensors with a model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.schemas.rejects import UserError


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "convert",
        "Write a checkpoint as safetensors with a model card inside: where it came from,\n"
        "backbone, aggregation, clusters, dimension, PCA, pre-processing. It loads wherever the\n"
        "original did and gives the same descriptors.",
        epilog="layouts, told apart by content: pytorch-NetVlad, Patch-NetVLAD, hloc's and\n"
        "MatConvNet's .mat, OpenIBL, the deep visual geo-localization benchmark, SuperVLAD,\n"
        "the files that `vladmap models` names, and state dicts of VGG16, ResNet, DINOv2 and\n"
        "EfficientNet-Lite0\n\n"
        "example:\n  vladmap convert pitts_WPCA4096.pth.tar pitts.safetensors\n"
        "  vladmap build --model patch-netvlad --checkpoint pitts.safetensors ...",
    )
    options.add_argument("source", metavar="IN", type=Path, help="the checkpoint")
    options.add_argument("target", metavar="OUT.safetensors", type=Path, help="the file to write")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.models.checkpoints.layouts import MODEL, card, network, to_bytes
        from vladmap.weights.reading import is_vocabulary, read_weights

        if parsed.target.suffix != ".safetensors":
            raise UserError(f"{parsed.target} must be named *.safetensors")
        if parsed.target.exists() and parsed.target.samefile(parsed.source):
            raise UserError("OUT is IN: give it another name")
        file = read_weights(parsed.source)
        if is_vocabulary(file) or file.metadata.get("kind") == MODEL:
            raise UserError(f"{parsed.source} is in vladmap's own format already")
        model = network(file)
        data = to_bytes(model, parsed.source.read_bytes())
        partial = parsed.target.with_suffix(".partial")
        try:
            partial.write_bytes(data)
            partial.replace(parsed.target)
        except OSError as error:
            raise UserError(f"{parsed.target} cannot be written: {error.strerror}") from error
        print(json.dumps(card(model), indent=2))
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
