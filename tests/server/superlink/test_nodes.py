from __future__ import annotations

import logging
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.federation import NoOpFederationManager

from fedmunkey.server.superlink.nodes import NodeRegistration
from tests.patience import PATIENCE


def new_key() -> bytes:
    return public_key_to_bytes(ec.generate_private_key(ec.SECP256R1()).public_key())


@pytest.fixture
def nodes() -> LinkState:
    memory = ":flwr-in-memory:"
    return LinkStateFactory(memory, NoOpFederationManager(simulation=False), ObjectStoreFactory(memory)).state()


def followed(nodes: LinkState, register: dict[bytes, str]) -> NodeRegistration:
    """Return a registration that has followed a register once."""
    registration = NodeRegistration(nodes, lambda: register)
    registration.follow()
    return registration


def test_sites_are_registered_once_and_revoked_ones_are_not_known(nodes: LinkState) -> None:
    first, second = new_key(), new_key()
    register = {first: "hospital-1", second: "hospital-2"}
    registration = followed(nodes, register)
    before = nodes.get_node_id_by_public_key(first)
    assert before is not None

    del register[second]
    registration.follow()

    assert nodes.get_node_id_by_public_key(first) == before
    assert nodes.get_node_id_by_public_key(second) is None


def test_rotated_key_takes_the_place_of_the_old_one(nodes: LinkState) -> None:
    old, fresh = new_key(), new_key()
    register = {old: "hospital-1"}
    registration = followed(nodes, register)

    register[fresh] = register.pop(old)
    registration.follow()

    assert nodes.get_node_id_by_public_key(old) is None
    assert nodes.get_node_id_by_public_key(fresh) is not None


def test_key_that_was_unregistered_is_never_taken_again(nodes: LinkState, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    register = {key: "hospital-1"}
    registration = followed(nodes, register)
    register.clear()
    registration.follow()
    register[key] = "hospital-1"

    registration.follow()
    registration.follow()

    assert nodes.get_node_id_by_public_key(key) is None
    ours = [record for record in caplog.records if record.name == "fedmunkey.server.superlink.nodes"]
    assert [record.message for record in ours if record.levelno == logging.ERROR] == [
        "the key of hospital-1 was unregistered before and is not taken again; let it rotate its key"
    ]


def test_register_that_cannot_be_read_is_read_again(nodes: LinkState, caplog: pytest.LogCaptureFixture) -> None:
    key, stop, looks = new_key(), threading.Event(), 0

    def read() -> dict[bytes, str]:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise OSError("database is locked")
        if looks > 3:
            stop.set()
        return {key: "hospital-1"}

    thread = threading.Thread(target=NodeRegistration(nodes, read).keep_in_step, args=(stop,), kwargs={"every": 0.001})
    thread.start()
    thread.join(PATIENCE)

    assert not thread.is_alive()
    assert nodes.get_node_id_by_public_key(key) is not None
    assert [record.message for record in caplog.records if "locked" in record.message] == [
        "the register of members cannot be followed, trying again: OSError: database is locked"
    ]
