"""What is measured of members, rounds and weights; and what `deploy/` watches is measured."""

from __future__ import annotations

import json
import math
import re
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities import MemberRole
from fedmunkey.server.deletions.federation_metrics import FederationCollector
from fedmunkey.server.deletions.metrics import make_registry
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.register import MemberRegister
from tests.coordinator import fresh_key

DEPLOY = Path(__file__).parents[3] / "deploy"


@pytest.fixture
def collector(ledger: Ledger, tmp_path: Path) -> FederationCollector:
    register = MemberRegister(ledger.engine)
    authority = CertificateAuthority.make("test federation", utc_now())
    for name, role, days in (("hospital-1", MemberRole.SITE, 20.0), ("officer-1", MemberRole.OFFICER, 300.0)):
        register.adopt(authority.issue(fresh_key(), role, name, utc_now(), days=days))
    return FederationCollector(register, tmp_path / "runs")


def read(collector: FederationCollector) -> dict[str, float]:
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    return {sample.name + "".join(sample.labels.values()): sample.value for sample in samples}


def test_members_rounds_and_weights_are_counted_and_nobody_is_named(
    ledger: Ledger, collector: FederationCollector, tmp_path: Path
) -> None:
    before = read(collector)
    folder = tmp_path / "runs" / "2026-11-27"
    folder.mkdir(parents=True)
    failed = {"event": "round", "number": 1, "sites": ["hospital-1"], "failures": {"hospital-2": "off"}, "seconds": 2.5}
    rounds = [{**failed, "mean": {}}, {**failed, "number": 2, "mean": {"test-accuracy": 0.75}}]
    text = "".join(f"{json.dumps(event)}\n" for event in [{"event": "waiting"}, *rounds])
    (folder / "events.jsonl").write_text(text + '{"event": "rou')
    (folder / "last.safetensors").write_bytes(b"")
    after = read(collector)

    assert (before["fedmunkey_rounds"], before["fedmunkey_models"]) == (0, 0)
    assert math.isnan(before["fedmunkey_last_round_test_accuracy"])
    assert (after["fedmunkey_rounds"], after["fedmunkey_models"]) == (2, 1)
    assert (after["fedmunkey_last_round_sites"], after["fedmunkey_last_round_failed_sites"]) == (1, 1)
    assert (after["fedmunkey_last_round_seconds"], after["fedmunkey_last_round_test_accuracy"]) == (2.5, 0.75)
    assert abs(after["fedmunkey_model_timestamp_seconds"] - utc_now().timestamp()) < 600
    assert (after["fedmunkey_memberssite"], after["fedmunkey_membersofficer"]) == (1, 1)
    ends = (utc_now() + timedelta(days=20)).timestamp()
    assert abs(after["fedmunkey_certificate_end_timestamp_seconds"] - ends) < 600
    written = generate_latest(make_registry(ledger, collector)).decode()
    assert "hospital-1" not in written


@pytest.mark.parametrize("name", ["dashboard.json", "alerts.yml"])
def test_what_is_watched_is_measured(ledger: Ledger, collector: FederationCollector, name: str) -> None:
    # What is a site's own, is held against a site (tests/client/commands/test_site_metrics.py).
    watched = set(re.findall(r"\bfedmunkey_(?!site_|prediction)\w+", (DEPLOY / name).read_text()))
    written = generate_latest(make_registry(ledger, collector)).decode()
    measured = set(re.findall(r"^(?:# TYPE )?(fedmunkey_\w+)", written, re.M))
    measured |= {f"{metric}_bucket" for metric in measured if metric.endswith("_seconds")}

    assert watched - measured == set()
    assert len(watched) > 5


def test_dashboard_shows_everything_that_is_measured_of_the_federation(collector: FederationCollector) -> None:
    dashboard = json.loads((DEPLOY / "dashboard.json").read_text())
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])

    assert [metric.name for metric in collector.collect() if metric.name not in shown] == ["fedmunkey_models"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
