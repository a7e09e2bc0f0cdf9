from __future__ import annotations

import pytest

from fedmunkey.common.settings.addresses import network_of


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
