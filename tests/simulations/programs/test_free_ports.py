from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fedmunkey.simulations.programs import free_ports as module
from fedmunkey.simulations.programs.free_ports import HOST, free_ports


def test_ports_differ_can_be_listened_on_and_are_none_that_the_system_gives_out() -> None:
    ports = free_ports(8)

    assert len(set(ports)) == 8
    first_given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < first_given_out
    for port in ports:
        socket.create_server((HOST, port)).close()


def test_port_that_is_listened_on_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(module, "_candidates", lambda: iter([port, 0, port, 0]))

        assert port not in free_ports(2)


@pytest.mark.parametrize("given_out", ["1024 65535", None])
def test_where_the_system_gives_out_all_ports_they_are_free_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_out: str | None
) -> None:
    monkeypatch.setattr(module, "_GIVEN_OUT", tmp_path / "range")
    if given_out is not None:
        (tmp_path / "range").write_text(given_out)

    assert len(set(free_ports(3))) == 3
