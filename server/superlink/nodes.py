"""Keeps Flower's list of SuperNodes in step with the register of members.

A site's SuperNode proves who it is with the key of the site's identity. A key that the register holds as valid is
registered with the SuperLink; one that it does not hold, since the site was revoked or its key rotated, is
unregistered, and every call of that SuperNode is refused from then on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.constant import NodeStatus
from sqlalchemy import Engine, select

from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.server.database.member_tables import MemberRow

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at the register."""

SiteKeys = Callable[[], Mapping[bytes, str]]
"""Returns the public keys, in PEM, of the sites that may take part, each with its site's name."""


class NodeRegistration:
    """Registers and unregisters SuperNodes in the SuperLink's state, as the register of members says."""

    def __init__(self, nodes: LinkState, site_keys: SiteKeys) -> None:
        self._nodes = nodes
        self._site_keys = site_keys
        self._refused: set[bytes] = set()
        self.sites: Mapping[bytes, str] = {}
        """The sites by their keys, as the register had them when it was last looked at."""

    @contextmanager
    def kept_in_step(self) -> Iterator[None]:
        """Follow the register in a thread while the context lasts."""
        stop = threading.Event()
        following = threading.Thread(target=self.keep_in_step, args=(stop,), name="nodes")
        following.start()
        try:
            yield
        finally:
            stop.set()
            following.join()

    def keep_in_step(self, stop: threading.Event, *, every: float = LOOK_SECONDS) -> None:
        """Follow the register until `stop` is set; a register that cannot be read is looked at again."""
        failing = ""
        while True:
            try:
                self.follow()
                failing = ""
            except Exception as error:  # a thread that ended unseen would leave revoked sites in
                if (reason := f"{type(error).__name__}: {error}") != failing:
                    logger.error("the register of members cannot be followed, trying again: %s", reason)
                failing = reason
            if stop.wait(every):
                return

    def follow(self) -> None:
        """Bring the list of nodes to what the register says."""
        self.sites = wanted = self._site_keys()
        known = {
            node.public_key: node
            for node in self._nodes.get_node_info(owner_aids=[NOOP_FLWR_AID])
            if node.status != NodeStatus.UNREGISTERED
        }
        for key, node in known.items():
            if key not in wanted:
                self._nodes.delete_node(NOOP_FLWR_AID, node.node_id)
                logger.info("SuperNode of %s is unregistered", node.name)
        for key, name in wanted.items():
            if key not in known and key not in self._refused:
                self._register(key, name)

    def _register(self, key: bytes, name: str) -> None:
        try:
            self._nodes.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_DEFAULT_INTERVAL, name=name)
        except ValueError:
            # Flower never takes a key twice, so a key that was revoked stays so whatever the register says later.
            self._refused.add(key)
            logger.error("the key of %s was unregistered before and is not taken again; let it rotate its key", name)
            return
        logger.info("SuperNode of %s is registered", name)


def read_site_keys(engine: Engine, now: datetime) -> dict[bytes, str]:
    """Return the public key, in PEM, of each certificate of a site that is good at a time, with the site's name.

    One that waits for its first use counts as well: a site that has rotated its key connects with the fresh one.
    """
    good = select(MemberRow.name, MemberRow.certificate).where(
        MemberRow.role == MemberRole.SITE.value,
        MemberRow.revoked_at.is_(None),
        MemberRow.replaced_at.is_(None),
        MemberRow.not_after > now,
    )
    with engine.connect() as connection:
        return {_key(row.certificate): row.name for row in connection.execute(good)}


def _key(certificate: bytes) -> bytes:
    key = x509.load_pem_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
