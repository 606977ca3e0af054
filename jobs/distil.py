"""`vladmap distil`: a backbone taught to see through weather, without labels."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vladmap.console.numbers import not_negative, whole
from vladmap.evaluation.training_settings import DistillationSettings
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, recorded, words
from vladmap.jobs.worlds import size_of
from vladmap.models.training.recipe import GHOST, Distillation

_EPILOG = """\
WORLDS are rendered by `vladmap worlds --aligned`: each place from one camera under many conditions.
PHOTOGRAPHS may be of anything; streets are best. Neither needs positions. What comes out is a
whole model: the backbone, and words and a reduction learnt from the same pictures, for those who
need descriptors that no collection has a part in. A build takes its backbone and learns the rest
from the collection.

examples:
  vladmap worlds places --seeds 0:40 --places 100 --every 7 --aligned
  vladmap distil --worlds places --photographs streets --validate seasons --output run
  vladmap distil --worlds places --photographs streets --validate seasons --output run --resume
  vladmap build --images photos --checkpoint run/best.safetensors --atlas atlas
"""

_RENAMED = {"photographs": "--photographs-a-step", "scenes": "--scenes-a-step"}
_HELP = {
    "steps": "steps",
    "scenes": "rendered scenes of a step",
    "photographs": "photographs of a step",
    "hardness": "how much more often a scene is shown in the light that changes it more; 0: not",
    "temperature": "of the softmax over cosines",
    "augmentation": "strength of the changes to photographs; half of it to rendered scenes",
    "moved": "share that is seen from elsewhere",
    "rate": "highest learning rate",
    "weight_decay": "of AdamW",
    "clip": "largest norm of a gradient; 0: any",
    "blend": "how far the weights go from the teacher's to the student's, 0 to 1",
    "seed": "of all that is random",
}


def command_line() -> Parser:
    """The parser of the job."""
    defaults = Distillation()
    options = parser(
        "distil",
        "Teach a backbone to make of a place in any light what it makes of it in the best.",
        epilog=_EPILOG,
    )
    options.add_argument("--worlds", type=Path, metavar="DIR", help="rendered, aligned scenes")
    options.add_argument(
        "--photographs", type=Path, nargs="+", default=[], metavar="DIR", help="folders of them"
    )
    options.add_argument("--output", type=Path, required=True, metavar="DIR")
    options.add_argument("--resume", action="store_true", help="go on after the last validation")
    options.add_argument(
        "--init", type=Path, metavar="FILE", help="teacher (default: Lite0 by ImageNet)"
    )
    options.add_argument(
        "--student",
        metavar="FILE",
        help=f"another backbone that learns from the teacher, or `{GHOST}` for that of\n"
        "Ghost-dil-NetVLAD from random weights (default: a copy of the teacher)",
    )
    options.add_argument(
        "--clear",
        nargs="+",
        default=["day", "overcast"],
        metavar="NAME",
        help="conditions that the teacher looks at (default: day overcast)",
    )
    options.add_argument(
        "--crops", type=whole(1), default=20, metavar="N", help="of each photograph (default: 20)"
    )
    options.add_argument("--size", default="320x240", metavar="WxH", help="(default: 320x240)")
    options.add_argument(
        "--validate",
        type=Path,
        metavar="SOURCE",
        help="photographs to stop by, never learnt from, as `vladmap evaluate` reads them;\n"
        "their words are learnt anew each time",
    )
    options.add_argument("--frames-tolerance", type=whole(0), default=0, metavar="N")
    options.add_argument(
        "--check",
        type=whole(1),
        default=200,
        metavar="N",
        help="steps to a validation (default: 200)",
    )
    options.add_argument(
        "--clusters", type=whole(2), default=32, metavar="K", help="words of its own (default: 32)"
    )
    options.add_argument(
        "--project",
        type=whole(1),
        default=960,
        metavar="D",
        help="numbers at the end (default: 960)",
    )
    options.add_argument(
        "--device",
        default="cpu",
        choices=("cpu", "cuda"),
        help="where networks run; a run is the same again on the same device (default: cpu)",
    )
    recipe = options.add_argument_group("the recipe")
    for field in dataclasses.fields(Distillation):
        default = getattr(defaults, field.name)
        recipe.add_argument(
            "--" + field.name.replace("_", "-")
            if field.name not in _RENAMED
            else _RENAMED[field.name],
            dest=f"recipe_{field.name}",
            type=not_negative(default),
            default=default,
            metavar="N",
            help=f"{_HELP[field.name]} (default: {default})",
        )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Distil; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.evaluation.distillation import distil

        distil(_settings(parsed))
        return 0

    return guarded(work, log_options(parsed))


def _settings(parsed: argparse.Namespace) -> DistillationSettings:
    given = {
        field.name: getattr(parsed, f"recipe_{field.name}")
        for field in dataclasses.fields(Distillation)
    }
    if parsed.worlds is None:
        given["scenes"] = 0
    if not parsed.photographs:
        given["photographs"] = 0
    # Runs begun before there was a choice go on.
    on_cpu = ("device",) if parsed.device == "cpu" else ()
    return DistillationSettings(
        recipe=Distillation(**given),
        output=parsed.output,
        size=size_of(parsed.size),
        clear=tuple(parsed.clear),
        worlds=parsed.worlds,
        photographs=tuple(parsed.photographs),
        resume=parsed.resume,
        init=parsed.init,
        student=parsed.student,
        crops=parsed.crops,
        validate=parsed.validate,
        frames_tolerance=parsed.frames_tolerance,
        check=parsed.check,
        clusters=parsed.clusters,
        project=parsed.project,
        device=parsed.device,
        options=recorded(vars(parsed), without=("output", "resume", *on_cpu)),
    )


if __name__ == "__main__":
    leave(main)
