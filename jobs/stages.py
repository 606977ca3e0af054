"""The jobs that run stages of a build: their command line and what they do is the same."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.command import guarded, parser, words
from pipeline.atlas import Atlas
from pipeline.build import describe_work, run_stages
from pipeline.options import add_options, parse_options
from schemas.rejects import UserError

_EPILOG = """\
Every word that is not listed here goes to Apache Beam, so that --runner, --region,
--temp_location and the like work as Beam's users expect. Without --runner the build runs in this
process. The same command again goes on where the last one stopped, and does only what is new.

examples:
{examples}
"""


def run_job(
    job: str, stages: Sequence[str], text: str, examples: Sequence[str], argv: Sequence[str] | None
) -> int:
    """Parse a command line and bring `stages` of an atlas up to date; returns the exit code."""
    options_parser = parser(
        job, text, epilog=_EPILOG.format(examples="\n".join(f"  {line}" for line in examples))
    )
    add_options(options_parser, stages)
    parsed, unknown = options_parser.parse_known_args(words(argv))

    def work() -> int:
        options, beam_words = parse_options(parsed, unknown)
        if not options.atlas:
            raise UserError("--atlas DIR is needed: the folder of the atlas")
        if "ingest" in stages and not options.images:
            raise UserError("--images SOURCE is needed: a folder, a glob or a manifest")
        if parsed.dry_run:
            print(describe_work(options, stages))
            return 0
        atlas = Atlas.open(options.atlas, create="ingest" in stages)
        run_stages(atlas, options, beam_words, stages)
        return 0

    return guarded(work)
