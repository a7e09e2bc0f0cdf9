"""What the service logs: every move in the ledger, one line each, for people or as JSON for programs.

A line holds a request's number in the ledger and a site's name. It holds neither the request's id nor a reason, which
people choose and might write a patient's name into; both are in the ledger. References are in no log either.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO

from fedmunkey.common.programs.log_format import FIELDS, LogFormat, log_lines
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.ledger.writer import Event

_moves = logging.getLogger("server.moves")


class _TogetherHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of one transaction at once, for each write lets other threads go first."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold lines back while the context lasts, and those of other threads with them."""
        with self.lock or nullcontext():
            self._lines = []
            try:
                yield
            finally:
                lines, self._lines = self._lines, None
                if lines:
                    self.stream.write("".join(lines))
                    self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line, or hold it back."""
        if self._lines is None:
            super().emit(record)
            return
        try:
            self._lines.append(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)


@contextmanager
def logging_to(stream: TextIO, form: LogFormat, ledger: Ledger) -> Iterator[None]:
    """Log what happens, and every move of a ledger, while the context lasts."""
    handler = _TogetherHandler(stream)

    def log_together(events: Sequence[Event]) -> None:
        with handler.together():
            log_moves(events)

    ledger.listen(log_together)
    with log_lines(handler, form, _moves):
        yield


def log_moves(events: Sequence[Event]) -> None:
    """Log the moves of a transaction."""
    if not _moves.isEnabledFor(logging.INFO):
        return
    for event in events:
        fields: dict[str, Any] = {}
        if event.request is not None:
            fields["request"] = event.request
        if event.site:
            fields["site"] = event.site
        fields |= {"before": event.before, "after": event.after}
        if event.seconds is not None:
            fields["seconds"] = round(event.seconds, 3)
        what = f"request {event.request}" if event.request is not None else "site"
        where = f"{' at ' if event.request is not None else ' '}{event.site}" if event.site else ""
        _moves.info("%s%s: %s", what, where, event.after, extra={FIELDS: fields})
