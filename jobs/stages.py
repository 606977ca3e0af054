"""The jobs that run stages of a build. They differ in their stages alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vladmap.console.results import print_json
from vladmap.jobs.command import Parser, guarded, log_options, parser, words
from vladmap.jobs.costing import add_costing_options, costing
from vladmap.pipeline.command_options import END, add_options, build_options, stages_with
from vladmap.pipeline.stage import Stage
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.rejects import UserError

_EPILOG = """\
Options of Apache Beam work as Beam's users expect: --runner, --region, --temp_location and the
like. What stands after a bare `--` goes to Beam unchecked. Without --runner the build runs in this
process. The same command again goes on where the last one stopped, and does only what is new.

examples:
{examples}
"""


_JSON = "print what was done, and the summary, as a JSON object"


@dataclass(frozen=True)
class StageJob:
    """A job that brings the named stages of an atlas up to date."""

    name: str
    stages: Collection[str]
    text: str
    examples: Sequence[str]

    @staticmethod
    def of(stage: Stage) -> StageJob:
        """The job of one stage alone."""
        return StageJob(stage.name, [stage.name], stage.text, stage.examples)

    def command_line(self) -> Parser:
        """The parser of the job."""
        examples = "\n".join(f"  {line}" for line in self.examples)
        made = parser(
            self.name, self.text, epilog=_EPILOG.format(examples=examples), json_help=_JSON
        )
        add_options(made, [STAGES[name] for name in self.stages])
        add_costing_options(made)
        return made

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parse a command line and run the stages; returns the exit code."""
        return _run(self.command_line(), list(self.stages), argv)


def _run(options_parser: Parser, stages: Sequence[str], argv: Sequence[str] | None) -> int:
    given = words(argv)
    # Everything after a bare `--` goes to Beam.
    end = given.index(END) if END in given else len(given)
    parsed, left = options_parser.parse_known_args(given[:end])

    def work() -> int:
        from vladmap.atlas.store import AtlasStore
        from vladmap.pipeline.build import outcome, run_stages

        reads_collection = any(not STAGES[name].needs for name in stages)
        options, configured = build_options(vars(parsed), parsed.config)
        beam_words = _for_beam(options_parser, parsed.config, configured, left + given[end:])
        if not options.atlas:
            raise UserError("--atlas DIR is needed: the folder of the atlas")
        if reads_collection and not options.images:
            raise UserError("--images SOURCE is needed: a folder, a glob or a manifest")
        counted_with = costing(vars(parsed))
        if parsed.dry_run:
            from vladmap.pipeline.dry_run import describe_work

            said = describe_work(options, stages, beam_words, counted_with)
            if parsed.json:
                print_json({"work": said.lines, "estimate": said.figures})
            else:
                print(*said.lines, sep="\n")
            return 0
        atlas = AtlasStore.open(options.atlas, create=reads_collection)
        run = run_stages(atlas, options, beam_words, stages)
        if "report" not in stages:
            if parsed.json:
                print_json(outcome(run))
            return 0
        # Brings COLMAP and FAISS, which stages before it do not all need.
        from vladmap.pipeline.report_data import summary, summary_figures

        if parsed.json:
            print_json({**outcome(run), "summary": summary_figures(run)})
        else:
            print(summary(run))
        return 0

    return guarded(work, log_options(parsed))


def _for_beam(
    known: Parser, path: str | None, configured: Sequence[str], given: Sequence[str]
) -> list[str]:
    """The options for Beam, those of the `--config` file first.

    Raises UserError for a word that neither this job nor Beam knows.
    """
    if not configured and not given:
        return []
    # This import takes a second.
    from vladmap.pipeline.beam_words import checked

    own = known.flags()
    for flag in (word.partition("=")[0] for word in given):
        if flag not in own and (stages := stages_with(flag)):
            raise UserError(f"{flag} is no option of `{known.prog}`, but of {', '.join(stages)}")
    return [*checked(configured, own, f"--config {path}, beam: "), *checked(given, own)]
