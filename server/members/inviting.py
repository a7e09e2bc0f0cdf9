"""An invitation, made with a coordinator's folder: what somebody is handed, of which the register keeps a hash."""

from __future__ import annotations

from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.invitation import Invitation
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.register import INVITATION_DAYS, MemberRegister


def invite(
    folder: CoordinatorFolder,
    register: MemberRegister,
    name: str,
    role: MemberRole,
    joining: str,
    days: float = INVITATION_DAYS,
) -> Invitation:
    """Let somebody join under a name at an address, within some days; raises `InvalidIdentity` as the register does."""
    authority = folder.read_authority()
    token = register.invite(name, role, days)
    return Invitation(authority.federation, name, role, joining, authority.certificate, token)
