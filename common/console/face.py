"""One console: whose it is, what it shows, and the answer to every request of a browser."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from fedmunkey.common.clock import utc_now
from fedmunkey.common.console.entrance import Entrance, NotAdmittedError
from fedmunkey.common.console.forms import ForeignFormError, Form, read_form
from fedmunkey.common.console.guard import TooLargeError
from fedmunkey.common.console.live import Lives
from fedmunkey.common.console.pages import Pages, Place
from fedmunkey.common.console.session import Session
from fedmunkey.common.console.texts import LANGUAGES, Texts, language_for
from fedmunkey.common.errors import FedmunkeyError, NotAllowed, ServiceUnavailable, UnknownDeletion
from fedmunkey.common.service.budgets import Allowance, Budgets
from fedmunkey.common.service.console_service import ConsoleService

_STATIC = Path(__file__).with_name("static")
CLICKS = Allowance(at_once=500, a_second=50)
"""Requests of one viewer's browsers; a page that is open asks again whenever something moves."""


PAINS = Allowance(at_once=10, a_second=0.5)
"""What takes a second to make, such as a PDF or a bundle, for one viewer's browsers."""


class SignedOutError(Exception):
    """Somebody without a session asked for what only a session sees; `said` is a text's key, or a sentence."""

    def __init__(self, said: str = "door.closed") -> None:
        super().__init__(said)
        self.said = said


