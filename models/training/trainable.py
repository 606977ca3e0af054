"""A descriptor model whose weights can be trained and saved for `models.load_model`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vladmap.models.aggregations.base import Aggregation
from vladmap.models.aggregations.registry import AGGREGATIONS
from vladmap.models.backbones.registry import Backbone
from vladmap.models.base import Floats, Pixels, batches
from vladmap.models.checkpoints.layouts import Network, to_bytes
from vladmap.models.kinds import TRAINABLE
from vladmap.models.learning import learn_centres
from vladmap.models.local import PRECISIONS, sample
from vladmap.models.whitening import Whitening, fit_whitening
from vladmap.schemas.rejects import UserError
from vladmap.weights.devices import convolutions, torch_device
from vladmap.weights.entries import Entries
from vladmap.weights.preprocessing import Size

FORMAT = "vladmap"

LOCAL_AN_IMAGE = 100
"""Local descriptors of an image that the clusters to start from are learnt from."""

_STILL = 1e-6  # of a channel that no image moves

# Measured on two cores: more images at a time overflow the caches and halve the rate.
_ON_CPU, _ON_GPU = 2, 64


class TrainableModel(nn.Module):
    """(B, H, W, 3) uint8 images at the model's input size -> (B, D) unit vectors.

    It computes the same as the model that `models.load_model` makes from its `to_bytes`. The last
    `tuned` stages of the backbone are trained, with the aggregation and the projection. The stages
    before them are frozen and run in float32 without a graph: they take the time of an inference,
    or none where their outputs are cached.
    """

    def __init__(
        self,
        backbone: Backbone,
        aggregation: Aggregation,
        whitening: Whitening | None = None,
        tuned: int = 0,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        """`precision` is that of the tuned stages while they learn.

        Raises UserError for more stages than there are, an unknown precision or a missing GPU.
        """
        super().__init__()
        if precision not in PRECISIONS:
            raise UserError(
                f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}"
            )
        if not aggregation.trainable:
            raise UserError(
                f"a model that ends in {type(aggregation).__name__} is not trained here: "
                f"start from one of {', '.join(TRAINABLE)}, or from a backbone"
            )
        self.device = torch_device(device)
        self.precision = PRECISIONS[precision]
        if self.precision == torch.float16 and self.device.type == "cpu":
            raise UserError("a CPU does not train in float16: choose float32 or bfloat16")
        self.preprocessing = backbone.preprocessing
        self._name = backbone.name
        self.backbone = backbone.network.to(memory_format=torch.channels_last)
        self._cut = _freeze(self.backbone, tuned)
        self.aggregation = with_parameters(aggregation)
        self.weight = self.bias = None
        if whitening is not None:
            self.project(whitening)
        mean, std = self.preprocessing.mean, self.preprocessing.std
        self.register_buffer("_mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer(
            "_scale", 1 / (255 * torch.tensor(std)[:, None, None]), persistent=False
        )
        self.to(self.device)

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    _mean: Tensor
    _scale: Tensor

    @property
    def dimension(self) -> int:
        return self.aggregation.dimension if self.bias is None else len(self.bias)

    @property
    def size(self) -> Size:
        """Which size it wants its images at."""
        return self.preprocessing.size

    @property
    def apart(self) -> bool:
        """Whether there are frozen stages that can be computed separately from the rest."""
        return self._cut > 0

    @property
    def at_once(self) -> int:
        """Images that are computed together, for speed alone."""
        return _ON_CPU if self.device.type == "cpu" else _ON_GPU

    def project(self, whitening: Whitening) -> None:
        """End in a projection that starts as `whitening` (d, D) and learns with the rest."""
        self.weight = nn.Parameter(torch.from_numpy(whitening.weight).to(self.device))
        self.bias = nn.Parameter(torch.from_numpy(whitening.bias).to(self.device))

    @torch.no_grad()
    def frozen(self, pixels: Tensor) -> Tensor:
        """The float32 output of the frozen stages for (B, H, W, 3) uint8 images."""
        x = (pixels.permute(0, 3, 1, 2).float() - self._mean) * self._scale
        x = x.contiguous(memory_format=torch.channels_last)
        through: Callable[..., Tensor] = self.backbone.through  # type: ignore[assignment]
        return through(x, 0, self._cut) if self._cut else x

    def learning(self, maps: Tensor) -> Tensor:
        """(B, D) descriptors from the output of `frozen`."""
        lower = self.training and self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=lower):
            through: Callable[..., Tensor] = self.backbone.through  # type: ignore[assignment]
            features = through(maps, self._cut) if self._cut else self.backbone(maps)
        pooled = self.aggregation(features.float())
        if self.weight is not None:
            pooled = functional.linear(pooled, self.weight, self.bias)
        return functional.normalize(pooled, dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.learning(self.frozen(pixels))

    @torch.no_grad()
    def describe(self, images: Sequence[Pixels]) -> Floats:
        """(N, D) float32 of (H, W, 3) uint8 images of any sizes, in float32."""
        learning = self.training
        self.eval()
        descriptors = np.empty((len(images), self.dimension), np.float32)
        with convolutions():
            for positions, stack in batches(images, self.size, self.at_once):
                pixels = torch.from_numpy(stack).to(self.device)
                descriptors[positions] = self(pixels).cpu().numpy()
        self.train(learning)
        return descriptors

    def tuned_parameters(self) -> list[Tensor]:
        """The backbone's parameters that learn."""
        return [p for p in self.backbone.parameters() if p.requires_grad]

    def head_parameters(self) -> list[Tensor]:
        """The parameters of the aggregation and the projection."""
        own = [p for p in (self.weight, self.bias) if p is not None]
        return [*self.aggregation.parameters(), *own]

    def network(self) -> Network:
        """The model as it is now, its weights copied to the CPU."""
        weights: dict[str, Tensor] = self.backbone.unfolded()  # type: ignore[operator]
        backbone = Backbone(self._name, self.backbone, weights, self.preprocessing)
        whitening = None
        if self.weight is not None and self.bias is not None:
            whitening = Whitening(_array(self.weight), _array(self.bias))
        return Network(
            FORMAT, backbone, _with_buffers(self.aggregation, backbone.channels), whitening
        )

    def to_bytes(self, source: bytes = b"") -> bytes:
        """The model as a safetensors file that `models.load_model` reads.

        `source` are the bytes of the file that training started from.
        """
        return to_bytes(self.network(), source)


