"""The deletion service on the network: gRPC, with health checks and reflection.

One event loop in one thread serves every connection, so a thousand sites may follow their orders at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.signed_card import CardChain
from fedmunkey.common.service.channel import KEEPALIVE_SECONDS, MESSAGE_OPTIONS
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.protos import deletion_pb2, deletion_pb2_grpc, membership_pb2, membership_pb2_grpc
from fedmunkey.server.connections.listening import cannot_listen, check_free, listen
from fedmunkey.server.connections.places import Places
from fedmunkey.server.connections.relay import Relay
from fedmunkey.server.connections.server_credentials import server_credentials, stranger_options
from fedmunkey.server.deletions.calls import DeletionServicer
from fedmunkey.server.deletions.ledger_service import LedgerService, News
from fedmunkey.server.deletions.presence import Presence
from fedmunkey.server.deletions.upkeep import Upkeep
from fedmunkey.server.ledger.addressees import addressee_reader
from fedmunkey.server.members.admission import Admission
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.rations import LARGEST_MESSAGE, Rations
from fedmunkey.server.members.recovery import recover
from fedmunkey.server.members.register import MemberRegister
from fedmunkey.server.members.rotation import MembershipServicer
from fedmunkey.server.members.turned_away import Refusals

SERVICE_NAME = deletion_pb2.DESCRIPTOR.services_by_name["Deletion"].full_name

STRANGERS, OF_AN_ADDRESS = 64, 32
"""Connections at once of those who have not shown yet who they are; a member's call shows it."""

_MEMBERS_SERVICES = (SERVICE_NAME, membership_pb2.DESCRIPTOR.services_by_name["Membership"].full_name)

_SERVER_OPTIONS = [
    *{**dict(MESSAGE_OPTIONS), "grpc.max_receive_message_length": LARGEST_MESSAGE}.items(),
    *stranger_options(),
    # Linux would let a second server share the port and take half of the connections.
    ("grpc.so_reuseport", 0),
    # A site that pings as often as it should must not be taken for an attacker.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 500),
]

_log = logging.getLogger(__name__)


class DeletionServer:
    """Serves a deletion service at an address until it is stopped.

    Without an identity, connections are neither encrypted nor authenticated.

    The service stays open when the server stops; port 0 takes one that is free. With the coordinator's identity,
    connections are mutual TLS and only certificates of its authority are let in; the register says which of these are
    good, and so who may call what, and is needed with an identity. Members can rotate where there is an authority, and
    get the versions of the federation card that `cards` reads.
    Without an identity, connections are neither encrypted nor authenticated. Raises `InvalidSetting` if the address is
    not of the form `host:port`.
    """

    def __init__(
        self,
        service: LedgerService,
        address: str = "127.0.0.1:0",
        *,
        identity: Identity | None = None,
        register: MemberRegister | None = None,
        authority: CertificateAuthority | None = None,
        cards: Callable[[], CardChain] = CardChain,
    ) -> None:
        if (identity is None) != (register is None):
            raise ValueError("an identity and a register of members go together")
        self._host, self._port = split_address(address)
        self._service = service
        self._identity = identity
        self._register = register
        self._authority = authority
        self._cards = cards
        self.refusals = Refusals()
        self._presence = Presence(service.ledger)
        self._relay: Relay | None = None
        self._upkeep: Upkeep | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Future[float] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port`, with the port that was chosen once the server has started."""
        return f"{self._host}:{self._port}"

    def start(self) -> int:
        """Listen, and serve in a thread of its own; return the port.

        Raises `InvalidSetting` if the address is in use or not this machine's.
        """
        if self._thread is not None:
            raise RuntimeError("the server was started already")
        # Looked at before anyone is served, so that whatever comes later is noticed.
        upkeep = Upkeep(self._service, self._presence, replaced=self._recover_members)
        if self._identity is None:
            check_free(self._host, self._port)
        else:
            sockets = listen(self._host, self._port)
            self._relay = Relay(sockets, Places(strangers=STRANGERS, each=OF_AN_ADDRESS))
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="deletion-server", daemon=True
        )
        self._thread.start()
        try:
            self._port = started.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            if self._relay is not None:
                self._relay.stop()
            raise
        if self._relay is not None:
            self._relay.start(self._port)
            self._port = self._relay.port
        upkeep.start()
        self._upkeep = upkeep
        return self._port

    def stop(self, grace: float = 5.0) -> None:
        """Stop serving and wait until that is done; a server that is not running stays as it is.

        New calls are refused at once and streams of orders end with `UNAVAILABLE`. Calls under way have `grace`
        seconds to end; what they had begun to write to the ledger is written, and a round's hook is waited for.
        """
        if self._thread is None or self._loop is None or self._stop is None:
            return
        if self._upkeep is not None:
            self._upkeep.stop()
            self._upkeep = None
        self._loop.call_soon_threadsafe(self._stop.set_result, grace)
        self._thread.join()
        self._thread = None
        if self._relay is not None:
            self._relay.stop()
        self._presence.write()

    def _recover_members(self) -> None:
        try:
            self._service.ledger.recover_instructions()
        except FedmunkeyError as error:
            _log.error("what the ledger has lost of its instructions cannot be brought back: %s", error)
        if self._register is None:
            return
        try:
            for line in recover(self._register, self._service.ledger):
                _log.warning("%s", line)
        except FedmunkeyError as error:
            _log.error("what the ledger has lost of its members cannot be brought back: %s", error)

    def _make_admission(self) -> Admission | None:
        if self._register is None:
            return None
        return Admission(
            self._register,
            addressee_reader(self._service.ledger.engine),
            _MEMBERS_SERVICES,
            self.refusals,
            self._relay.introduce if self._relay is not None else lambda *_: None,
        )

    def _add_port(self, server: grpc.aio.Server) -> int:
        if self._identity is None:
            return int(server.add_insecure_port(self.address))
        # Others reach it by the relay.
        return int(server.add_secure_port("127.0.0.1:0", server_credentials(self._identity, ask_members=True)))

    async def _serve(self, started: Future[int]) -> None:
        try:
            admission = self._make_admission()
            before = [Rations(_MEMBERS_SERVICES), *([admission] if admission else [])]
            server = grpc.aio.server(options=_SERVER_OPTIONS, interceptors=before)
            servicer = DeletionServicer(self._service, self._presence)
            deletion_pb2_grpc.add_DeletionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
            checks = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(checks, server)
            if self._identity is None:
                names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
                reflection.enable_server_reflection(names, server)
            try:
                port = self._add_port(server)
            except RuntimeError:
                raise cannot_listen(self.address, "it is in use") from None
            if self._register is not None and self._authority is not None:
                membership_pb2_grpc.add_MembershipServicer_to_server(  # type: ignore[no-untyped-call]
                    MembershipServicer(self._register, self._authority, self._cards), server
                )
            await server.start()
            if admission is not None:
                await admission.start()
            for name in ("", SERVICE_NAME):
                await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
            self._loop = loop = asyncio.get_running_loop()
            self._stop = loop.create_future()
        except BaseException as error:
            started.set_exception(error)
            return

        def hear(news: News) -> None:
            loop.call_soon_threadsafe(servicer.hear, news)

        with self._service.listening(hear):
            started.set_result(port)
            grace = await self._stop
            await checks.enter_graceful_shutdown()
            servicer.stop()
            await server.stop(grace)
            if admission is not None:
                await admission.stop()
        # Threads may still wait for this loop, so it must not.
        await loop.run_in_executor(None, servicer.close)
        if admission is not None:
            await loop.run_in_executor(None, admission.close)
