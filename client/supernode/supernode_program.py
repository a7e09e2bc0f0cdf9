"""Flower's SuperNode as a site runs it: TLS, the key of the site's identity, and no code but the installed one.

Run as a program with the path of `site.toml`.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.common.constant import ISOLATION_MODE_PROCESS
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import start_client_internal as flower
from flwr.supernode.main import create_app

from fedmunkey.client.supernode.guarded_state import GuardedStateFactory
from fedmunkey.client.supernode.site_file import SUPERNODE_READY, SiteFile
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.flower import serve_from_file
from fedmunkey.common.settings.addresses import split_address

_POLL_SECONDS = 0.05
_ROUND_SECONDS = 10.0
"""How long after a message it is looked for the next one more often: a round asks for one thing after the other."""

_ROUND_LOOK_SECONDS = 1.0


def serve(file: SiteFile) -> None:
    """Take part in training until SIGINT or SIGTERM, or until the coordinator refuses this site.

    Raises `FedmunkeyError` if the site has no identity, or the address of its runtime cannot be taken.
    """
    identity = Identity.read(file.supernode.identity)
    key = load_pem_private_key(identity.key_file.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidSetting(f"{identity.key_file} is no ECDSA key; join the federation again")
    states = GuardedStateFactory(ObjectStoreFactory())
    _serve_runtime(file.runtime, states)
    sys.stdout.write(f"{SUPERNODE_READY}{identity.name}: rounds from {file.superlink}\n")
    sys.stdout.flush()
    _look_often_in_rounds()
    flower.start_client_internal(
        state_factory=states,
        server_address=file.superlink,
        node_config=file.node_config,
        root_certificates=str(identity.ca_file),
        insecure=False,
        authentication_keys=(key, key.public_key()),
        runtime_api_address=file.runtime,
        runtime_dependency_install=False,
        # What trains is started by `apps_program`, which may be another account's.
        isolation=ISOLATION_MODE_PROCESS,
    )


def _look_often_in_rounds() -> None:
    """Have Flower, which looks for messages every 3 s, look every second while a round is under way."""
    pull, last = flower._pull_and_store_message, [-math.inf]

    def noting(*asked: Any, **more: Any) -> int | None:
        run = pull(*asked, **more)
        if run is not None:
            last[0] = time.monotonic()
        return run

    def sleep(seconds: float) -> None:
        in_round = time.monotonic() - last[0] < _ROUND_SECONDS
        time.sleep(min(seconds, _ROUND_LOOK_SECONDS) if in_round else seconds)

    flower._pull_and_store_message = noting
    flower.time = SimpleNamespace(sleep=sleep)  # type: ignore[attr-defined, assignment]


def _serve_runtime(address: str, states: GuardedStateFactory) -> None:
    """Serve what the SuperNode's own subprocesses ask for, in a thread that ends with this process."""
    host, port = split_address(address)
    application = create_app(state_factory=states, superexec_auth_secret=None)
    config = uvicorn.Config(application, host=host.strip("[]"), port=port, access_log=False, log_config=None)
    server = uvicorn.Server(config)
    # Its own handlers would be set in this thread only, and Flower sets those of the process.
    thread = threading.Thread(target=server.run, name="runtime", daemon=True)
    thread.start()
    while not server.started:
        thread.join(_POLL_SECONDS)
        if not thread.is_alive():
            raise InvalidSetting(f"runtime = {address} cannot be listened on; choose another port")


def main() -> None:
    """Run it on the file that the command line names."""
    serve_from_file(SiteFile, serve, logging.getLogger("fedmunkey.client.supernode"))
    sys.stderr.write("error: the coordinator takes no calls of this SuperNode any more; the lines above say why\n")
    sys.exit(1)
