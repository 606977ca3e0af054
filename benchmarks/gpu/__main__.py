"""What the GPU path does, in one table: on a GPU its rates, without one what a CPU can prove.

    python -m benchmarks.gpu [--small] [--device cpu|cuda] [--only PART ...] [--seconds N]
    python -m benchmarks.gpu --only prepare --folder DIR

Parts: the bare network; the whole describe stage on 8,000 JPEGs of 640 x 480 and 2,000 of 2048 x
1536 in forty H3 cells; bare decoders; agreement with float32 on the CPU; re-ranking; FAISS; local
features; recall by either decoder, where --photos has the sets; and proofs that need no GPU.
Other photographs are made up, and VGG16 has seeded random weights: rates do not depend on them.
Nothing is downloaded. A part that fails is a line of the table and the others go on; after
--seconds no part begins. Small sizes are the default without a GPU: then figures say that
everything runs, not how fast a GPU is.

`prepare` writes the photographs of the describe stage to a folder, which a machine with a GPU then
has at the same path: its time is not spent on them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu import describing, local, proofs, searching
from benchmarks.gpu.describing import Bench
from benchmarks.gpu.inputs import FULL, SMALL
from benchmarks.gpu.table import LeftOut, Table
from vladmap.models.memory import one_thread_a_call
from vladmap.weights.devices import torch_device

PARTS: dict[str, Callable[[Bench], None]] = {
    "network": describing.network,
    "describe": describing.stage,
    "agreement": describing.agreement,
    "decode": describing.decoders,
    "rerank": searching.reranking,
    "search": searching.search,
    "features": local.features,
    "recall": describing.recall,
    "prepare": describing.prepare,
    "batches": proofs.batches,
    "own time": proofs.own_time,
}


def main(arguments: list[str] | None = None) -> int:
    """Fill the table; exit code 1 where a part failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    there = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if there else "cpu")
    parser.add_argument("--small", action="store_true", help="small sizes on a GPU, too")
    parser.add_argument("--only", action="append", choices=[*PARTS], metavar="PART")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="has sped/, gardens-point/")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where photographs stay, and are found again"
    )
    parser.add_argument("--seconds", type=float, default=280, help="after which no part begins")
    options = parser.parse_args(arguments)
    device = torch_device(options.device)
    if device.type == "cpu":
        one_thread_a_call()
    parts = options.only or [name for name in PARTS if name != "prepare"]
    small = options.small or (device.type == "cpu" and parts != ["prepare"])
    print(f"{_machine(device)}{', small sizes' if small else ''}\n", flush=True)
    table, began = Table(), time.monotonic()
    table.begin()
    with tempfile.TemporaryDirectory() as temporary:
        root, scale = Path(temporary), SMALL if small else FULL
        bench = Bench(table, device, scale, root, options.folder or root, options.photos)
        for name in parts:
            table.run(name, lambda name=name: _part(bench, name, began + options.seconds))  # type: ignore[misc]
    seconds = time.monotonic() - began
    print(f"\n{seconds:.0f} s; failed: {', '.join(table.failed) or 'nothing'}")
    return 1 if table.failed else 0


def _part(bench: Bench, name: str, end: float) -> None:
    if time.monotonic() > end:
        raise LeftOut("the time was over")
    PARTS[name](bench)


def _machine(device: torch.device) -> str:
    cores = f"{os.cpu_count()} cores, torch {torch.__version__}"
    if device.type == "cpu":
        return f"There is no GPU here: no rate below is a GPU's. {cores}"
    return f"{torch.cuda.get_device_name()}, {cores}"


if __name__ == "__main__":
    sys.exit(main())
