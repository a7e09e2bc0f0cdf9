from __future__ import annotations

import socket
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import RENEW_DAYS
from fedmunkey.server.deletions.metrics import served_metrics
from fedmunkey.server.ledger.ledger import Ledger
from tests.releases import give
from tests.server.ledger.ledger_contract import ANSWER, REQUEST, Clock


def read(address: str) -> dict[str, float]:
    text = httpx.get(f"http://{address}/metrics", trust_env=False).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_metrics_say_whether_deletions_get_through(ledger: Ledger, clock: Clock) -> None:
    with served_metrics(ledger, "127.0.0.1:0") as address:
        ledger.enter(REQUEST)
        ledger.note_contact(["hospital-1"], lasts=timedelta(hours=2)).result()
        clock.time += timedelta(hours=1)
        waiting = read(address)
        ledger.acknowledge(ANSWER)
        clock.time += timedelta(days=40)
        late = read(address)

    assert waiting['fedmunkey_requests{state="dispatched"}'] == 1
    assert waiting["fedmunkey_pending_orders"] == 2
    assert 3600 <= waiting["fedmunkey_oldest_pending_order_seconds"] < 3610
    assert (waiting["fedmunkey_connected_sites"], waiting["fedmunkey_sites"]) == (1, 2)
    assert late['fedmunkey_requests{state="overdue"}'] == 1
    assert (late["fedmunkey_pending_orders"], late["fedmunkey_connected_sites"]) == (1, 0)


def test_time_to_erase_is_measured_when_the_last_site_has_answered(ledger: Ledger, clock: Clock) -> None:
    with served_metrics(ledger, "127.0.0.1:0") as address:
        ledger.enter(REQUEST, ["hospital-1"])
        before = read(address)
        clock.time += timedelta(seconds=8)
        ledger.acknowledge(ANSWER)
        ledger.acknowledge(ANSWER)
        after = read(address)

    assert not [name for name in before if name.startswith("fedmunkey_erase_seconds")]
    assert after['fedmunkey_erase_seconds_count{state="completed"}'] == 1
    assert after['fedmunkey_erase_seconds_sum{state="completed"}'] == pytest.approx(9, abs=1)
    assert after['fedmunkey_erase_seconds_bucket{le="5.0",state="completed"}'] == 0
    assert after['fedmunkey_erase_seconds_bucket{le="10.0",state="completed"}'] == 1


def test_renewals_that_are_owed_are_counted_and_alarm_when_they_are_late(ledger: Ledger, clock: Clock) -> None:
    before = ReleasedWeights("ab" * 32, 10, 10, (SiteContribution("hospital-1", 0, b""),))
    give(ledger, before)
    with served_metrics(ledger, "127.0.0.1:0") as address:
        ledger.enter(REQUEST, ["hospital-1"])
        nothing = read(address)
        ledger.acknowledge(replace(ANSWER, guarantee=Guarantee.EXACT))
        owed = read(address)
        clock.time += timedelta(days=RENEW_DAYS, hours=1)
        late = read(address)
        give(ledger, replace(before, contributions=(SiteContribution("hospital-1", 1, b""),)))
        renewed = read(address)

    names = ("fedmunkey_renewals_owed", "fedmunkey_renewal_late_seconds")
    shown = [tuple(values[name] for name in names) for values in (nothing, owed, renewed)]
    assert shown == [(0, 0), (1, 0), (0, 0)]
    assert owed['fedmunkey_requests{state="erased"}'] == 1
    assert 3600 <= late["fedmunkey_renewal_late_seconds"] < 3610


def test_no_metric_names_a_site_or_a_request(ledger: Ledger) -> None:
    with served_metrics(ledger, "127.0.0.1:0") as address:
        ledger.enter(REQUEST)
        text = httpx.get(f"http://{address}/metrics", trust_env=False).text

    assert "hospital" not in text
    assert "request-1" not in text


def test_address_that_is_taken_is_refused(ledger: Ledger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidSetting, match=f"{address} .*in use.*--metrics"), served_metrics(ledger, address):
            pass
    with pytest.raises(InvalidSetting, match="host:port"), served_metrics(ledger, "nowhere"):
        pass
