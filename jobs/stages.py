"""The jobs that run stages of a build: their command line and what they do is the same."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.command import Parser, guarded, parser, words
from pipeline.atlas import Atlas
from pipeline.build import describe_work, run_stages
from pipeline.options import END, add_options, parse_options, stages_with
from schemas.rejects import UserError

_EPILOG = """\
Options of Apache Beam work as Beam's users expect: --runner, --region, --temp_location and the
like. What stands after a bare `--` goes to Beam unchecked. Without --runner the build runs in this
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
    given = words(argv)
    # After a bare `--` all is Beam's.
    end = given.index(END) if END in given else len(given)
    parsed, left = options_parser.parse_known_args(given[:end])

    def work() -> int:
        options, configured = parse_options(parsed)
        beam_words = _for_beam(options_parser, parsed.config, configured, left + given[end:])
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

    return guarded(work, parsed)


def _for_beam(
    known: Parser, path: str | None, configured: Sequence[str], given: Sequence[str]
) -> list[str]:
    """The words for Beam, those of the `--config` file first.

    Raises UserError for a word that neither this job nor Beam knows.
    """
    if not configured and not given:
        return []
    # Takes a second: only where there is something to look up.
    from pipeline.beam_words import checked

    own = known.flags()
    for flag in (word.partition("=")[0] for word in given):
        if flag not in own and (stages := stages_with(flag)):
            raise UserError(f"{flag} is no option of `{known.prog}`, but of {', '.join(stages)}")
    return [*checked(configured, own, f"--config {path}, beam: "), *checked(given, own)]
