"""How members come in: by the certificates by which the deletion service knows them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from fastapi import Request

from fedmunkey.common.console.entrance import Entrance, NotAdmittedError
from fedmunkey.common.console.session import Doorway, Session, Viewer
from fedmunkey.common.errors import InvalidIdentity, ServiceUnavailable
from fedmunkey.common.service.console_service import ConsoleService
from fedmunkey.server.connections.places import Places
from fedmunkey.server.connections.web_server import CLIENT_CERTIFICATE
from fedmunkey.server.console.reading import reader_of
from fedmunkey.server.members.certified import Certified, certified_by_der
from fedmunkey.server.members.entitlements import Caller
from fedmunkey.server.members.register import MemberRegister


class MembersEntrance(Entrance):
    """Lets in members whose certificates are good, which is looked up at every request.

    `reading` returns what a member may read. A session belongs to the certificate with which it was begun.
    """

    method = "POST"
    is_encrypted = True
    door = "members_door.html"

    def __init__(self, register: MemberRegister, reading: Callable[[Caller], ConsoleService]) -> None:
        super().__init__(Doorway())
        self._register = register
        self._reading = reading

    def open(self, request: Request) -> str:
        """Begin a session for whoever the connection's certificate names."""
        # It is asked for on the page of the door, and by no page elsewhere.
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise NotAdmittedError(403, "door.foreign")
        try:
            known = _certified(request.scope)
        except InvalidIdentity as error:
            raise NotAdmittedError(403, str(error)) from None
        if fault := self._fault(known):
            raise NotAdmittedError(403, fault)
        caller = known.caller
        service = self._reading(caller)
        viewer = Viewer(reader_of(caller), spoken(caller), service, known.serial)
        return self.doorway.admit(viewer)

    def address(self, listening: str) -> str:
        """Return where members' browsers find it."""
        return f"https://{listening}/"

    def spender(self, request: Request) -> str:
        """Return the member whose certificate is shown."""
        try:
            return spoken(_certified(request.scope).caller)
        except InvalidIdentity:
            return super().spender(request)

    def fault(self, request: Request, session: Session) -> str:
        """Return that another certificate is shown than the session's, or what is wrong with it."""
        try:
            known = _certified(request.scope)
        except InvalidIdentity as error:
            return str(error)
        return "door.another" if known.serial != session.viewer.certificate else self._fault(known)

    def greeting(self, request: Request) -> dict[str, Any]:
        """Return whom the certificate names."""
        try:
            return {"known": spoken(_certified(request.scope).caller)}
        except InvalidIdentity:
            return {"known": ""}

    def _fault(self, known: Certified) -> str:
        try:
            refusal = self._register.find_fault(known.serial)
        except ServiceUnavailable as error:
            return str(error)
        return "" if refusal is None else refusal.reason


def spoken(caller: Caller) -> str:
    """Return how a member is called, such as `site hospital-1`."""
    return f"{caller.role} {caller.name}"


def introducing(app: Any, places: Places) -> Any:
    """Return an application before which each connection's member is named, so that its connection may stay."""

    async def introduced(scope: Any, receive: Any, send: Any) -> None:
        """Name whom the certificate names, and hand on."""
        if scope["type"] == "http":
            # The time of whoever is nobody known goes on as a stranger's.
            with contextlib.suppress(InvalidIdentity):
                places.introduce(tuple(scope["client"]), spoken(_certified(scope).caller))
        await app(scope, receive, send)

    return introduced


def _certified(scope: Any) -> Certified:
    return certified_by_der(scope.get("extensions", {}).get(CLIENT_CERTIFICATE, b""))
