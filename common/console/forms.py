"""What a browser posts: a form of this session, and of no other page."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from fastapi import Request

from fedmunkey.common.console.session import Session
from fedmunkey.common.errors import InvalidInput

CSRF_FIELD = "csrf"
_MOST_FIELDS = 2000


class ForeignFormError(Exception):
    """A form that no page of this session has sent."""


@dataclass(frozen=True)
class Form:
    """The fields of a form, each with all its values."""

    fields: Mapping[str, Sequence[str]] = field(repr=False)

    def one(self, name: str) -> str:
        """Return a field's first value without spaces around it, empty if there is none."""
        return next(iter(self.fields.get(name, ())), "").strip()

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return list(self.fields.get(name, ()))


async def read_form(request: Request, session: Session) -> Form:
    """Read a form; raises `ForeignFormError` without this session's token, `InvalidInput` if it cannot be read."""
    # Browsers say where a request comes from; whatever says nothing has the token or goes away.
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ForeignFormError
    try:
        text = (await request.body()).decode()
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidInput(f"a form cannot be read, or has more than {_MOST_FIELDS} fields; select fewer") from None
    sent = next(iter(fields.pop(CSRF_FIELD, [])), "")
    if not secrets.compare_digest(sent.encode(), session.csrf.encode()):
        raise ForeignFormError
    return Form(fields)
