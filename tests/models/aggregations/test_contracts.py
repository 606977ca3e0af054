"""NetVLAD, SuperVLAD and GeM keep what every aggregation must keep."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.models import networks
from tests.models.aggregations.contract import AggregationContract
from vladmap.models.aggregations.gem import GeM
from vladmap.models.aggregations.netvlad import NetVLAD
from vladmap.models.aggregations.supervlad import SuperVLAD


def drawn(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestNetVLAD(AggregationContract):
    def layer(self) -> NetVLAD:
        return NetVLAD(0.2 * drawn(6, 12), 4 * drawn(6, 12, seed=4), drawn(6, seed=5))

    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        own = self.layer()
        rows = networks.netvlad(maps, own.assignment, own.centres, own.bias)
        return rows.flatten() / rows.norm()

    def optional(self) -> tuple[str, ...]:
        return ("bias",)


class TestSuperVLAD(AggregationContract):
    def layer(self) -> SuperVLAD:
        return SuperVLAD(4 * drawn(5, 12), ghosts=2)

    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        local = maps[0].flatten(1)
        local = local / local.norm(dim=0)
        scores = (self.layer().assignment.double() @ local).exp()
        shares = (scores / scores.sum(dim=0))[:3]
        rows = torch.stack([(share * local).sum(dim=1) for share in shares])
        rows = rows / rows.norm(dim=1, keepdim=True)
        return rows.flatten() / rows.norm()


class TestGeM(AggregationContract):
    def layer(self) -> GeM:
        return GeM(12, 2.5)

    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        pooled = (maps[0].flatten(1).clamp(min=1e-6) ** 2.5).mean(dim=1) ** (1 / 2.5)
        return pooled / pooled.norm()


class TestGeMOfUnitLocals(TestGeM):
    unit_length = False

    def layer(self) -> GeM:
        return GeM(12, 2.5, normalise_locals=True)

    def by_definition(self, maps: Tensor, token: Tensor) -> Tensor:
        local = maps[0].flatten(1)
        local = local / local.norm(dim=0)
        return (local.clamp(min=1e-6) ** 2.5).mean(dim=1) ** (1 / 2.5)
