"""Descriptor models as graphs in ONNX, the exchange format that runtimes other than torch read.

https://onnx.ai. Weights are float32, pixels uint8; normalisation, and what a network resamples by
itself, are in the graph. Images are brought to the size that it takes before: see `size_rule`.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.export import Dim

from vladmap.models.aggregated import AggregatedModel
from vladmap.models.base import DescriptorModel, Pixels, resize
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import FixedSize, InputSize, Size

INPUT, OUTPUT = "pixels", "descriptor"
OPSET = 20
"""Of ONNX's operators: that of ONNX 1.15, which runtimes from the end of 2023 on read."""

_MOST_BYTES = 2**31 - 2**24  # what a file of protocol buffers can hold, and room for its graph
_MOST_SIDE = 1 << 14

# Photographs whose sizes at the input are even and odd, upright and wide, of more cells and fewer.
_TRIED = ((4000, 3000), (3000, 4000), (1001, 763), (397, 401), (500, 290))


def packages() -> tuple[Any, Any]:
    """The modules `onnx` and `onnxruntime`. Raises UserError where a package is missing."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch writes graphs by it
    except ImportError as error:
        raise UserError(
            f"ONNX needs packages that are not installed ({error.name}): "
            "pip install 'vladmap[onnx]'"
        ) from error
    return onnx, onnxruntime


def to_onnx(model: DescriptorModel) -> bytes:
    """The bytes of an ONNX file: (N, H, W, 3) uint8 upright RGB -> (N, D) float32 of unit length.

    N is free; H and W are, too, where the model's input size is not fixed. The same model gives the
    same bytes. Raises UserError for a model that is no network on a CPU in float32, for one of more
    than two gigabytes, which no single ONNX file can hold, and where a package is missing.
    """
    onnx, _ = packages()
    if not isinstance(model, AggregatedModel):
        raise UserError(f"the model {model.spec.name} is no network: there is no graph to export")
    network = model.network().eval()
    weights = sum(each.nbytes for each in network.state_dict().values())
    if weights > _MOST_BYTES:
        raise UserError(
            f"the weights of {model.spec.name} take {weights / 1e9:.1f} GB, and an ONNX file holds "
            "two: choose a smaller backbone"
        )
    size = model.spec.input_size
    width, height = size.target(1280, 950)
    pixels = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    free: dict[int, Any] = {0: Dim("images", min=1, max=_MOST_SIDE)}
    if not isinstance(size, FixedSize):
        free |= {1: Dim("height", min=_least(size), max=_MOST_SIDE)}
        free |= {2: Dim("width", min=_least(size), max=_MOST_SIDE)}
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            network,
            (pixels,),
            dynamo=True,
            dynamic_shapes={INPUT: free},
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _forget_where(proto.graph)
    onnx.helper.set_model_props(proto, facts(model))
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def facts(model: DescriptorModel) -> dict[str, str]:
    """What the file says of itself: of which model it is, and what it wants as input."""
    spec = model.spec
    return {
        "model": spec.name,
        "model_fingerprint": spec.fingerprint,
        "dimension": str(spec.dimension),
        "input": "upright RGB, uint8 (N, H, W, 3)",
        "size": json.dumps(size_rule(spec.input_size), sort_keys=True),
    }


def size_rule(size: Size) -> dict[str, int]:
    """The size in pixels that images are brought to before the graph, for JSON.

    A long side from `smallest` to `largest`; `width` and `height`; or a long side of at most
    `longest` and no side below `shortest`. See `weights.preprocessing`.
    """
    return dict(vars(size))


def largest_difference(model: DescriptorModel, data: bytes) -> float:
    """The largest difference of a number of the unit vectors by onnxruntime and by the model.

    Made-up pictures are described, one and three at a time, in every size that is new among those
    to which photographs of several shapes are brought. Raises UserError where the graph does not
    take them: it was made for fewer numbers or sizes.
    """
    _, onnxruntime = packages()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    sizes = dict.fromkeys(model.spec.input_size.target(*tried) for tried in _TRIED)
    worst = 0.0
    for at, (width, height) in enumerate(sizes):
        batch = _pictures(3 if at == 0 else 1, width, height)
        try:
            (found,) = session.run([OUTPUT], {INPUT: np.stack(batch)})
            if len(batch) > 1:
                (first,) = session.run([OUTPUT], {INPUT: batch[0][None]})
                worst = max(worst, float(np.abs(found[:1] - first).max()))
        except _failures(onnxruntime) as error:
            raise UserError(
                f"the graph of {model.spec.name} does not take {len(batch)} images of "
                f"{width} x {height} pixels: {str(error).splitlines()[0]}"
            ) from error
        worst = max(worst, float(np.abs(found - model.describe(batch)).max()))
    return worst


def _failures(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """What a session raises for inputs that a graph does not take, or cannot compute with."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    return state.InvalidArgument, state.Fail, state.RuntimeException


def _pictures(count: int, width: int, height: int) -> list[Pixels]:
    """Smooth seeded pictures with some noise, (height, width, 3)."""
    generator = np.random.default_rng(0)
    made = []
    for coarse in generator.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8):
        smooth = resize(coarse, (width, height)).astype(np.int16)
        noise = generator.integers(-20, 21, smooth.shape, dtype=np.int16)
        made.append(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    return made


def _least(size: Size) -> int:
    """The least side that the graph is made for, in pixels."""
    return 32 if isinstance(size, InputSize) else max(32, getattr(size, "shortest", 32))


def _forget_where(graph: Any) -> None:
    """Take out which lines of code made each node: paths of the machine that it was made on."""
    graph.doc_string = ""
    for each in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        each.doc_string = ""
        del each.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch tells of its own progress; attention in its parts, which ONNX has."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
