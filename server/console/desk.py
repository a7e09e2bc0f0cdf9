"""What the operator of a coordinator has at hand: its ledger, its members, its runs, and whom it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.server.console.reading import Sources
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.register import MemberRegister


@dataclass(frozen=True)
class Desk:
    """A coordinator as a console shows it.

    Attributes
    ----------
    sources : Sources
        Where requests, sites and the log are read.
    trust : Path, optional
        The file of trusted keys; None where nobody's signatures are checked.
    folder : CoordinatorFolder, optional
        None where members are not known by certificates; then there is no `register` either.
    runs, audits : Path
        Where runs have left their events and curves, and where reports of audits are put.
    joining : str
        Where members join, `host:port`; empty where nobody can be invited from here.
    """

    sources: Sources
    trust: Path | None
    folder: CoordinatorFolder | None
    register: MemberRegister | None
    runs: Path
    audits: Path
    joining: str = ""

    @property
    def ledger(self) -> Ledger:
        """The ledger, in which the operator may write."""
        return self.sources.ledger

    def read_keys(self) -> TrustedKeys | None:
        """Return the trusted keys as they are now; raises `InvalidProof` if the file cannot be used."""
        return None if self.trust is None else TrustedKeys.read(self.trust)
