"""What a model costs: operations of a forward pass, and numbers to keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """`flops`: floating-point operations, a multiplication and an addition being two."""

    flops: int
    parameters: int


def cost(network: nn.Module, aggregation: nn.Module, width: int, height: int) -> Cost:
    """Of describing one RGB image of `width` x `height` pixels.

    Convolutions and matrix products are counted, which are all but a per cent of the work. An
    aggregation's centres count as parameters, trained or not.
    """
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        aggregation(network(torch.zeros(1, 3, height, width)))
    modules = (network, aggregation)
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return Cost(counter.get_total_flops(), sum(tensor.numel() for tensor in tensors))
