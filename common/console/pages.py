"""Pages from templates: those that all consoles share, and a face's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse, Response
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from fedmunkey.common.console import figures
from fedmunkey.common.console.session import Session
from fedmunkey.common.console.texts import LANGUAGES, Texts

_SHARED = Path(__file__).with_name("templates")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Place:
    """A screen in the navigation: its text's key, and where it is."""

    key: str
    path: str


class Pages:
    """Draws pages; `places` are this console's screens, strangers read `who` at the top, `own` has its templates."""

    def __init__(self, who: str, places: Sequence[Place], own: Sequence[Path] = ()) -> None:
        loaders = [FileSystemLoader(folder) for folder in (*own, _SHARED)]
        self._templates = Environment(
            loader=ChoiceLoader(loaders),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "who": who,
            "places": places,
            "languages": LANGUAGES,
            "badge": figures.badge,
            "weights": figures.weights,
            "time_left": figures.TimeLeft.of,
            "address": address,
            "short_id": short_id,
        }

    def draw(
        self, name: str, session: Session | None, language: str, values: Mapping[str, Any], status: int = 200
    ) -> HTMLResponse:
        """Return a page; `session` is None where nobody has opened a link yet."""
        texts = Texts.of(language)
        times = Times(texts, values["now"])
        notices = session.take_notices() if session is not None and not values["looks_again"] else []
        template = self._templates.get_template(name)
        who = {} if session is None else {"who": session.viewer.who}
        drawn = template.render(t=texts, when=times, session=session, notices=notices, **who, **values)
        return HTMLResponse(drawn, status)


@dataclass(frozen=True)
class Times:
    """Says times as people do, in one language, seen from `now`."""

    texts: Texts
    now: datetime

    def ago(self, at: datetime | None) -> str:
        """Return how long ago something was; a dash for what never was."""
        if at is None:
            return "–"
        return self.lasting(max(0.0, (self.now - at).total_seconds()))

    def lasting(self, seconds: float) -> str:
        """Return a time of some seconds in the largest unit that it has one of."""
        units = ((_DAY, "time.days"), (_HOUR, "time.hours"), (_MINUTE, "time.minutes"), (1, "time.seconds"))
        size, unit = next((one for one in units if seconds >= one[0]), units[-1])
        return self.texts(unit, count=int(seconds // size))

    def precise(self, seconds: float) -> str:
        """Return a time of some seconds, to a tenth where it is below a minute."""
        return f"{seconds:.1f} s" if seconds < _MINUTE else self.lasting(seconds)

    def at(self, at: datetime | None) -> str:
        """Return a date and time in UTC; a dash for none."""
        return "–" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

    def exactly(self, at: datetime) -> str:
        """Return a date and time in UTC to the second."""
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def address(path: str, **fields: object) -> str:
    """Return a path with those of its fields that are not empty."""
    kept = [(name, value) for name, value in fields.items() if value not in ("", None, (), [])]
    query = urlencode(kept, doseq=True)
    return f"{path}?{query}" if query else path


def attachment(data: bytes, name: str, media_type: str) -> Response:
    """Return a file to be kept under a name, which is made of ASCII letters, digits and dashes."""
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-._") else "-" for letter in name)
    return Response(data, media_type=media_type, headers={"content-disposition": f'attachment; filename="{safe}"'})


def request_path(request_id: str) -> str:
    """Return where a request is shown."""
    return f"/requests/{quote(request_id, safe='')}"


def short_id(request_id: str) -> str:
    """Return the beginning of a request's id where it is a random one, all of it where somebody chose it."""
    return request_id[:8] if _UUID.fullmatch(request_id) else request_id
