"""How log lines are written: for people, or one JSON object each for programs."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from fedmunkey.common.service.foreign_text import printable

FIELDS = "fields"
"""The attribute of a log record that holds what a JSON line says beside the message."""

_LEVEL = re.compile(r"(?:[\d-]+ [\d:,]+ )?(DEBUG|INFO|WARNING|ERROR|CRITICAL) ?:?\s+")


class LogFormat(StrEnum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"


class TextFormatter(logging.Formatter):
    """One line for each message, whatever it holds; what is said of an error follows, set in from the left."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's lines."""
        # Whoever has written the record before has left its own form of the traceback there.
        record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        """Return a record's line, of which no part can begin another."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return a traceback, none of whose lines can be taken for a record's."""
        return "\n".join(f"    {printable(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and a record's fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line."""
        more = dict(getattr(record, FIELDS, {}))
        if record.exc_info:
            more["error"] = self.formatException(record.exc_info)
        at = datetime.fromtimestamp(record.created, UTC)
        return _json_line(at, record.levelname.lower(), record.name, record.getMessage(), **more)


def said_in_json(name: str, line: str, now: datetime) -> str:
    """Return a line that a program has printed as a JSON object: as it is, if it is one, or with the program's name.

    Of what Flower and Python's own logging write, the level is taken over.
    """
    with contextlib.suppress(ValueError):
        if isinstance(json.loads(line), dict):
            return _escaped(line)
    found = _LEVEL.match(line)
    level, message = (found[1].lower(), line[found.end() :]) if found else ("info", line)
    return _json_line(now, level, name, message)


def _json_line(at: datetime, level: str, logger: str, message: str, **more: Any) -> str:
    line = {"time": at.isoformat(timespec="milliseconds"), "level": level, "logger": logger}
    written = json.dumps({**line, "message": printable(message), **more}, ensure_ascii=False)
    return _escaped(written)


def _escaped(document: str) -> str:
    """Return a JSON document of which everything can be printed."""
    return "".join(part if part.isprintable() else json.dumps(part)[1:-1] for part in document)


@contextmanager
def log_lines(handler: logging.Handler, form: LogFormat, spoken: logging.Logger) -> Iterator[None]:
    """Write warnings of everything, and all that one logger says, while the context lasts."""
    if form is LogFormat.JSON:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    spoken.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        spoken.setLevel(logging.NOTSET)
