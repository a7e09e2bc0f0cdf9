"""How a notice reaches a program (a webhook) or people (e-mail)."""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

import httpx

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting, ServiceUnavailable
from fedmunkey.common.settings.addresses import is_loopback, split_address
from fedmunkey.server.superlink.notices import Notice

SIGNATURE = "Munkey-Signature"
"""The header with the time, in seconds since 1970, and the HMAC-SHA256 of `time.body`: `t=1700000000,v1=HEX`."""

KEY = "Munkey-Notice"
"""The header with the notice's key, the same in every attempt."""

_SECONDS = 15.0
_SMTPS = 465


class Sender(ABC):
    """Takes notices to somebody."""

    @abstractmethod
    def send(self, notice: Notice) -> None:
        """Send a notice; raises `ServiceUnavailable` if it was not taken, and may be sent again."""


@dataclass(frozen=True)
class Webhook(Sender):
    """A program that is called by HTTP POST, and knows by a shared secret who calls it."""

    url: str
    secret: bytes = field(repr=False)
    clock: Callable[[], datetime] = utc_now

    def send(self, notice: Notice) -> None:
        """Post a notice as JSON; whatever is not answered with 2xx was not taken."""
        body = json.dumps(notice.document(), ensure_ascii=False).encode()
        headers = {
            "Content-Type": "application/json",
            KEY: notice.key,
            SIGNATURE: signature(self.secret, body, int(self.clock().timestamp())),
        }
        try:
            answer = httpx.post(self.url, content=body, headers=headers, timeout=_SECONDS)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"the webhook does not answer ({type(error).__name__})") from None
        if not answer.is_success:
            raise ServiceUnavailable(f"the webhook answered {answer.status_code}")


def signature(secret: bytes, body: bytes, seconds: int) -> str:
    """Return what `SIGNATURE` holds for a body that is sent at a time."""
    code = hmac.new(secret, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={code}"


@dataclass(frozen=True)
class Mail(Sender):
    """People who get an e-mail, over TLS but on this machine."""

    server: str
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)

    def send(self, notice: Notice) -> None:
        """Hand a mail to the server."""
        message = EmailMessage()
        message["Subject"] = f"[fedmunkey] {notice.kind}: {notice.text}"[:200]
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        message["Date"] = format_datetime(notice.at)
        message["Message-ID"] = f"<{notice.key}@{self.sender.rpartition('@')[2]}>"
        message.set_content("".join(f"{name}: {value}\n" for name, value in notice.document().items()))
        try:
            with self._connect() as connection:
                if self.user:
                    connection.login(self.user, self.password)
                connection.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise ServiceUnavailable(f"the mail server does not take it ({type(error).__name__}: {error})") from None

    def _connect(self) -> smtplib.SMTP:
        host, port = split_address(self.server)
        trusted = ssl.create_default_context()
        if port == _SMTPS:
            return smtplib.SMTP_SSL(host.strip("[]"), port, timeout=_SECONDS, context=trusted)
        connection = smtplib.SMTP(host.strip("[]"), port, timeout=_SECONDS)
        connection.ehlo()
        if connection.has_extn("starttls"):
            connection.starttls(context=trusted)
        elif not is_loopback(host):
            connection.close()
            raise ServiceUnavailable("the mail server offers no TLS")
        return connection


def read_secret(path: Path, what: str) -> str:
    """Return the one line of a file that others must not read; raises `InvalidSetting` if there is none."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{what} {path} cannot be read ({error}); write the secret into it") from None
    if not text or path.stat().st_mode & 0o077:
        raise InvalidSetting(f"{what} {path} is empty, or others can read it; chmod 600 {path}")
    return text
