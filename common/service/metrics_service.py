"""Serving what is measured to Prometheus, over HTTP: on this machine unless another address is typed in full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.settings.addresses import split_address

_LOOPBACK = "127.0.0.1"


@contextmanager
def served_registry(registry: CollectorRegistry, address: str) -> Iterator[str]:
    """Serve a registry while the context lasts; give the address, with the port that was chosen for port 0.

    A port alone is one of this machine. Raises `InvalidSetting` if the address is not of the form `host:port`, or
    nothing can listen there.
    """
    host, port = split_address(f"{_LOOPBACK}:{address}" if address.isdecimal() else address)
    try:
        server, thread = start_http_server(port, host.strip("[]"), registry)
    except OSError as error:
        fault = (error.strerror or str(error)).lower()
        raise InvalidSetting(f"cannot serve metrics on {address} ({fault}); choose another with --metrics") from None
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
