"""Members and their certificates, as `munkey-server members`, `invite` and `revoke` show and change them."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.common.console.face import Face, Visit, see
from fedmunkey.common.console.pages import address, attachment
from fedmunkey.common.console.paging import PAGE_SIZE, Paging, page_number
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import MemberRole
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.inviting import invite
from fedmunkey.server.members.register import INVITATION_DAYS, MemberRegister

INVITED = (MemberRole.SITE, MemberRole.OFFICER)


def add_members(face: Face, register: MemberRegister, folder: CoordinatorFolder, joining: str) -> None:
    """Add them to the operator's console; nobody is invited where it is not known at which address members join."""
    face.get("/members", lambda visit: _show(visit, register, joining))
    face.post("/members/revoke", lambda visit: _revoke(visit, register))
    if joining:
        face.post("/members/invite", lambda visit: _invite(visit, register, folder, joining))


def _show(visit: Visit, register: MemberRegister, joining: str) -> Response:
    given = visit.request.query_params
    beginning = given.get("name", "").strip()
    found = [member for member in register.list() if member.name.startswith(beginning)]
    filters = {"name": beginning}
    paging = Paging(page_number(given.get("page", "")), PAGE_SIZE, len(found), "/members", filters)
    return visit.draw(
        "members.html",
        members=paging.cut(found),
        beginning=beginning,
        paging=paging,
        roles=INVITED,
        days=INVITATION_DAYS,
        joining=joining,
    )


def _revoke(visit: Visit, register: MemberRegister) -> Response:
    """Shut a member out whose name was typed twice."""
    name = visit.form.one("member")
    if visit.form.one("word") != name:
        visit.session.say("bad", visit.texts("members.not-confirmed", member=name))
        return see("/members")
    try:
        count = register.revoke(name, visit.form.one("reason"))
    except InvalidIdentity as error:
        visit.session.say("bad", str(error))
        return see("/members")
    visit.session.say("good", visit.texts("members.revoked", member=name, count=count))
    return see(address("/members", name=name))


def _invite(visit: Visit, register: MemberRegister, folder: CoordinatorFolder, joining: str) -> Response:
    """Give an invitation's file; it is kept nowhere here."""
    form = visit.form
    name, role = form.one("member"), form.one("role")
    try:
        if role not in INVITED:
            raise InvalidIdentity(f"{role!r} is nobody who is invited; choose {' or '.join(INVITED)}")
        invitation = invite(folder, register, name, MemberRole(role), joining)
    except InvalidIdentity as error:
        visit.session.say("bad", str(error))
        return see("/members")
    return attachment(invitation.to_bytes(), f"invitation-{name}.json", "application/json")