def trainable(
    net: Network, tuned: int = 0, device: str = "cpu", precision: str = "float32"
) -> TrainableModel:
    """The model in a file, ready to learn.

    Raises UserError where it is a backbone alone, or its aggregation is not one that is trained.
    """
    if net.aggregation is None:
        raise UserError("training goes on from a whole model, and this is a backbone alone")
    return TrainableModel(net.backbone, net.aggregation, net.whitening, tuned, device, precision)


def learnt_aggregation(
    kind: str,
    backbone: Backbone,
    images: Iterable[Sequence[Pixels]],
    clusters: int = 64,
    seed: int = 0,
    device: str = "cpu",
    per_image: int = LOCAL_AN_IMAGE,
) -> Aggregation:
    """The aggregation to start from, its clusters by k-means on local descriptors of `images`.

    `kind` is one of TRAINABLE; `images` come in batches, and `per_image` local descriptors of
    each image are drawn as for a vocabulary (`models.learning`). Raises UserError where there are
    fewer than clusters, ValueError for a kind that is not known.
    """
    if kind not in TRAINABLE:
        raise ValueError(f"unknown aggregation {kind!r}: choose one of {', '.join(TRAINABLE)}")
    layer = AGGREGATIONS[kind]
    if layer.needs_no_weights:
        return layer.on_backbone(backbone.channels)
    features = backbone.features(device)
    drawn = [sample(features, part, per_image, seed) for part in images]
    local = np.concatenate(drawn or [np.empty((0, features.dimension), np.float32)])
    learnt = learn_centres(local, clusters + layer.spare_words, seed)
    return layer.from_words(torch.from_numpy(learnt.rows), learnt.alpha)


