from __future__ import annotations

import pytest

from fedmunkey.common.settings.addresses import host_of_peer, network_of


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("nowhere", "nowhere"),
    ],
)
def test_subscriber_is_one_address(host: str, network: str) -> None:
    assert network_of(host) == network


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:192.0.2.1:4711", "192.0.2.1"), ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"), ("unix:", "")],
)
def test_host_of_a_grpc_peer(peer: str, host: str) -> None:
    assert host_of_peer(peer) == host
