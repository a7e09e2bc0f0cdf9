"""Flower's SuperLink as a coordinator runs it: TLS, authenticated SuperNodes, and the guard in front of it.

Run as a program with the path of `coordinator.toml`. One application answers at two addresses: sites reach the one, and
runs are started at the other, on loopback.
"""

from __future__ import annotations

import logging
import socket
import sys

import uvicorn
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.flower import serve_from_file
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.server.connections.places import Places
from fedmunkey.server.connections.web_server import Connection, WebServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.superlink.coordinator_file import SUPERLINK_READY, CoordinatorFile
from fedmunkey.server.superlink.guard import Guard
from fedmunkey.server.superlink.nodes import NodeRegistration, read_site_keys
from fedmunkey.server.superlink.signed_calls import find_signer

_STOP_SECONDS = 5
_BACKLOG = 2048


def serve(file: CoordinatorFile) -> None:
    """Serve until SIGINT or SIGTERM; raises `FedmunkeyError` if there is no identity or an address cannot be taken."""
    identity = Identity.read(file.identity)
    file.flower_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    control_host, control_port = split_address(file.superlink_control)
    application = create_app(_lifespan(file, identity, control_host, control_port), SuperLinkLifespan)
    sockets = [_listen(file.superlink), _listen(file.superlink_control)]
    places = Places()
    with Ledger(file.ledger) as ledger:
        nodes = application.state.linkstate_factory.state()
        registration = NodeRegistration(nodes, lambda: read_site_keys(ledger.engine, utc_now()))
        registration.follow()
        guard = Guard(
            application,
            control_port,
            lambda headers: find_signer(headers, registration.sites, utc_now),
            places.introduce,
        )
        config = uvicorn.Config(
            guard,
            http=Connection,
            ws="none",
            # A header must not be able to say whom a request comes from.
            proxy_headers=False,
            access_log=False,
            log_config=None,
            ssl_certfile=str(identity.certificate_file),
            ssl_keyfile=str(identity.key_file),
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        ready = f"{SUPERLINK_READY}{file.superlink}, control at {file.superlink_control}"
        with registration.kept_in_step():
            # The sites' connections are counted; the control address is this machine's own.
            WebServer(config, (places, None), lambda: _say(ready)).run(sockets)


def _lifespan(file: CoordinatorFile, identity: Identity, host: str, port: int) -> SuperLinkLifespanConfig:
    authority, certificate, key = (
        path.read_bytes() for path in (identity.ca_file, identity.certificate_file, identity.key_file)
    )
    return SuperLinkLifespanConfig(
        # The address at which the SuperLink's own subprocesses find it.
        host=host,
        port=port,
        insecure=False,
        certificates=(authority, certificate, key),
        ssl_ca_certfile=str(identity.ca_file),
        ssl_certfile=str(identity.certificate_file),
        ssl_keyfile=str(identity.key_file),
        enable_supernode_auth=True,
        database=str(file.flower_database),
        isolation="subprocess",
        runtime_dependency_install=False,
        simulation=False,
        authn_plugin=NoOpControlAuthnPlugin(),
        control_address=file.superlink_control,
        health_server_address=None,
        superexec_auth_secret=None,
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        return socket.create_server(
            (host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise InvalidSetting(f"{address} cannot be listened on: {error.strerror}; choose another address") from None


def main() -> None:
    """Run it on the file that the command line names."""
    serve_from_file(CoordinatorFile, serve, logging.getLogger("fedmunkey.server.superlink"))
