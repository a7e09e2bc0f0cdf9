"""The coordinator's folder: its authority, its identity, its ledger, and whom it trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidIdentity, InvalidSetting
from fedmunkey.common.identities.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    IDENTITY_FOLDER,
    KEY_FILE,
    Identity,
    certificate_pem,
    read_certificate,
)
from fedmunkey.common.identities.member_keys import make_key
from fedmunkey.common.identities.member_names import COORDINATOR, MemberRole
from fedmunkey.common.identities.signed_card import CARDS_FOLDER, CardChain
from fedmunkey.common.private_files import make_private_folder, replace_file
from fedmunkey.common.programs.trust_commands import FILE_NAME
from fedmunkey.server.database.connection import ledger_url, without_password
from fedmunkey.server.ledger.instruction_journal import FILE_NAME as INSTRUCTIONS_NAME
from fedmunkey.server.members.authority import AUTHORITY_YEARS, CertificateAuthority
from fedmunkey.server.members.member_journal import FILE_NAME as JOURNAL_NAME
from fedmunkey.server.transparency_log.log_key import open_log_key

DATABASE_VARIABLE = "MUNKEY_DATABASE"
"""The environment variable that names the ledger where no option does; unlike a command line, it is the user's own."""

_LEDGER_NOTE = "ledger.url"
_DEFAULT_LEDGER = "ledger.sqlite"


@dataclass(frozen=True)
class CoordinatorFolder:
    """Where everything that the coordinator keeps lies."""

    path: Path

    @property
    def authority(self) -> Path:
        """The folder of the certificate authority."""
        return self.path / "ca"

    @property
    def identity(self) -> Path:
        """The folder of the coordinator's own identity."""
        return self.path / IDENTITY_FOLDER

    @property
    def ledger(self) -> str:
        """Where the ledger is: a file in this folder, unless it was noted that it is kept elsewhere."""
        note = self.path / _LEDGER_NOTE
        return note.read_text(encoding="utf-8").strip() if note.exists() else str(self.path / _DEFAULT_LEDGER)

    def note_ledger(self, database: str) -> str:
        """Note where the ledger is kept, so that no command has to be told; return where it was until now.

        A password is not noted. Raises `InvalidSetting` if it is no place for a ledger.
        """
        before, url = self.ledger, ledger_url(database)
        place = without_password(url) if "://" in database else str(Path(database).resolve())
        if place != (before if "://" in before else str(Path(before).resolve())):
            replace_file(self.path / _LEDGER_NOTE, f"{place}\n".encode())
        return before

    @property
    def log_key(self) -> Path:
        """The key that signs the heads of the log."""
        return self.path / "log-key.pem"

    @property
    def members(self) -> Path:
        """The journal of the register of members."""
        return self.path / JOURNAL_NAME

    @property
    def instructions(self) -> Path:
        """The journal of holds and opt-outs."""
        return self.path / INSTRUCTIONS_NAME

    @property
    def runs(self) -> Path:
        """Where runs leave their weights and events."""
        return self.path / "weights"

    @property
    def trust(self) -> Path:
        """The keys that the coordinator trusts, where it checks signatures."""
        return self.path / FILE_NAME

    def create(
        self, federation: str, hosts: Sequence[str], years: int = AUTHORITY_YEARS, *, now: datetime | None = None
    ) -> CertificateAuthority:
        """Make an authority, the coordinator's identity and the log's key; nothing that is there is overwritten.

        An attempt that was interrupted before the authority was complete is made up for. Raises `InvalidSetting` if
        there is an authority already, no host is named, or one is no host.
        """
        self.check_new()
        if not hosts:
            raise InvalidSetting("name each host at which the coordinator is reached with --host")
        at = now or utc_now()
        authority = CertificateAuthority.make(federation, at, years)
        for folder in (self.path, self.authority, self.identity):
            make_private_folder(folder)
        # Left by an attempt that was interrupted, this key has signed nothing that anybody has.
        (self.authority / KEY_FILE).unlink(missing_ok=True)
        key = make_key(self.identity / KEY_FILE)
        certificate = authority.issue(key.public_key(), MemberRole.COORDINATOR, COORDINATOR, at, hosts)
        replace_file(self.identity / CA_FILE, certificate_pem(authority.certificate))
        replace_file(self.identity / CERTIFICATE_FILE, certificate_pem(certificate))
        open_log_key(self.log_key, self.ledger)
        authority.write(self.authority)
        return authority

    def check_new(self) -> None:
        """Check that there is no authority yet; raises `InvalidSetting`."""
        if (self.authority / CA_FILE).exists():
            raise InvalidSetting(
                f"{self.authority} holds a certificate authority already, by which its members know the coordinator; "
                "it is never overwritten, choose another --coordinator-dir"
            )

    def read_authority(self) -> CertificateAuthority:
        """Return the authority; raises `InvalidIdentity` if there is none or it cannot be used."""
        return CertificateAuthority.read(self.authority)

    def read_cards(self) -> CardChain:
        """Return the versions of the federation card; raises `InvalidProof` if they cannot be read or were changed."""
        if not (self.path / CARDS_FOLDER).exists():
            return CardChain()
        return CardChain.read(self.path, read_certificate(self.identity / CA_FILE))

    def read_identity(self) -> Identity:
        """Return the coordinator's identity; raises `InvalidIdentity` if there is none or it cannot be used."""
        self.check_is_one()
        return Identity.read(self.identity)

    def check_is_one(self) -> None:
        """Raise `InvalidIdentity` if `munkey-server init` has not made the folder."""
        if not self.identity.exists():
            raise InvalidIdentity(
                f"{self.path} is no coordinator's folder; name it with --coordinator-dir, or make one with "
                "munkey-server init"
            )


def ledger_of(database: str | None, folder: CoordinatorFolder | None) -> str:
    """Return which ledger is meant: the one that is named, else the folder's, else `ledger.sqlite`."""
    return database or (_DEFAULT_LEDGER if folder is None else folder.ledger)


def ledger_that_is_there(database: str | None, folder: CoordinatorFolder | None) -> str:
    """Return which ledger is meant, as `ledger_of`; raises `InvalidSetting` if it is a file that is not there."""
    place = ledger_of(database, folder)
    if "://" not in place and not Path(place).exists():
        raise InvalidSetting(
            f"there is no ledger {place}; name the coordinator's folder with --coordinator-dir, or the ledger with "
            "--database"
        )
    return place
