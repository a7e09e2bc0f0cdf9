"""How log lines are written: for people, or one JSON object each for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from fedmunkey.common.service.foreign_text import printable

FIELDS = "fields"
"""The attribute of a log record that holds what a JSON line says beside the message."""


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
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        written = json.dumps(line, ensure_ascii=False)
        return "".join(part if part.isprintable() else json.dumps(part)[1:-1] for part in written)


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
