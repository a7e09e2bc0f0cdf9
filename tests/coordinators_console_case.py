"""A coordinator's console, with its operator's face and the members' one, on a running coordinator in this process."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from fedmunkey.common.clock import utc_now
from fedmunkey.common.console.face import Face
from fedmunkey.common.console.serving import Serving, listen, server_for
from fedmunkey.common.deletions.words import DeletionRequest, Target
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import WitnessedHead
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.console.application import make_members_console, make_operators_console
from fedmunkey.server.console.desk import Desk
from fedmunkey.server.console.members_server import MembersServer
from fedmunkey.server.console.reading import Sources
from fedmunkey.server.transparency_log.log_key import open_log_key
from tests.coordinator import FIRST_OFFICER, Coordinator, running_coordinator
from tests.patience import PATIENCE
from tests.proof_case import OFFICER_KEY, SITE_KEYS, SITES, answered, signed_request


@dataclass
class CoordinatorsConsole:
    """A console that answers its operator and members, and the coordinator that it looks at."""

    coordinator: Coordinator
    desk: Desk
    operators: Face
    members: Face
    operators_address: str
    members_address: str
    identities: dict[str, Identity]
    applied: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.operators_address}"

    @property
    def members_url(self) -> str:
        return f"https://{self.members_address}"

    @contextlib.contextmanager
    def operator(self) -> Iterator[httpx.Client]:
        """Give a browser that has opened the operator's link."""
        with httpx.Client(base_url=self.url, follow_redirects=True, timeout=PATIENCE) as client:
            assert client.get(self.operators.entrance.address(self.operators_address)).status_code == 200
            yield client

    def browser_of(self, identity: Identity | None) -> httpx.Client:
        """Return a browser that shows an identity, without a session."""
        trusted = ssl.create_default_context(cafile=self.coordinator.identity.ca_file)
        if identity is not None:
            trusted.load_cert_chain(identity.certificate_file, identity.key_file)
        return httpx.Client(base_url=self.members_url, verify=trusted, follow_redirects=True, timeout=PATIENCE)

    @contextlib.contextmanager
    def member(self, name: str) -> Iterator[httpx.Client]:
        """Give a member's browser with a session."""
        with self.browser_of(self.identities[name]) as client:
            assert client.post("/open").status_code == 200
            yield client

    def ask(self, request_id: str, target: Target | None = None, **how: str) -> DeletionRequest:
        """Have the officer ask by a command, or a site for itself."""
        key = SITE_KEYS.get(how.get("requester", ""), OFFICER_KEY)
        request = signed_request(request_id, target, issued=utc_now(), key=key, **how)  # type: ignore[arg-type]
        self.coordinator.service.submit(request)
        return request

    def answer(self, *sites: str) -> None:
        """Have sites, all by default, answer all their orders, each with a receipt."""
        for site in sites or SITES:
            for order in self.coordinator.service.watch(site, self.applied.get(site, 0)):
                self.applied[site] = order.number
                update = self.coordinator.service.log_update(0)
                assert update is not None
                head = LogHead.of(update.head)
                seen = WitnessedHead(head.size, head.root)
                self.coordinator.service.acknowledge(answered(order, seen, utc_now(), Guarantee.EXACT))


@contextlib.contextmanager
def coordinators_console(work: Path) -> Iterator[CoordinatorsConsole]:
    """Give a console that is served until the context ends, of a coordinator with two sites and an officer."""
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(running_coordinator(work))
        identities = {site: running.member(site) for site in SITES}
        identities[FIRST_OFFICER] = running.member(FIRST_OFFICER, MemberRole.OFFICER)
        _, log_key = open_log_key(running.folder.log_key, str(running.folder.ledger))
        TrustedKeys(
            (
                TrustedKey("officer-1", Role.OFFICER, OFFICER_KEY.public),
                TrustedKey("coordinator", Role.LOG, log_key.public),
                *(TrustedKey(site, Role.SITE, key.public) for site, key in SITE_KEYS.items()),
            )
        ).write(running.folder.trust)
        channel = stack.enter_context(running.channel(running.identity))
        folder, sources = running.folder, Sources.of(running.ledger, channel)
        joining = running.joining.address
        audits = folder.path / "audits"
        desk = Desk(sources, folder.trust, folder, running.register, folder.runs, audits, joining)
        operators = make_operators_console(desk)
        members = make_members_console(desk, running.register)
        listening, address = listen("127.0.0.1:0")
        operators.named(address)
        served = MembersServer.listening(members, "127.0.0.1:0", running.identity)
        stack.enter_context(_serving(Serving(server_for(operators.app, address), [listening])))
        stack.enter_context(_serving(served.serving))
        stack.callback(channel.close)
        stack.callback(sources.ended.set)
        for face in (operators, members):
            stack.callback(face.lives.close)
        yield CoordinatorsConsole(running, desk, operators, members, address, served.address, identities)


@contextlib.contextmanager
def _serving(serving: Serving) -> Iterator[None]:
    thread = threading.Thread(target=lambda: serving.server.run(sockets=list(serving.sockets)), daemon=True)
    thread.start()
    started = threading.Event()
    while not serving.server.started and thread.is_alive():
        started.wait(0.01)
    try:
        yield
    finally:
        serving.server.should_exit = True
        thread.join(PATIENCE)
        for listening in serving.sockets:
            listening.close()
