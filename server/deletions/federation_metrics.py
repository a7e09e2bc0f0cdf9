"""What Prometheus reads of the federation: its members' certificates, its rounds and its weights. No site is named."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.server.members.register import MemberRegister

_EVENTS = "events.jsonl"
_WEIGHTS = "*.safetensors"


class FederationCollector(Collector):
    """Looks when it is asked: at the register of members, and at what runs have left in a folder, at any depth."""

    def __init__(self, register: MemberRegister, runs: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self._register = register
        self._runs = runs
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        yield from self._members()
        yield from self._rounds()
        weights = [file.stat().st_mtime for file in self._runs.rglob(_WEIGHTS)]
        yield GaugeMetricFamily("fedmunkey_models", "Files of shared weights that runs have left.", value=len(weights))
        yield GaugeMetricFamily(
            "fedmunkey_model_timestamp_seconds", "When the last of them was written.", value=max(weights, default=0.0)
        )

    def _members(self) -> Iterator[Metric]:
        good = [member for member in self._register.list() if member.state(self._clock()) in ("in use", "waiting")]
        members = GaugeMetricFamily("fedmunkey_members", "Members with a certificate that is good.", labels=["role"])
        for role in MemberRole:
            members.add_metric([role.value], len({member.name for member in good if member.role is role}))
        yield members
        latest = {member.name: member.not_after.timestamp() for member in sorted(good, key=lambda one: one.not_after)}
        yield GaugeMetricFamily(
            "fedmunkey_certificate_end_timestamp_seconds",
            "When the first of the members' certificates ends.",
            value=min(latest.values(), default=float("inf")),
        )

    def _rounds(self) -> Iterator[Metric]:
        rounds = list(self._read_rounds())
        last: dict[str, Any] = rounds[-1] if rounds else {}
        for name, text, value in (
            ("rounds", "Rounds of the run that wrote last.", len(rounds)),
            ("last_round_sites", "Sites that took the last round's weights over.", len(last.get("sites", ()))),
            ("last_round_failed_sites", "Sites that did not take part in it.", len(last.get("failures", ()))),
            ("last_round_seconds", "Seconds from its opening to its end.", last.get("seconds", 0.0)),
            (
                "last_round_test_accuracy",
                "Mean over the sites that tell theirs, as they round it; NaN where none does.",
                last.get("mean", {}).get("test-accuracy", float("nan")),
            ),
        ):
            yield GaugeMetricFamily(f"fedmunkey_{name}", text, value=value)
        newest = self._newest()
        yield GaugeMetricFamily(
            "fedmunkey_last_round_timestamp_seconds",
            "When a run wrote last.",
            value=newest.stat().st_mtime if newest is not None else 0.0,
        )

    def _newest(self) -> Path | None:
        return max(self._runs.rglob(_EVENTS), key=lambda file: file.stat().st_mtime, default=None)

    def _read_rounds(self) -> Iterator[dict[str, Any]]:
        newest = self._newest()
        if newest is None:
            return
        with newest.open(encoding="utf-8") as lines:
            for line in lines:
                # The last line may be half written.
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == "round":
                        yield event
