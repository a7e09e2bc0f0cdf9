"""A coordinator with an authority, a deletion service over mutual TLS and a joining service, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.common.clock import utc_now
from fedmunkey.common.failpoints import Armed, FailpointPlan, arm
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, certificate_pem
from fedmunkey.common.identities.invitation import Invitation
from fedmunkey.common.identities.member_keys import make_key
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.joining import Joining, JoiningServer
from fedmunkey.server.members.member_journal import MemberJournal
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.log_key import open_log_key
from tests.patience import PATIENCE

SITE, OTHER, FIRST_OFFICER = "hospital-1", "hospital-2", "officer-1"


def make_identity(
    authority: CertificateAuthority,
    folder: Path,
    role: MemberRole = MemberRole.SITE,
    name: str = SITE,
    *,
    start: datetime | None = None,
    days: float = 1.0,
) -> Path:
    """Write an identity as an authority would issue it, from `start` on; nobody enters it in a register."""
    folder.mkdir(parents=True)
    key = make_key(folder / KEY_FILE)
    certificate = authority.issue(key.public_key(), role, name, start or utc_now(), days=days)
    replace_file(folder / CA_FILE, certificate_pem(authority.certificate))
    replace_file(folder / CERTIFICATE_FILE, certificate_pem(certificate))
    return folder


def fresh_key() -> ec.EllipticCurvePublicKey:
    """Return the public part of a key that nobody has."""
    return ec.generate_private_key(ec.SECP256R1()).public_key()


@dataclass
class Coordinator:
    """A running coordinator."""

    folder: CoordinatorFolder
    authority: CertificateAuthority
    ledger: Ledger
    register: MemberRegister
    service: LedgerService
    server: DeletionServer
    joining: JoiningServer
    work: Path

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def identity(self) -> Identity:
        return self.folder.read_identity()

    def invite(self, name: str, role: MemberRole = MemberRole.SITE, days: float = 1.0) -> Path:
        """Return the file of an invitation."""
        token = self.register.invite(name, role, days)
        path = self.work / f"{name}-{token.hex()[:8]}.json"
        Invitation(
            self.authority.federation, name, role, self.joining.address, self.authority.certificate, token
        ).write(path)
        return path

    def member(self, name: str, role: MemberRole = MemberRole.SITE) -> Identity:
        """Return the identity of somebody who is a member."""
        folder = make_identity(self.authority, self.work / f"identity-{name}", role, name)
        identity = Identity.read(folder)
        self.register.adopt(identity.certificate)
        if role is MemberRole.SITE:
            self.ledger.register(name)
        return identity

    def channel(self, identity: Identity | None) -> DeletionChannel:
        return DeletionChannel(self.address, timeout=PATIENCE, identity=identity)


@contextmanager
def running_coordinator(
    work: Path, *, clock: Callable[[], datetime] = utc_now, trust: Path | None = None
) -> Iterator[Coordinator]:
    """Give a coordinator that serves until the context ends; `clock` is the one of its register."""
    folder = CoordinatorFolder(work / "coordinator")
    authority = folder.create("test federation", ["127.0.0.1", "localhost"])
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder.ledger))
        register = MemberRegister(ledger.engine, clock=clock, journal=MemberJournal(folder.members))
        identity = folder.read_identity()
        register.adopt(identity.certificate)
        _, log_key = open_log_key(folder.log_key, str(folder.ledger))
        service = LedgerService(ledger, proofs=CoordinatorProofs(TransparencyLog(ledger.engine, log_key), trust))
        server = stack.enter_context(
            DeletionServer(service, identity=identity, register=register, authority=authority, cards=folder.read_cards)
        )
        admitting = Joining(register, ledger, authority, log_key.public, folder.trust, folder.read_cards)
        joining = stack.enter_context(JoiningServer(admitting, "127.0.0.1:0", identity))
        yield Coordinator(folder, authority, ledger, register, service, server, joining, work)
        service.close()


class Killed(BaseException):
    """Stands for the end of a process, which no part of it can catch."""


@contextmanager
def killed_at(failpoint: str) -> Iterator[None]:
    """Have what runs within the context end at a failpoint, as if its process were killed there."""

    def kill() -> None:
        raise Killed

    arm(Armed(FailpointPlan.parse(f"{failpoint}=kill"), kill=kill))
    try:
        with pytest.raises(Killed):
            yield
    finally:
        arm(None)
