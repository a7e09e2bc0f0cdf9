"""An officer's console on a coordinator with two sites, in this process; over gRPC, and served to a browser."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from fedmunkey.client.console.application import make_console
from fedmunkey.client.console.office import Office
from fedmunkey.common.clock import utc_now
from fedmunkey.common.console.face import Face
from fedmunkey.common.console.serving import listen, server_for
from fedmunkey.common.deletions.words import DeletionOrder, SiteState, Target
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import Receipt, WitnessedHead
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from tests.patience import PATIENCE
from tests.proof_case import OFFICER_KEY, SECRET, SITE_KEYS, SITES, TRUST, answered, open_coordinator, signed_request


@dataclass
class ConsoleCase:
    """A console that answers at an address, and the service that it looks at."""

    folder: Path
    service: LedgerService
    office: Office
    face: Face
    address: str
    server: DeletionServer
    channel: DeletionChannel
    applied: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Give a browser without a screen, which has opened a link."""
        with self.stranger() as client:
            assert client.get(self.face.entrance.address(self.address)).status_code == 200
            yield client

    def stranger(self) -> httpx.Client:
        """Return one that has not."""
        return httpx.Client(base_url=self.url, follow_redirects=True, timeout=PATIENCE)

    def restart_service(self, while_down: Callable[[], object]) -> None:
        """Stop what listens, do something, and start it again at the same address."""
        self.server.stop(grace=0)
        while_down()
        self.server.start()

    def ask(self, request_id: str, target: Target | None = None, days: float = 90) -> None:
        """Have the officer ask for something by a command."""
        self.service.submit(signed_request(request_id, target, issued=utc_now(), days=days))

    def answer(self, *, state: SiteState = SiteState.ERASED, sites: tuple[str, ...] = SITES, reason: str = "") -> None:
        """Have sites answer all their orders, each with a receipt."""
        for site in sites:
            for order in self.service.watch(site, self.applied.get(site, 0)):
                self.applied[site] = order.number
                self._answer(order, state, reason)

    def _answer(self, order: DeletionOrder, state: SiteState, reason: str) -> None:
        update = self.service.log_update(0)
        assert update is not None
        head = LogHead.of(update.head)
        seen = WitnessedHead(head.size, head.root)
        erased = answered(order, seen, utc_now(), Guarantee.EXACT)
        if state is SiteState.ERASED:
            self.service.acknowledge(erased)
            return
        said = replace(erased, state=state, records=0, entries=0, reason=reason, receipt=b"")
        tombstones = None if state is SiteState.REFUSED else bytes(32)
        receipt = Receipt(said, OpenedRequest.of(order.request).digest, utc_now(), tombstones, seen)
        self.service.acknowledge(replace(said, receipt=receipt.sign(SITE_KEYS[order.site]).to_bytes()))


def csrf_of(browser: httpx.Client) -> str:
    """Return the token of a browser's session, as its pages have it."""
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/overview").text)
    assert found is not None
    return found[1]


def forms(page: str, csrf: str) -> bool:
    """Return whether every form of a page that posts carries the session's token."""
    return page.count('method="post"') == page.count(f'name="csrf" value="{csrf}"')


@contextlib.contextmanager
def running_console(
    folder: Path, *, officers: int = 1, on_closed: Callable[[], object] | None = None
) -> Iterator[ConsoleCase]:
    """Give a console that is served until the context ends."""
    with contextlib.ExitStack() as stack:
        service = open_coordinator(stack, folder, utc_now)
        server = stack.enter_context(DeletionServer(service))
        channel = stack.enter_context(DeletionChannel(server.address, timeout=PATIENCE))
        OFFICER_KEY.write_pair(folder / "officer.pem")
        SECRET.write(folder / "federation.secret")
        keys = folder / "keys.json"
        replace(TRUST, officers=officers).write(keys)
        office = Office.of_officer(folder / "officer.pem", folder / "federation.secret", keys)
        face = make_console(office, channel, on_closed=on_closed)
        address = stack.enter_context(served(face, channel.close))
        yield ConsoleCase(folder, service, office, face, address, server, channel)


@contextlib.contextmanager
def served(face: Face, stop: Callable[[], object]) -> Iterator[str]:
    """Serve a console in a thread; give its address."""
    listening, address = listen("127.0.0.1:0")
    face.named(address)
    server = server_for(face.app, address)
    started = threading.Event()
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        started.wait(0.01)
    try:
        yield address
    finally:
        face.lives.close()
        stop()
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
