"""Notices reach a webhook and a mail server: none is lost, and none is told again after a restart."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import re
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.deletions.words import DeletionRequest, Subject
from fedmunkey.common.errors import InvalidSetting, ServiceUnavailable
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.notice_senders import KEY, SIGNATURE, Mail, Sender, Webhook
from fedmunkey.server.superlink.notices import Notice
from fedmunkey.server.superlink.notifying import Notifier, Outbox, senders_of
from fedmunkey.server.superlink.up import children
from tests.server.ledger.ledger_contract import Clock
from tests.server.superlink.test_coordinator_file import written

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = b"a secret of two"
NOTICE = Notice("7-x", "completed", START, "request r-1 is completed", "r-1", 7)


class Listener(Sender):
    """Takes notices, or refuses them while it is told to."""

    def __init__(self) -> None:
        self.heard: list[Notice] = []
        self.deaf = False

    def send(self, notice: Notice) -> None:
        if self.deaf:
            raise ServiceUnavailable("nobody listens")
        self.heard.append(notice)


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]  # type: ignore[index, misc]
        finally:
            server.shutdown()
            thread.join()


def ask(ledger: Ledger, name: str) -> None:
    ledger.enter(DeletionRequest(name, "hospital-1", Subject(hashlib.sha256(name.encode()).digest())))


def test_each_is_told_everything_once_across_restarts_and_one_that_is_deaf_holds_up_no_other(
    ledger: Ledger, clock: Clock, tmp_path: Path
) -> None:
    ask(ledger, "before")
    one, other, seconds = Listener(), Listener(), [0.0]

    def start() -> Notifier:
        outbox = Outbox(tmp_path / "notices.json")
        return Notifier(ledger, outbox, {"one": one, "other": other}, clock=clock, seconds=lambda: seconds[0])

    notifier = start()
    ask(ledger, "r-1")
    other.deaf = True
    notifier.look()
    ask(ledger, "r-2")
    notifier = start()
    notifier.look()
    other.deaf = False
    seconds[0] += 60.0
    notifier.look()
    notifier.look()

    # What was there before anybody was to be told is not told.
    assert [(notice.kind, notice.request) for notice in one.heard] == [("new", "r-1"), ("new", "r-2")]
    assert other.heard == one.heard
    assert len({notice.key for notice in one.heard}) == 2


def test_late_and_ended_requests_and_alarms_are_told(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    one = Listener()
    notifier = Notifier(ledger, Outbox(tmp_path / "notices.json"), {"one": one}, clock=clock)
    ask(ledger, "r-1")
    clock.time += timedelta(days=31)
    ledger.mark_overdue()
    for site in ("hospital-1", "hospital-2"):
        ledger.remove(site, "closed; patient 4711")
    notifier.look()

    assert [(notice.kind, notice.request) for notice in one.heard] == [
        ("new", "r-1"),
        ("late", "r-1"),
        ("partial", "r-1"),
    ]
    assert "4711" not in json.dumps([notice.document() for notice in one.heard])


def test_ledger_that_was_put_back_is_followed_from_its_end(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    one, path = Listener(), tmp_path / "notices.json"
    path.write_text(json.dumps({"one": {"event": 1000, "alarms": []}}))
    notifier = Notifier(ledger, Outbox(path), {"one": one}, clock=clock)
    ask(ledger, "r-1")
    notifier.look()

    assert [notice.request for notice in one.heard] == ["r-1"]


def test_webhook_gets_json_whose_signature_holds() -> None:
    heard: list[tuple[dict[str, str], bytes]] = []
    codes = [503, 204]

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(codes.pop(0))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(http.server.HTTPServer(("127.0.0.1", 0), Hook)) as port:
        webhook = Webhook(f"http://127.0.0.1:{port}/hook", SECRET, lambda: START)
        with pytest.raises(ServiceUnavailable, match="answered 503"):
            webhook.send(NOTICE)
        webhook.send(NOTICE)
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        webhook.send(NOTICE)

    (headers, body) = heard[1]
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers[SIGNATURE])
    assert found is not None
    assert int(found[1]) == int(START.timestamp())
    assert found[2] == hmac.new(SECRET, f"{found[1]}.".encode() + body, "sha256").hexdigest()
    assert {sent[KEY] for sent, _ in heard} == {"7-x"}
    assert json.loads(body) == {
        "key": "7-x",
        "kind": "completed",
        "at": "2026-03-01T12:00:00Z",
        "request": "r-1",
        "text": "request r-1 is completed",
    }


def mail_server(heard: list[str], context: ssl.SSLContext | None) -> socketserver.TCPServer:
    class Speaking(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with ExitStack() as closing:
                self._talk(closing)

        def _talk(self, closing: ExitStack) -> None:
            connection, secure = self.request, False
            connection.settimeout(20.0)
            connection.sendall(b"220 here\r\n")
            lines = closing.enter_context(connection.makefile("rb"))
            while line := lines.readline().decode().strip():
                word = line.split()[0].upper()
                heard.append(f"{'TLS ' * secure}{line}")
                if word == "EHLO":
                    offer = b"STARTTLS" if context and not secure else b"AUTH PLAIN"
                    connection.sendall(b"250-here\r\n250 " + offer + b"\r\n")
                elif word == "STARTTLS" and context:
                    connection.sendall(b"220 go\r\n")
                    connection, secure = context.wrap_socket(connection, server_side=True), True
                    closing.enter_context(connection)
                    lines = closing.enter_context(connection.makefile("rb"))
                elif word == "DATA":
                    connection.sendall(b"354 go\r\n")
                    while (said := lines.readline().decode()) != ".\r\n":
                        heard.append(said.rstrip())
                    connection.sendall(b"250 taken\r\n")
                elif word == "QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                else:
                    connection.sendall(b"235 yes\r\n" if word == "AUTH" else b"250 yes\r\n")

    return socketserver.TCPServer(("127.0.0.1", 0), Speaking)


@pytest.mark.parametrize("offers_tls", [True, False])
def test_people_get_a_mail_over_tls(offers_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CoordinatorFolder(tmp_path / "coordinator")
    folder.create("test federation", ["127.0.0.1"])
    identity = folder.read_identity()
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    heard: list[str] = []

    with serving(mail_server(heard, context if offers_tls else None)) as port:
        people = ("officer@example.org", "it@example.org")
        Mail(f"127.0.0.1:{port}", "munkey@example.org", people, "munkey", "a password").send(NOTICE)

    said = "\n".join(heard)
    assert "Subject: [fedmunkey] completed: request r-1 is completed" in said
    assert "To: officer@example.org, it@example.org" in said
    assert "Message-ID: <7-x@example.org>" in said
    # On this machine alone is a server without TLS good enough.
    assert ("TLS AUTH PLAIN" in said, "TLS data" in said) == (offers_tls, offers_tls)


def test_notices_are_settings_of_the_coordinator(tmp_path: Path) -> None:
    secret = tmp_path / "hook.secret"
    secret.write_text("a secret of two\n")
    secret.chmod(0o600)
    text = '[notices]\nwebhook = "https://hook.example.org/x"\nwebhook-secret = "hook.secret"'
    file = CoordinatorFile.read(written(tmp_path, text))
    mail = '\nmail-to = ["o@example.org"]\nmail-from = "m@example.org"\nsmtp = "mail.example.org:587"'
    both = CoordinatorFile.read(written(tmp_path, text + mail))

    assert senders_of(file) == {"webhook": Webhook("https://hook.example.org/x", SECRET)}
    assert [child.name for child in children(file, tmp_path)][-1] == "notices"
    assert list(senders_of(both)) == ["webhook", "mail"]
    assert "a secret of two" not in repr(senders_of(file))
    secret.chmod(0o644)
    with pytest.raises(InvalidSetting, match="others can read it"):
        senders_of(file)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('webhook = "https://x"', "webhook needs webhook-secret"),
        ('webhook = "ftp://x"\nwebhook-secret = "s"', "webhook = ftp://x"),
        ('mail-to = ["a@b"]', "mail-to needs mail-from and smtp"),
        ('webhok = "x"', "unknown setting webhok: did you mean webhook?"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(InvalidSetting, match="notices: ") as refused:
        CoordinatorFile.read(written(tmp_path, f"[notices]\n{text}"))

    assert named in str(refused.value)
