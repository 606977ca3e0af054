"""Tasks in a file: what is read back is what was written, or a clear error."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from vladmap.atlas import layout, storage
from vladmap.atlas.task_files import read_task, write_tasks
from vladmap.schemas.records import Task
from vladmap.schemas.rejects import DamagedFile


def tasks(count: int, around: int = 3) -> list[Task]:
    shards = [f"g0000-{number:03d}-881e15b71dfffff-000" for number in range(count)]
    named = [(f"describe/{shard}", storage.digest(shard.encode())) for shard in shards]
    return [
        Task(
            shard, "881e15b71dfffff", f"pairs/{shard}.parquet", "f" * 32,
            reads=tuple(("descriptors", path) for path, _ in named[number : number + around]),
            inputs=tuple(named[number : number + around]),
            digests=tuple(named[number : number + around]),
        )
        for number, shard in enumerate(shards)
    ]  # fmt: skip


def test_each_task_is_read_back_alone_and_knows_where_it_lies(tmp_path: Path) -> None:
    written = tasks(5)
    stored = write_tasks(str(tmp_path), "index places", written)
    assert [each[0] for each in stored] == [task.shard for task in written]
    for each, task in reversed(list(zip(stored, written, strict=True))):
        read = read_task(each, str(tmp_path))
        assert read == task
        assert read.stored == each
        assert read.digest_of == dict(task.digests)


def test_what_beam_carries_does_not_grow_with_the_shards_that_a_task_names(tmp_path: Path) -> None:
    few, many = (
        write_tasks(str(tmp_path), "pair", tasks(70, around)) for around in (1, 60)
    )  # fmt: skip
    assert abs(len(pickle.dumps(many)) - len(pickle.dumps(few))) < 10 * len(many)
    assert len(pickle.dumps(many[0])) < 200


def test_another_run_s_tasks_are_not_taken_for_this_run_s(tmp_path: Path) -> None:
    stored = write_tasks(str(tmp_path), "pair", tasks(5))
    write_tasks(str(tmp_path), "pair", tasks(5, around=2))
    for each in stored:
        with pytest.raises(DamagedFile, match="this run's tasks"):
            read_task(each, str(tmp_path))
    (tmp_path / layout.task_file("pair")).unlink()
    with pytest.raises(FileNotFoundError):
        read_task(stored[0], str(tmp_path))
