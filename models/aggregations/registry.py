"""All aggregations by name. A new one is a module in this folder, and a line here."""

from __future__ import annotations

from vladmap.models.aggregations.base import Aggregation
from vladmap.models.aggregations.boq import BoQ
from vladmap.models.aggregations.cosplace import CosPlace
from vladmap.models.aggregations.gem import GeM
from vladmap.models.aggregations.megaloc import MegaLoc
from vladmap.models.aggregations.netvlad import NetVLAD
from vladmap.models.aggregations.supervlad import SuperVLAD

AGGREGATIONS: dict[str, type[Aggregation]] = {
    aggregation.name: aggregation
    for aggregation in (
        NetVLAD,
        SuperVLAD,
        GeM,
        CosPlace,
        MegaLoc,
        BoQ,
    )
}
