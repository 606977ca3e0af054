"""NetVLAD: soft assignment of local descriptors to centres, and the sums of their residuals.

Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place recognition"
(CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.base import DescriptorModel, Floats, ModelSpec, Pixels, batches, digest
from models.local import ConvolutionalFeatures
from models.whitening import Whitening, WhiteningLayer, whitening_arrays


class NetVLAD(nn.Module):
    """(N, D, H, W) feature maps -> (N, K * D) unit vectors, cluster-major.

    The softmax of `assignment` (K, D) times the L2-normalised local descriptor, plus `bias` (K),
    shares each location out among the clusters; `centres` (K, D) are what residuals are taken
    from. The two parametrisations in use are built by `v1` and `v2`; weights of a trained model
    may have moved away from both.

    `floor` is the least length that intra-normalisation divides by, in units of a residual. As
    published it is nil, and a cluster that a hundredth of one location fell to counts as much as
    any other; raised, such a cluster counts by what it holds.
    """

    def __init__(
        self, centres: Tensor, assignment: Tensor, bias: Tensor | None, floor: float = 1e-12
    ) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("centres", centres.float())
        self.register_buffer("assignment", assignment.float())
        self.register_buffer("bias", torch.zeros(len(centres)) if bias is None else bias.float())

    centres: Tensor
    assignment: Tensor
    bias: Tensor

    @classmethod
    def v1(cls, centres: Tensor, alpha: float) -> NetVLAD:
        """Assignment by the cosine to each centre, times `alpha`; no bias."""
        return cls(centres, alpha * functional.normalize(centres.double(), dim=1), None)

    @classmethod
    def v2(cls, centres: Tensor, alpha: float, floor: float = 1e-12) -> NetVLAD:
        """Assignment by -alpha times the squared distance to each centre.

        The larger `alpha`, the closer to VLAD's hard assignment.
        """
        exact = centres.double()
        return cls(centres, 2 * alpha * exact, -alpha * exact.square().sum(dim=1), floor)

    @property
    def clusters(self) -> int:
        return self.centres.shape[0]

    def forward(self, features: Tensor) -> Tensor:
        local = functional.normalize(features.float().flatten(2), dim=1)  # (N, D, L)
        shares = torch.softmax(self.assignment @ local + self.bias[:, None], dim=1)  # (N, K, L)
        # sum_l a_k(x_l) (x_l - c_k), as two matrix products: the N x K x D x L residuals never are
        residuals = shares @ local.transpose(1, 2) - shares.sum(2)[:, :, None] * self.centres
        residuals = functional.normalize(residuals, dim=2, eps=self.floor)
        return functional.normalize(residuals.flatten(1), dim=1)


class NetVladModel(DescriptorModel):
    """A backbone, NetVLAD on its feature map and, where the file holds one, PCA-whitening."""

    def __init__(
        self,
        name: str,
        features: ConvolutionalFeatures,
        aggregation: NetVLAD,
        whitening: Whitening | None = None,
    ) -> None:
        self._features = features
        arrays = {key: value.numpy() for key, value in aggregation.state_dict().items()}
        arrays |= whitening_arrays(whitening)
        self.spec = ModelSpec(
            name=name,
            dimension=len(whitening.bias) if whitening else aggregation.centres.numel(),
            patch_sizes=(),
            input_size=features.input_size,
            fingerprint=digest(f"{name} netvlad 1 {aggregation.floor} {features.digest}", arrays),
        )
        layers = [aggregation] if whitening is None else [aggregation, WhiteningLayer(whitening)]
        self._pool = nn.Sequential(*layers).to(features.device)

    @torch.inference_mode()
    def describe(self, images: Sequence[Pixels]) -> Floats:
        described = np.empty((len(images), self.spec.dimension), np.float32)
        for positions, pixels in batches(
            images, self._features.input_size, self._features.batch_size
        ):
            described[positions] = self._pool(self._features.maps(pixels)).cpu().numpy()
        return described
