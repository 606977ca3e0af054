"""What a stage of a build is: a declaration that everything else follows from.

The command line, `--dry-run`, the order of a build, the ledgers, the fingerprints and the report
are derived from the stages that pipeline/stages/ registers. A declaration imports nothing slow, so
that `--help` does not wait; the functions that it names import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vladmap.pipeline.options import BuildOptions
    from vladmap.pipeline.run import Run


LIGHT_ROWS = 10_000
"""Rows of tables that this process works on itself where workers are elsewhere, at most."""


def _none(options: BuildOptions) -> Mapping[str, Any]:
    return {}


def _always(options: BuildOptions) -> bool:
    return True


@dataclass(frozen=True)
class Step:
    """A part of a stage that has tasks and a ledger of its own; most stages have one.

    `name` and `version` are part of the fingerprint of each task. Raise the version when the code
    begins to give other results for the same settings and inputs: what stands is then made anew.
    `ledger` names the ledger, where it differs from `name`; `{options.model}` in it stands for the
    value of that option, where an atlas can hold the results of several. `label` is the
    name on the progress bar and in the report, where it differs from `name`; `unit` is what both
    count. The ledger of an `internal` step is read by no other stage. A step that is `alone` is one
    task: more workers do not make it faster. A `light` step works on rows of tables, not on
    photographs: for up to LIGHT_ROWS it takes less time than an engine's pipeline takes to start.
    `applies` says with which options there is anything to do.

    The rest tells what makes its results stale. `settings` are what its fingerprint takes from the
    options: all that it holds, where the step is `told`. `after` has the titles of the steps whose
    results it reads, as `title:setting` where only that setting of theirs concerns it. What a
    `lasting` step made stays when the collection grows.
    """

    name: str
    version: int = 1
    ledger: str = ""
    label: str = ""
    unit: str = "shards"
    internal: bool = False
    alone: bool = False
    light: bool = False
    settings: Callable[[BuildOptions], Mapping[str, Any]] = _none
    told: bool = False
    after: tuple[str, ...] = ()
    lasting: bool = False
    applies: Callable[[BuildOptions], bool] = _always

    @property
    def title(self) -> str:
        return self.label or self.name

    def is_light(self, rows: int, device: str = "cpu") -> bool:
        """Whether so many rows are less work than the start of an engine's pipeline."""
        return self.light and rows <= LIGHT_ROWS and device == "cpu"

    def ledger_name(self, options: BuildOptions) -> str:
        """The name of the step's ledger in an atlas that is made with these options."""
        return (self.ledger or self.name).format(options=options)

    def fingerprint(self, **settings: Any) -> str:
        """Identity of all that the results depend on beside the inputs: version and settings."""
        from vladmap.atlas.fingerprints import fingerprint

        return fingerprint(self.name, self.version, **settings)

    def fingerprint_of(self, options: BuildOptions, **more: Any) -> str:
        """The fingerprint with its `settings` of these options, and `more` than those."""
        return self.fingerprint(**self.settings(options), **more)


@dataclass(frozen=True)
class Stage:
    """A stage of a build, which is also a job of its own: `vladmap NAME`.

    `title` is its line in `vladmap --help`; `text` and `examples` stand in its own help. `work`
    brings its part of an atlas up to date. `needs` names the stages without whose results it has
    nothing to work on, in the order of the build; a stage that needs none reads the collection and
    may begin an atlas. `options` names the options that it reads, beside those that are everyone's;
    `group` is the title in the help of those that no stage before it reads. `estimate` returns the
    lines of `--dry-run` for a number of images. `may_be_empty` says that the stages after it can
    work though it has run and left nothing.
    """

    name: str
    title: str
    text: str
    work: Callable[[Run], None]
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    group: str = ""
    examples: tuple[str, ...] = ()
    estimate: Callable[[Run, int], list[str]] | None = None
    may_be_empty: bool = False

    def ledger_names(self, options: BuildOptions) -> list[str]:
        """Names of the ledgers that it leaves for the stages after it, the main one last."""
        return [step.ledger_name(options) for step in self.steps if not step.internal]
