from __future__ import annotations

import os
import signal
import socket

import pytest

from fedmunkey.common.console.serving import Serving, listen, serve, server_for
from fedmunkey.common.errors import InvalidSetting


def test_console_listens_on_its_own_machine_alone() -> None:
    with pytest.raises(InvalidSetting, match=r"0\.0\.0\.0:9460 can be reached from other machines.*127\.0\.0\.1:9460"):
        listen("0.0.0.0:9460")


def test_address_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(InvalidSetting, match=f"{address} cannot be listened on .*--listen"):
            listen(address)


def test_console_that_is_stopped_as_soon_as_it_says_its_link_ends_well() -> None:
    async def nothing(*_: object) -> None:
        pass

    listening, address = listen("127.0.0.1:0")
    ended: list[str] = []
    with listening:
        serving = Serving(server_for(nothing, address), [listening])
        serve([serving], lambda: os.kill(os.getpid(), signal.SIGINT), lambda: ended.append("streams"))

    assert ended == ["streams"]
