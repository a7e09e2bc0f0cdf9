"""The register of members as a coordinator's folder has it: what a restored ledger lost comes back at its opening."""

from __future__ import annotations

import logging

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.member_journal import CERTIFICATE, MemberJournal
from fedmunkey.server.members.register import MemberRegister

_log = logging.getLogger(__name__)


def open_register(
    folder: CoordinatorFolder, ledger: Ledger, *, lost: bool = False
) -> tuple[MemberRegister, tuple[str, ...]]:
    """Return the register, and lines that say of which members the ledger had lost something.

    Raises `InvalidSetting` if the ledger knows nobody though the federation has members, since it may be another one,
    unless it is known to be lost.
    """
    journal = MemberJournal(folder.members)
    register = MemberRegister(ledger.engine, journal=journal)
    known = bool(register.list())
    if not known and not lost and any(entry.kind == CERTIFICATE for entry in journal.read()):
        raise InvalidSetting(
            f"the ledger {ledger.name} knows no member, and {journal.path} does; name the ledger with --database, or, "
            "if it was lost, start the service, which brings its members back"
        )
    made = known and not journal.path.exists()
    lines = recover(register, ledger)
    if made:
        said = f"{journal.path} was missing and is made from the ledger; if that was put back from a copy, look through"
        lines = (f"{said} munkey-server members", *lines)
    return register, lines


def serving_register(folder: CoordinatorFolder, ledger: Ledger) -> MemberRegister:
    """Return the register for a service, with the coordinator's own certificate; what the ledger lost is logged."""
    register, lines = open_register(folder, ledger, lost=True)
    for line in lines:
        _log.warning("%s", line)
    register.adopt(folder.read_identity().certificate)
    return register


def recover(register: MemberRegister, ledger: Ledger) -> tuple[str, ...]:
    """Bring back what a ledger has lost of its members, and sites that it does not know; return a line for each."""
    lost = register.recover()
    known = {site.name for site in ledger.sites()}
    for name in register.good_names(MemberRole.SITE):
        if name not in known:
            ledger.register(name)
            lost.setdefault(name, []).append("it is registered as a site")
    return tuple(f"the ledger had lost what became of {name}: {', '.join(words)}" for name, words in lost.items())
