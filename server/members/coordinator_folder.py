"""The coordinator's folder: its authority, its identity, its ledger, and whom it trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    IDENTITY_FOLDER,
    KEY_FILE,
    Identity,
    certificate_pem,
)
from fedmunkey.common.identities.member_keys import make_key
from fedmunkey.common.identities.member_names import COORDINATOR, MemberRole
from fedmunkey.common.private_files import make_private_folder, replace_file
from fedmunkey.common.programs.trust_commands import FILE_NAME
from fedmunkey.server.members.authority import AUTHORITY_YEARS, CertificateAuthority
from fedmunkey.server.members.member_journal import FILE_NAME as JOURNAL_NAME
from fedmunkey.server.transparency_log.log_key import open_log_key

DATABASE_VARIABLE = "MUNKEY_DATABASE"
"""The environment variable that names the ledger where no option does; unlike a command line, it is the user's own."""


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
    def ledger(self) -> Path:
        """The ledger, unless it is kept elsewhere."""
        return self.path / "ledger.sqlite"

    @property
    def log_key(self) -> Path:
        """The key that signs the heads of the log."""
        return self.path / "log-key.pem"

    @property
    def members(self) -> Path:
        """The journal of the register of members."""
        return self.path / JOURNAL_NAME

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
        if (self.authority / CA_FILE).exists():
            raise InvalidSetting(
                f"{self.authority} holds a certificate authority already, by which its members know the coordinator; "
                "it is never overwritten, choose another --coordinator-dir"
            )
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
        open_log_key(self.log_key, str(self.ledger))
        authority.write(self.authority)
        return authority

    def read_authority(self) -> CertificateAuthority:
        """Return the authority; raises `InvalidIdentity` if there is none or it cannot be used."""
        return CertificateAuthority.read(self.authority)

    def read_identity(self) -> Identity:
        """Return the coordinator's identity; raises `InvalidIdentity` if there is none or it cannot be used."""
        return Identity.read(self.identity)
