"""Bits flipped, files cut short and files deleted, all over an atlas: what the next build says.

    python -m tests.pipeline.damage ATLAS --each 100 [--seed 0] [--together 1]

takes a finished atlas (of `vladmap build`, which is run again with the options that it keeps) and
damages it so many times in each way, one file or a few at a time; after each time it builds. Prints
a table, and exits 1 where anything was silent or ended in a traceback. The atlas is left whole.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from vladmap.atlas.integrity import check_atlas
from vladmap.atlas.store import AtlasStore
from vladmap.pipeline import report_data
from vladmap.pipeline.build import kept_options, run_stages
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stages import STAGES
from vladmap.schemas.records import unsealed
from vladmap.schemas.rejects import UserError

KINDS = ("bit flipped", "cut short", "deleted")
REMADE, NAMED, REFUSED = "made anew", "made anew and named", "named, build refused"
HARMLESS, SILENT, TRACEBACK, WRONG = "same meaning", "SILENT", "TRACEBACK", "MAP WRONG"
OUTCOMES = (NAMED, REMADE, REFUSED, HARMLESS, SILENT, WRONG, TRACEBACK)

# What says how a build went, and not what it made.
_TOLD = {
    "atlas.json",
    "work/timings.json",
    "work/metrics.json",
    "report/index.html",
    "ledger/report/index.json",
}


@dataclass(frozen=True)
class Damage:
    path: str
    kind: str
    place: float
    """Where in the file, as a share of it."""

    def apply(self, root: Path) -> None:
        file = root / self.path
        data = bytearray(file.read_bytes())
        bits = int(self.place * 8 * len(data))
        if self.kind == "deleted":
            file.unlink()
        elif self.kind == "cut short":
            file.write_bytes(data[: bits // 8])
        else:
            data[bits // 8] ^= 1 << (bits % 8)
            file.write_bytes(data)


def choose(root: Path, kind: str, each: int, seed: int) -> list[Damage]:
    """Damages over every file in turn, those of one round in random order."""
    chosen = np.random.default_rng([seed, KINDS.index(kind)])
    names = [name for name, data in snapshot(root).items() if data]
    order = [name for _ in range(-(-each // len(names))) for name in chosen.permutation(names)]
    return [Damage(str(name), kind, float(chosen.random())) for name in order[:each]]


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


class Trial:
    """An atlas that is damaged and built again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        options = kept_options(AtlasStore.open(str(root), create=False))
        assert options is not None
        self.options: BuildOptions = dataclasses.replace(options, atlas=str(root))
        self.whole = snapshot(root)
        self.poses = pq.read_table(root / "poses.parquet")

    def run(self, damages: Sequence[Damage]) -> list[tuple[Damage, str, str]]:
        """(damage, outcome, what was said) of each; the atlas is whole again afterwards."""
        for damage in damages:
            damage.apply(self.root)
        output, error = self._build()
        after = snapshot(self.root)
        results = [(damage, *self._outcome(damage, output, error, after)) for damage in damages]
        if any(
            after.get(name) != data for name, data in self.whole.items() if name not in _TOLD
        ) or set(after) != set(self.whole):
            self._restore()
        return results

    def _build(self) -> tuple[str, BaseException | None]:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        log = logging.getLogger("vladmap")
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        error: BaseException | None = None
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                atlas = AtlasStore.open(str(self.root), create=True)
                report_data.summary(run_stages(atlas, self.options, (), list(STAGES)))
        except UserError as refused:
            error = refused
            stream.write(f"vladmap: {refused}\n")
        except Exception as failed:  # what a person would see as a traceback
            error = failed
            stream.write(traceback.format_exc())
        finally:
            log.removeHandler(handler)
        return stream.getvalue(), error

    def _outcome(
        self, damage: Damage, output: str, error: BaseException | None, after: dict[str, bytes]
    ) -> tuple[str, str]:
        named = [line for line in output.splitlines() if damage.path in line]
        if error is not None:
            refused = isinstance(error, UserError) and named
            return (REFUSED, named[0]) if refused else (TRACEBACK, output)
        if not pq.read_table(self.root / "poses.parquet").equals(self.poses):
            return WRONG, output
        data = after.get(damage.path)
        same = data == self.whole[damage.path]
        if not same and damage.path in _TOLD:
            # Its figures may be others; that it holds is for the check to say.
            same = data is not None and not any(
                finding.path.endswith(damage.path)
                for finding in check_atlas(AtlasStore.open(str(self.root), create=False))
            )
        elif not same and data is not None and damage.path.startswith("ledger/"):
            with contextlib.suppress(ValueError):
                now, before = unsealed(data), unsealed(self.whole[damage.path])
                if now == before and not named:
                    return HARMLESS, "only how it is written differs"
                # A line may count the milliseconds that its shard took.
                same = all(now[key] == before[key] for key in before if key != "counts")
        if same:
            return (NAMED, named[0]) if named else (REMADE, "")
        return SILENT, output

    def _restore(self) -> None:
        for path in snapshot(self.root):
            (self.root / path).unlink()
        for name, data in self.whole.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._build()  # so that every file counts as checked


def damage_all(
    root: Path, each: int, seed: int, together: int = 1
) -> Iterator[tuple[Damage, str, str]]:
    """Damage an atlas `each` times in each way, `together` files at a time."""
    trial = Trial(root)
    for kind in KINDS:
        damages = choose(root, kind, each, seed)
        for start in range(0, each, together):
            # One file is damaged once in a build.
            batch = {damage.path: damage for damage in damages[start : start + together]}
            yield from trial.run(list(batch.values()))


def table(results: Sequence[tuple[Damage, str, str]]) -> str:
    """Kinds of damage by outcome."""
    counts = Counter((damage.kind, outcome) for damage, outcome, _ in results)
    lines = [f"{'':<14}" + "".join(f"{outcome:>22}" for outcome in OUTCOMES)]
    lines += [
        f"{kind:<14}" + "".join(f"{counts[kind, outcome]:>22}" for outcome in OUTCOMES)
        for kind in KINDS
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", type=int, default=1)
    parsed = parser.parse_args()
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    results = []
    started = time.monotonic()
    whole = parsed.atlas.with_name(parsed.atlas.name + ".whole")
    shutil.copytree(parsed.atlas, whole, dirs_exist_ok=True)
    for damage, outcome, output in damage_all(
        parsed.atlas, parsed.each, parsed.seed, parsed.together
    ):
        results.append((damage, outcome, output))
        seconds = time.monotonic() - started
        print(f"{seconds:7.0f} s  {damage.kind:<12} {damage.path}: {outcome}", flush=True)
        if outcome in (SILENT, TRACEBACK, WRONG):
            print(output, flush=True)
    print(table(results))
    return int(any(outcome in (SILENT, TRACEBACK, WRONG) for _, outcome, _ in results))


if __name__ == "__main__":
    sys.exit(main())
