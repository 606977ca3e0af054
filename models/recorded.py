"""A function of stacks of images as one launch a stack, for the sizes that occur often.

Launching a network's some two hundred kernels one by one takes a GPU's driver longer than they run.
A CUDA graph records them once, on buffers that stay, and launches them all at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from torch import Tensor

log = logging.getLogger("vladmap")

Function = Callable[[Tensor], Tensor]
"""(B, H, W, 3) uint8 on the device -> (B, N), a row an image that depends on it alone."""

Replay = Callable[[], Tensor]
"""Runs what was recorded over what its input holds now; the output, which the next run changes."""

Recorder = Callable[[Function, Tensor], Replay]
"""Records a function of an input that stays where it is."""

OFTEN = 2
"""Full stacks of a size after which it is recorded."""

MOST = 16
"""Sizes that are recorded at most: each keeps its input and its output on the device."""

_FEWEST = 4  # images of a stack that is filled


def filled(stack: Tensor, most: int) -> Tensor:
    """(B, H, W, 3) with black images after its own: 4, 16, 64 and so on, but at most `most`.

    cuDNN makes plans anew for each number of images of a size, a second for a network: longer than
    a GPU takes for the black ones.
    """
    count = _FEWEST
    while count < len(stack):
        count *= 4
    count = max(len(stack), min(count, most))
    if count == len(stack):
        return stack
    whole = stack.new_zeros(count, *stack.shape[1:])
    whole[: len(stack)].copy_(stack)
    return whole


class OftenRecorded:
    """`function`, recorded for the first sizes of which stacks of `batch_size` come often.

    Stacks of recorded sizes that are not full fill the input's first places; what the others give
    is left out. All other stacks go through `function` itself, `filled`, and all do as they are
    where there is no `recorder`. Once a size cannot be recorded, for want of memory or by an
    operation that does not allow it, no other is tried. One thread at a time: recordings share
    their memory.
    """

    def __init__(self, function: Function, batch_size: int, recorder: Recorder | None) -> None:
        self._function, self._batch_size, self._recorder = function, batch_size, recorder
        self._on_gpu = recorder is not None
        self._full: Counter[tuple[int, ...]] = Counter()
        self._recorded: dict[tuple[int, ...], tuple[Tensor, Replay]] = {}

    def __call__(self, stack: Tensor) -> Tensor:
        """The function of a stack; the result holds until the next call."""
        size = tuple(stack.shape[1:])
        if self._recorder is not None and len(stack) == self._batch_size:
            self._full[size] += 1
            room = size not in self._recorded and len(self._recorded) < MOST
            if room and self._full[size] > OFTEN:
                self._record(self._recorder, stack)
        held = self._recorded.get(size)
        if not self._on_gpu or len(stack) > self._batch_size:
            return self._function(stack)
        if held is None:
            return self._function(filled(stack, self._batch_size))[: len(stack)]
        place, replay = held
        place[: len(stack)].copy_(stack, non_blocking=True)
        return replay()[: len(stack)]

    def shrink(self, batch_size: int) -> None:
        """From here on stacks of fewer images are full ones; what was recorded is given up."""
        self._batch_size = batch_size
        self._recorded.clear()

    def give_up(self) -> bool:
        """Record nothing from here on, and free what recordings hold; whether there were any."""
        held = bool(self._recorded)
        self._recorder = None
        self._recorded.clear()
        return held

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """(H, W, 3) of the sizes that are recorded."""
        return [*self._recorded]

    def _record(self, recorder: Recorder, stack: Tensor) -> None:
        place = stack.clone()
        try:
            self._recorded[tuple(stack.shape[1:])] = place, recorder(self._function, place)
        except Exception as error:
            self._recorder = None
            why = " ".join(str(error).split())[:200]
            log.warning(
                "describe: no CUDA graph for %s x %s, nor for other sizes from here on: %s",
                *stack.shape[2:0:-1],
                why,
            )