class TooFastError(Exception):
    """A viewer asks for more than its share; after some seconds it may go on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(frozen=True)
class Visit:
    """One request of a browser that has a session."""

    face: Face
    session: Session
    language: str
    request: Request
    form: Form = field(default_factory=lambda: Form({}))

    @property
    def service(self) -> ConsoleService:
        """What may be asked for whoever looks."""
        return self.session.viewer.service

    @property
    def reader(self) -> str:
        """Whose requests are shown."""
        return self.session.viewer.reader

    @property
    def texts(self) -> Texts:
        """What is said in the language of this session."""
        return Texts.of(self.language)

    def take_pains(self) -> None:
        """Count something that takes long to make; raises `TooFastError`."""
        self.face.take_pains(self.request)

    def draw(self, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """Return a page."""
        known = {
            "path": self.request.url.path,
            "connected": self.face.lives.of(self.session.viewer).connected,
            "now": self.face.clock(),
            "looks_again": "hx-request" in self.request.headers,
        }
        return self.face.pages.draw(template, self.session, self.language, {**known, **values}, status)


Screen = Callable[[Visit], Response]
"""Answers one kind of request; it may take its time, for it runs in a thread."""


class Face:
    """A console's application and what its screens need.

    `who` is said at the top of the page that strangers see; `own` are folders of further templates.
    """

    def __init__(
        self,
        entrance: Entrance,
        who: str,
        places: Sequence[Place],
        *,
        own: Sequence[Path] = (),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.entrance = entrance
        self.clock = clock
        self.lives = Lives()
        self.pages = Pages(who, places, own)
        self.cookie = "munkey-console"
        self._clicks = Budgets(CLICKS)
        self._pains = Budgets(PAINS)
        self.app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=self._lifespan)
        self.app.mount("/static", StaticFiles(directory=_STATIC))
        self.app.add_api_route("/open", self._open, methods=[entrance.method])
        self.app.add_api_route("/events", self._events, methods=["GET"])
        self.post("/end", self._end)
        self.post("/language", _choose_language)
        self._explain_faults()

    def named(self, address: str) -> Face:
        """Name the cookie by the port: browsers send those of one port of a machine to all others."""
        # A browser takes a name that begins so over TLS only, and from no other host.
        guarded = "__Host-" if self.entrance.is_encrypted else ""
        self.cookie = f"{guarded}munkey-console-{address.rpartition(':')[2]}"
        return self

    def get(self, path: str, screen: Screen) -> None:
        """Show a screen at a path, to whoever has a session."""
        self.app.add_api_route(path, self._visited(screen, form=False), methods=["GET"], response_model=None)

    def post(self, path: str, screen: Screen) -> None:
        """Take forms of this session at a path."""
        self.app.add_api_route(path, self._visited(screen, form=True), methods=["POST"], response_model=None)

    def _visited(self, screen: Screen, *, form: bool) -> Callable[[Request], Awaitable[Response]]:
        async def visited(request: Request) -> Response:
            # A page that looks again by itself is no sign of somebody who looks at it, and keeps what is said once.
            self._count(request)
            session = await self._session(request, acts="hx-request" not in request.headers)
            language = session.language or language_for(request.headers.get("accept-language", ""))
            given = await read_form(request, session) if form else Form({})
            return await run_in_threadpool(screen, Visit(self, session, language, request, given))

        return visited

    async def _session(self, request: Request, *, acts: bool = True) -> Session:
        session = self.entrance.doorway.find(request.cookies.get(self.cookie, ""), acts=acts)
        if session is None:
            raise SignedOutError
        if fault := await run_in_threadpool(self.entrance.fault, request, session):
            raise SignedOutError(fault)
        return session

    def take_pains(self, request: Request) -> None:
        """Count what takes long to make; raises `TooFastError` where whoever asks has had enough of it."""
        if wait := self._pains.spend(self.entrance.spender(request)):
            raise TooFastError(wait)

    def _count(self, request: Request) -> None:
        if wait := self._clicks.spend(self.entrance.spender(request)):
            raise TooFastError(wait)

    async def _open(self, request: Request) -> Response:
        self._count(request)
        try:
            name = await run_in_threadpool(self.entrance.open, request)
        except NotAdmittedError as error:
            return self._closed(request, error.status, error.said)
        answer = RedirectResponse("/", 303)
        secure = self.entrance.is_encrypted
        answer.set_cookie(self.cookie, name, httponly=True, secure=secure, samesite="strict", path="/")
        return answer

    async def _events(self, request: Request) -> Response:
        self._count(request)
        session = await self._session(request, acts=False)

        async def may_hear() -> bool:
            try:
                await self._session(request, acts=False)
            except (SignedOutError, ServiceUnavailable):
                return False
            return True

        events = self.lives.of(session.viewer).events(may_hear)
        return StreamingResponse(events, media_type="text/event-stream")

    def _end(self, visit: Visit) -> Response:
        self.entrance.doorway.close(visit.request.cookies.get(self.cookie, ""))
        answer = self._closed(visit.request, 200, "door.ended")
        secure = self.entrance.is_encrypted
        answer.delete_cookie(self.cookie, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    def _closed(self, request: Request, status: int, said: str) -> HTMLResponse:
        language = language_for(request.headers.get("accept-language", ""))
        values = {"path": "", "connected": True, "now": self.clock(), "said": said, "looks_again": False}
        values |= self.entrance.greeting(request)
        return self.pages.draw(self.entrance.door, None, language, values, status)

    async def _fault(self, request: Request, status: int, said: str) -> Response:
        try:
            session = await self._session(request)
        except SignedOutError as error:
            return self._closed(request, 401, error.said)
        language = session.language or language_for(request.headers.get("accept-language", ""))
        return Visit(self, session, language, request).draw("fault.html", status, said=said)

    def _explain_faults(self) -> None:
        async def signed_out(request: Request, error: Exception) -> Response:
            if request.headers.get("hx-request"):
                # htmx follows this with the whole page.
                return PlainTextResponse("", 401, {"HX-Refresh": "true"})
            said = error.said if isinstance(error, SignedOutError) else "door.closed"
            return await run_in_threadpool(self._closed, request, 401, said)

        async def too_fast(request: Request, error: Exception) -> Response:
            # Whoever is counted has had enough looked up.
            said = Texts.of(language_for(request.headers.get("accept-language", "")))("fault.too-fast")
            seconds = error.seconds if isinstance(error, TooFastError) else 1.0
            return PlainTextResponse(f"{said}\n", 429, {"retry-after": str(math.ceil(seconds))})

        async def foreign(request: Request, _: Exception) -> Response:
            return await self._fault(request, 403, "fault.foreign")

        async def large(request: Request, _: Exception) -> Response:
            return await self._fault(request, 413, "fault.large")

        async def refused(request: Request, error: Exception) -> Response:
            gone = isinstance(error, UnknownDeletion)
            away, foreign = isinstance(error, ServiceUnavailable), isinstance(error, NotAllowed)
            return await self._fault(request, 404 if gone else 503 if away else 403 if foreign else 400, str(error))

        async def missing(request: Request, _: Exception) -> Response:
            return await self._fault(request, 404, "fault.missing")

        handlers: Mapping[Any, Any] = {
            SignedOutError: signed_out,
            TooFastError: too_fast,
            ForeignFormError: foreign,
            TooLargeError: large,
            FedmunkeyError: refused,
            404: missing,
        }
        for kind, handler in handlers.items():
            self.app.add_exception_handler(kind, handler)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        yield
        self.lives.close()


def see(path: str) -> Response:
    """Return an answer that sends a browser to a path, so that going back or loading again does nothing twice."""
    return RedirectResponse(quote(path, safe="/?&=%+#:-._~"), 303)


def _choose_language(visit: Visit) -> Response:
    chosen = visit.form.one("language")
    if chosen in LANGUAGES:
        visit.session.language = chosen
    path = visit.form.one("path")
    return see(path if path.startswith("/") and not path.startswith("//") else "/")
