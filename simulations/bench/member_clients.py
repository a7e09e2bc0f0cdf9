"""Members in great number, each with a certificate and a signing key of its own, in one event loop.

A site checks who has signed an order, signs its receipt and gives it, over a connection with mutual TLS, as the agent
does; what it erases and keeps on disk is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedmunkey.client.deletions.order_check import check_order
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest
from fedmunkey.common.identities.identity import certificate_pem
from fedmunkey.common.identities.member_names import MemberRole
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.service.wire import acknowledgement_to_wire, order_from_wire, request_to_wire
from fedmunkey.protos import deletion_pb2
from fedmunkey.protos.deletion_pb2_grpc import DeletionStub
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.simulations.bench.service_clients import CHANNEL_OPTIONS, PATIENCE_SECONDS, Sites, erased

_CONNECTING_AT_ONCE = 50
_AGAIN_SECONDS = 0.2
"""How long a site waits before it tries the next address."""


@dataclass(frozen=True)
class Member:
    """Somebody with an identity; `key` signs receipts or requests."""

    name: str
    credentials: grpc.ChannelCredentials
    certificate: x509.Certificate
    key: SigningKey = field(default_factory=SigningKey.generate)

    @classmethod
    def make(cls, authority: CertificateAuthority, role: MemberRole, name: str) -> Member:
        """Return a member with a certificate that was issued now; nobody enters it in a register."""
        private = ec.generate_private_key(ec.SECP256R1())
        certificate = authority.issue(private.public_key(), role, name, utc_now())
        credentials = grpc.ssl_channel_credentials(
            certificate_pem(authority.certificate),
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate_pem(certificate),
        )
        return cls(name, credentials, certificate)

    @asynccontextmanager
    async def stub(self, address: str) -> AsyncIterator[Any]:
        """Connect to a deletion service while the context lasts."""
        async with grpc.aio.secure_channel(address, self.credentials, options=CHANNEL_OPTIONS) as channel:
            yield DeletionStub(channel)  # type: ignore[no-untyped-call]

    async def submit(self, addresses: Sequence[str], request: DeletionRequest) -> None:
        """Submit a request to the first service that takes it."""
        message = deletion_pb2.SubmitRequest(request=request_to_wire(request))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for address in addresses:
                    try:
                        async with self.stub(address) as stub:
                            await stub.Submit(message, timeout=PATIENCE_SECONDS)
                            return
                    except grpc.RpcError as error:
                        if error.code() is not grpc.StatusCode.UNAVAILABLE:
                            raise
                await asyncio.sleep(_AGAIN_SECONDS)


@dataclass(frozen=True)
class MemberSites:
    """Sites that follow their orders at one of several services, and go to the next where theirs is gone."""

    members: Sequence[Member]
    addresses: Sequence[str]
    trust: TrustedKeys
    federation: str

    @asynccontextmanager
    async def connected(self, count: Callable[[int], None]) -> AsyncIterator[Sites]:
        """Connect all and wait until each has answered its first order, which it has to have already."""
        sites = Sites()
        connecting = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        ready: Mapping[str, asyncio.Event] = {member.name: asyncio.Event() for member in self.members}

        async def first(member: Member, place: int) -> None:
            async with connecting:
                following = asyncio.create_task(self._follow(member, place, sites, ready[member.name]))
                tasks.append(following)
                await ready[member.name].wait()
                count(1)

        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(first(member, place) for place, member in enumerate(self.members)))
            yield sites
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, member: Member, place: int, sites: Sites, ready: asyncio.Event) -> None:
        last = 0
        while True:
            address = self.addresses[place % len(self.addresses)]
            try:
                async with member.stub(address) as stub:
                    stream = stub.Watch(deletion_pb2.WatchRequest(site=member.name, after=last, follow=True))
                    async for response in stream:
                        order = order_from_wire(response.order)
                        answer = deletion_pb2.AcknowledgeRequest(acknowledgement=self._answer(member, order))
                        await stub.Acknowledge(answer)
                        last = order.number
                        ready.set()
                        sites.add()
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise
            place += 1
            await asyncio.sleep(_AGAIN_SECONDS)

    def _answer(self, member: Member, order: DeletionOrder) -> deletion_pb2.Acknowledgement:
        now = utc_now()
        opened = OpenedRequest.of(order.request)
        check_order(order, opened, trust=self.trust, federation=self.federation, now=now)
        answer = erased(order.number, order.site, order.request.request_id)
        receipt = Receipt(answer, opened.digest, now, bytes(32), None).sign(member.key).to_bytes()
        return acknowledgement_to_wire(replace(answer, receipt=receipt))
