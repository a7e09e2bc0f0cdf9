"""How the coordinator renews its own certificate, while its services run."""

from __future__ import annotations

from collections.abc import Sequence

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.identity import CERTIFICATE_FILE, read_certificate
from fedmunkey.common.identities.member_names import COORDINATOR
from fedmunkey.common.identities.rotation import stage_key, take_over
from fedmunkey.common.private_files import locked_folder
from fedmunkey.server.members.authority import hosts_of
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.register import MemberRegister, serial_of


def renew(folder: CoordinatorFolder, register: MemberRegister, hosts: Sequence[str] = ()) -> Identity:
    """Replace the coordinator's key and certificate, also after it has expired; the old certificate ends.

    Services show the new one at their next connection. Interrupted at any moment, the folder holds an identity that
    works, and renewing again goes on from there. It is reached at `hosts`, those of the present certificate by default.
    """
    # Also says, before a folder is locked, that there is one.
    read_certificate(folder.identity / CERTIFICATE_FILE)
    with locked_folder(folder.identity):
        present = read_certificate(folder.identity / CERTIFICATE_FILE)
        key = stage_key(folder.identity)
        made = folder.read_authority().issue(
            key.public_key(), MemberRole.COORDINATOR, COORDINATOR, utc_now(), tuple(hosts) or hosts_of(present)
        )
        register.adopt(made)
        identity = take_over(folder.identity, made)
        register.find_fault(serial_of(made))
        return identity