@torch.no_grad()
def calibrate(backbone: Backbone, images: Sequence[Pixels], device: str = "cpu") -> Backbone:
    """The backbone with every convolution scaled to outputs of zero mean and unit variance.

    Mean and variance are those on the (H, W, 3) uint8 `images`, as with batch normalisation. This
    is for networks that were never trained: with random weights they hardly learn otherwise.

    Mishkin & Matas, "All you need is a good init" (ICLR 2016).
    """
    network = backbone.network.to(torch_device(device)).eval().requires_grad_(False)

    def scale(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        mean = output.mean(dim=(0, 2, 3))
        gain = 1 / output.std(dim=(0, 2, 3)).clamp(min=_STILL)
        layer.weight *= gain[:, None, None, None]
        layer.bias.copy_((layer.bias - mean) * gain)
        return (output - mean[:, None, None]) * gain[:, None, None]

    hooks = [
        layer.register_forward_hook(scale)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    (_, stack), *_ = batches(images, backbone.preprocessing.size, len(images))
    mean, std = (
        torch.tensor(x)[:, None, None]
        for x in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    network(((torch.from_numpy(stack).permute(0, 3, 1, 2) / 255 - mean) / std).to(device))
    for hook in hooks:
        hook.remove()
    weights: dict[str, Tensor] = network.unfolded()  # type: ignore[operator]
    return dataclasses.replace(backbone, weights=weights)


def learnt_projection(descriptors: NDArray[np.float32], dimension: int) -> Whitening:
    """PCA-whitening of (n, D) descriptors to start a projection from, at the scale of their norm.

    Descriptors are normalised after the projection, so its scale is arbitrary; it is chosen so that
    they have about unit length, and a step of the optimiser changes it as much as other weights.
    Raises UserError as `fit_whitening` does.
    """
    fitted = fit_whitening(descriptors, dimension)
    projected = descriptors @ fitted.weight.T + fitted.bias
    scale = np.float32(1 / np.linalg.norm(projected, axis=1).mean())
    return Whitening(fitted.weight * scale, fitted.bias * scale)


def with_parameters(aggregation: Aggregation) -> Aggregation:
    """The same aggregation, with its buffers turned into parameters that have gradients."""
    for name, buffer in list(aggregation.named_buffers(recurse=False)):
        delattr(aggregation, name)
        aggregation.register_parameter(name, nn.Parameter(buffer.detach().clone()))
    return aggregation


def _with_buffers(aggregation: Aggregation, channels: int) -> Aggregation:
    """A copy of the aggregation with buffers in place of parameters, for inference."""
    state = {
        name: tensor.detach().cpu().clone() for name, tensor in aggregation.state_dict().items()
    }
    entries = Entries("the model in training", state)
    return aggregation.from_tensors(entries, channels, aggregation.card())


def _freeze(network: nn.Module, tuned: int) -> int:
    """Let only the last `tuned` stages learn; returns how many can be computed apart from them."""
    stages: list[nn.Module] = network.stages()  # type: ignore[operator]
    if not 0 <= tuned <= len(stages):
        raise UserError(f"the backbone has {len(stages)} stages, {tuned} of them cannot be tuned")
    network.requires_grad_(tuned == len(stages))
    for stage in stages[len(stages) - tuned :]:
        stage.requires_grad_(True)
    return len(stages) - tuned if hasattr(network, "through") else 0


def _array(parameter: Tensor) -> NDArray[np.float32]:
    return parameter.detach().cpu().numpy().copy()
