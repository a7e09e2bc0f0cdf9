"""One console: whose it is, what it shows, and the answer to every request of a browser."""

from __future__ import annotations

import logging
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
from fedmunkey.common.console.forms import ForeignFormError, Form, read_form
from fedmunkey.common.console.guard import TooLargeError
from fedmunkey.common.console.live import Live
from fedmunkey.common.console.pages import Pages, Place
from fedmunkey.common.console.session import Doorway, Session, TooManyTriesError
from fedmunkey.common.console.texts import LANGUAGES, Texts, language_for
from fedmunkey.common.errors import FedmunkeyError, ServiceUnavailable, UnknownDeletion
from fedmunkey.common.service.console_service import ConsoleService

_STATIC = Path(__file__).with_name("static")
_log = logging.getLogger(__name__)


class SignedOutError(Exception):
    """Somebody without a session asked for what only a session sees."""


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
        """The deletion service."""
        return self.face.service

    @property
    def texts(self) -> Texts:
        """What is said in the language of this session."""
        return Texts.of(self.language)

    def draw(self, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """Return a page."""
        known = {
            "path": self.request.url.path,
            "connected": self.face.live.connected,
            "now": self.face.clock(),
            "looks_again": "hx-request" in self.request.headers,
        }
        return self.face.pages.draw(template, self.session, self.language, {**known, **values}, status)


Screen = Callable[[Visit], Response]
"""Answers one kind of request; it may take its time, for it runs in a thread."""


class Face:
    """A console's application and what its screens need.

    `reader` is whose requests it shows, as `RequestQuery.reader`, `who` what is said of that at the top of each page;
    `own` are folders of further templates. `on_closed` is called when somebody has ended a session by hand.
    """

    def __init__(
        self,
        service: ConsoleService,
        reader: str,
        who: str,
        places: Sequence[Place],
        *,
        own: Sequence[Path] = (),
        clock: Callable[[], datetime] = utc_now,
        on_closed: Callable[[], object] | None = None,
    ) -> None:
        self.service = service
        self.reader = reader
        self.clock = clock
        self.doorway = Doorway(on_closed=on_closed)
        self.live = Live(service, reader)
        self.pages = Pages(who, places, own)
        self.cookie = "munkey-console"
        self.app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=self._lifespan)
        self.app.mount("/static", StaticFiles(directory=_STATIC))
        self.app.add_api_route("/open", self._open, methods=["GET"])
        self.app.add_api_route("/events", self._events, methods=["GET"])
        self.post("/end", self._end)
        self.post("/language", _choose_language)
        self._explain_faults()

    def named(self, address: str) -> Face:
        """Name the cookie by the port: browsers send those of one port of a machine to all others."""
        self.cookie = f"munkey-console-{address.rpartition(':')[2]}"
        return self

    def link(self, address: str) -> str:
        """Return a link that opens one session."""
        return f"http://{address}/open?token={self.doorway.new_link()}"

    def get(self, path: str, screen: Screen) -> None:
        """Show a screen at a path, to whoever has a session."""
        self.app.add_api_route(path, self._visited(screen, form=False), methods=["GET"], response_model=None)

    def post(self, path: str, screen: Screen) -> None:
        """Take forms of this session at a path."""
        self.app.add_api_route(path, self._visited(screen, form=True), methods=["POST"], response_model=None)

    def _visited(self, screen: Screen, *, form: bool) -> Callable[[Request], Awaitable[Response]]:
        async def visited(request: Request) -> Response:
            # A page that looks again by itself is no sign of somebody who looks at it, and keeps what is said once.
            session = self._session(request, acts="hx-request" not in request.headers)
            language = session.language or language_for(request.headers.get("accept-language", ""))
            given = await read_form(request, session) if form else Form({})
            return await run_in_threadpool(screen, Visit(self, session, language, request, given))

        return visited

    def _session(self, request: Request, *, acts: bool = True) -> Session:
        session = self.doorway.find(request.cookies.get(self.cookie, ""), acts=acts)
        if session is None:
            raise SignedOutError
        return session

    async def _open(self, request: Request, token: str = "") -> Response:
        try:
            name = self.doorway.open(token)
        except TooManyTriesError:
            return self._closed(request, 429, "door.too-many")
        if name is None:
            return self._closed(request, 403, "door.used")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, name, httponly=True, samesite="strict", path="/")
        return answer

    async def _events(self, request: Request) -> Response:
        self._session(request, acts=False)
        return StreamingResponse(self.live.events(), media_type="text/event-stream")

    def _end(self, visit: Visit) -> Response:
        self.doorway.close(visit.request.cookies.get(self.cookie, ""))
        answer = self._closed(visit.request, 200, "door.ended")
        answer.delete_cookie(self.cookie, path="/")
        return answer

    def _closed(self, request: Request, status: int, key: str) -> HTMLResponse:
        language = language_for(request.headers.get("accept-language", ""))
        values = {"path": "", "connected": True, "now": self.clock(), "said": key, "looks_again": False}
        return self.pages.draw("door.html", None, language, values, status)

    def _fault(self, request: Request, status: int, said: str) -> Response:
        session = self.doorway.find(request.cookies.get(self.cookie, ""))
        if session is None:
            return self._closed(request, 401, "door.closed")
        language = session.language or language_for(request.headers.get("accept-language", ""))
        return Visit(self, session, language, request).draw("fault.html", status, said=said)

    def _explain_faults(self) -> None:
        async def signed_out(request: Request, _: Exception) -> Response:
            if request.headers.get("hx-request"):
                # htmx follows this with the whole page.
                return PlainTextResponse("", 401, {"HX-Refresh": "true"})
            return self._closed(request, 401, "door.closed")

        async def foreign(request: Request, _: Exception) -> Response:
            return self._fault(request, 403, "fault.foreign")

        async def large(request: Request, _: Exception) -> Response:
            return self._fault(request, 413, "fault.large")

        async def refused(request: Request, error: Exception) -> Response:
            gone = isinstance(error, UnknownDeletion)
            away = isinstance(error, ServiceUnavailable)
            return self._fault(request, 404 if gone else 503 if away else 400, str(error))

        async def missing(request: Request, _: Exception) -> Response:
            return self._fault(request, 404, "fault.missing")

        handlers: Mapping[Any, Any] = {
            SignedOutError: signed_out,
            ForeignFormError: foreign,
            TooLargeError: large,
            FedmunkeyError: refused,
            404: missing,
        }
        for kind, handler in handlers.items():
            self.app.add_exception_handler(kind, handler)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.live.start()
        yield
        self.live.close()


def see(path: str) -> Response:
    """Return an answer that sends a browser to a path, so that going back or loading again does nothing twice."""
    return RedirectResponse(quote(path, safe="/?&=%+#:-._~"), 303)


def _choose_language(visit: Visit) -> Response:
    chosen = visit.form.one("language")
    if chosen in LANGUAGES:
        visit.session.language = chosen
    path = visit.form.one("path")
    return see(path if path.startswith("/") and not path.startswith("//") else "/")
