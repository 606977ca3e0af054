"""Features of a second kind: who loads them, and who reads them of what was verified."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vladmap.atlas import layout
from vladmap.pipeline.local_features import second_reads
from vladmap.pipeline.option_values import checked
from vladmap.pipeline.options import BuildOptions
from vladmap.pipeline.stage import Step
from vladmap.pipeline.stages.verify import FEATURES, SECOND, VERIFY
from vladmap.schemas.rejects import UserError
from vladmap.transforms import second_look, verify

ONE, OTHER = "g0000-0000-none-0", "g0000-0001-none-0"


def run_with(inputs: dict[str, str], **options: str) -> Any:
    ledger = {"pairs-1": SimpleNamespace(inputs=inputs), "pairs-2": SimpleNamespace(inputs={})}

    def entries(step: Step) -> Any:
        assert step is VERIFY
        return ledger

    return SimpleNamespace(options=BuildOptions(**options), ledger=entries)


def test_keypoints_are_read_as_the_pairs_were_verified_whatever_the_options_say() -> None:
    inputs = {
        f"features-sift/{ONE}": "a", f"features-xfeat/{ONE}": "b", f"features-xfeat/{OTHER}": "c",
        "pair/pairs-1": "d",
    }  # fmt: skip
    for between in ("none", "xfeat", "aliked"):
        run = run_with(inputs, between_drives=between)
        assert second_reads(run, ["pairs-1", "pairs-2"], [ONE]) == (
            [(layout.SECOND_FEATURES, layout.features("xfeat", ONE))],
            [(f"features-xfeat/{ONE}", "b")],
        )
        assert second_reads(run, ["pairs-2"], [ONE]) == ([], [])


def test_the_second_kind_shares_ledger_and_fingerprint_with_an_atlas_of_that_kind() -> None:
    second, alone = BuildOptions(between_drives="xfeat"), BuildOptions(features="xfeat")
    assert SECOND.ledger_name(second) == FEATURES.ledger_name(alone)
    assert SECOND.fingerprint_of(second) == FEATURES.fingerprint_of(alone)


def test_without_the_option_pairs_keep_the_fingerprint_they_had() -> None:
    assert VERIFY.fingerprint_of(BuildOptions()) == VERIFY.fingerprint(detector="sift")
    assert not SECOND.applies(BuildOptions())
    changed = VERIFY.fingerprint_of(BuildOptions(between_drives="xfeat"))
    assert changed != VERIFY.fingerprint_of(BuildOptions())


def test_a_second_kind_that_is_the_first_is_refused() -> None:
    with pytest.raises(UserError, match="with --features xfeat leave it out"):
        checked({"features": "xfeat", "between_drives": "xfeat"})


@pytest.mark.parametrize(("kind", "network"), [("xfeat", "lighterglue"), ("aliked", "lightglue")])
def test_a_worker_loads_the_network_of_the_second_kind_for_the_device(
    kind: str, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(second_look, "load_matcher", lambda *names: loaded.append(names))
    monkeypatch.setattr(verify, "load_matcher", lambda *names: None)
    verify._Verify("atlas", 1, "sift", "nearest", "cuda", kind).setup()
    assert loaded == [(kind, network, "cuda")]
