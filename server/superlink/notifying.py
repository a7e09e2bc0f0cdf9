"""Telling programs and people of deletions, as a program of its own: `munkey-server up` keeps it running.

Run as a program with the path of `coordinator.toml`. What was told to whom stands in `notices.json` in the
coordinator's folder, and is written after each notice was taken: none is lost, and none is told again after a restart
unless the program was killed between the two; its key is the same then.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting, ServiceUnavailable
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.programs.flower import serve_from_file
from fedmunkey.common.service.waiting import pauses
from fedmunkey.common.stop_signals import stop_event
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.notice_senders import Mail, Sender, Webhook, read_secret
from fedmunkey.server.superlink.notices import Notice, alarms, last_event, read_notices

NOTIFYING_READY = "notices of "
"""What the program's first line begins with."""

_LOOK_SECONDS = 2.0
_FILE_NAME = "notices.json"

logger = logging.getLogger(__name__)


@dataclass
class Told:
    """What somebody was told: all events up to one, and alarms by their keys."""

    event: int
    alarms: list[str] = field(default_factory=list)


class Outbox:
    """What was told to whom, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: dict[str, Told] = {}
        if path.exists():
            try:
                self._told = {name: Told(**told) for name, told in json.loads(path.read_bytes()).items()}
            except (TypeError, ValueError, AttributeError) as error:
                raise InvalidSetting(
                    f"{path} cannot be read ({error}); move it away to begin with what is new"
                ) from None

    def told(self, name: str, last: int) -> Told:
        """Return what one was told; whoever is new is told what comes after the last event of now.

        Where the ledger was put back from a copy that is older than what was told, it goes on from the copy's end.
        """
        known = self._told.setdefault(name, Told(last))
        known.event = min(known.event, last)
        return known

    def note(self, name: str, notice: Notice) -> None:
        """Note, on the disk, that one was told something."""
        known = self._told[name]
        if notice.event:
            known.event = notice.event
        else:
            known.alarms.append(notice.key)
        self.write()

    def write(self) -> None:
        """Bring it to the disk."""
        content = {name: {"event": told.event, "alarms": told.alarms} for name, told in self._told.items()}
        replace_file(self._path, json.dumps(content).encode(), 0o600)


class Notifier:
    """Tells each of some senders everything, in order, each at its own pace."""

    def __init__(
        self,
        ledger: Ledger,
        outbox: Outbox,
        senders: Mapping[str, Sender],
        *,
        clock: Callable[[], datetime] = utc_now,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._senders = senders
        self._clock = clock
        self._seconds = seconds
        self._waits: dict[str, Iterator[float]] = {}
        self._not_before: dict[str, float] = {}
        last = last_event(ledger.engine)
        for name in senders:
            outbox.told(name, last)
        outbox.write()

    def look(self) -> None:
        """Tell what is to be told by now; one that does not take it is tried again later, and holds up no other."""
        last = last_event(self._ledger.engine)
        pressing = alarms(self._ledger.summary(), self._clock())
        for name, sender in self._senders.items():
            if self._seconds() < self._not_before.get(name, 0.0):
                continue
            told = self._outbox.told(name, last)
            waiting = [alarm for alarm in pressing if alarm.key not in told.alarms]
            try:
                for notice in [*waiting, *read_notices(self._ledger.engine, told.event)]:
                    sender.send(notice)
                    self._outbox.note(name, notice)
                    self._waits.pop(name, None)
            except ServiceUnavailable as error:
                wait = next(self._waits.setdefault(name, pauses()))
                self._not_before[name] = self._seconds() + wait
                logger.warning("%s: %s; trying again in %.1f s", name, error, wait)


def senders_of(file: CoordinatorFile) -> dict[str, Sender]:
    """Return who is told, by name; raises `InvalidSetting` if a secret cannot be read."""
    said = file.notices
    senders: dict[str, Sender] = {}
    if said.webhook and said.webhook_secret is not None:
        secret = read_secret(said.webhook_secret, "webhook-secret")
        senders["webhook"] = Webhook(said.webhook, secret.encode())
    if said.mail_to:
        password = "" if said.smtp_password is None else read_secret(said.smtp_password, "smtp-password")
        senders["mail"] = Mail(said.smtp, said.mail_from, tuple(said.mail_to), said.smtp_user, password)
    return senders


def serve(file: CoordinatorFile) -> None:
    """Tell until SIGINT or SIGTERM."""
    senders = senders_of(file)
    with Ledger(file.ledger) as ledger, stop_event() as stop:
        notifier = Notifier(ledger, Outbox(file.coordinator_dir / _FILE_NAME), senders)
        sys.stdout.write(f"{NOTIFYING_READY}{ledger.name}: {', '.join(senders)}\n")
        sys.stdout.flush()
        while not stop.wait(_LOOK_SECONDS):
            try:
                notifier.look()
            except ServiceUnavailable as error:
                logger.warning("%s", error)


def main() -> None:
    """Run it on the file that the command line names."""
    serve_from_file(CoordinatorFile, serve, logger)
