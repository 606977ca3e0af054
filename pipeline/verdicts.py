"""Writing what is thought of each pair into the published `two_views/`."""

from __future__ import annotations

import pyarrow as pa

from vladmap.atlas import storage
from vladmap.atlas.commit import commit_again
from vladmap.mapping.judged_pairs import JudgedPairs
from vladmap.mapping.verdicts import judgements, with_judgements
from vladmap.photos.ids import content_hash
from vladmap.pipeline.run import Run
from vladmap.pipeline.stages.verify import VERIFY

_PART = "judgement"


def publish_verdicts(run: Run, judged: JudgedPairs, fits: pa.Table | None) -> int:
    """Write verdicts, probabilities and their reasons into `two_views/`; return how many shards
    were written.

    A shard is written only where they differ from what it has, and one at a time is held in memory.
    Its identity stays: what was made from its geometry is not made again.
    """
    every = judgements(judged, fits)
    stage = VERIFY.ledger_name(run.options)
    written = 0
    for shard, entry in sorted(run.ledger(VERIFY).items()):
        mine = every.filter(pa.array(judged.pair_shard == shard, pa.bool_()))
        identity = content_hash(storage.table_bytes(mine))
        if entry.parts.get(_PART) == identity:
            continue
        table = storage.read_table(run.atlas.path(entry.file.path))
        commit_again(run.atlas.root, stage, entry, with_judgements(table, mine), {_PART: identity})
        written += 1
    if written:
        run.ledger(VERIFY, refresh=True)
    return written
