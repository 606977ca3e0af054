"""The evidence that candidates are re-ranked by."""

from __future__ import annotations

import pytest

from vladmap.transforms.rerank import RerankSettings, evidence


def test_an_unknown_way_to_rerank_is_no_other_one() -> None:
    """Issue 19, 12: what was not known was taken for patches."""
    with pytest.raises(ValueError, match="unknown way to re-rank: 'patches'"):
        evidence("", RerankSettings("patches", 5))
    assert evidence("", RerankSettings()) is None
