"""Reading the shards of `two_views/` that have been judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from vladmap.atlas import storage


def judged_views(paths: Iterable[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield `columns` of shards of TWO_VIEWS, the files at `paths`, one at a time.

    Shards that an older version wrote, and that nobody judged since, have no verdicts: they are
    left out. Of others verdicts are null until they are judged.
    """
    for path in paths:
        if "verdict" in storage.read_schema(path).names:
            yield storage.read_table(path, list(columns))
