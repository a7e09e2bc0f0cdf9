"""What members get once they have joined, on the deletion service's own port over mutual TLS: keys and the card."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fedmunkey.common.identities.identity import certificate_pem
from fedmunkey.common.identities.member_keys import read_signing_request
from fedmunkey.common.identities.signed_card import CardChain
from fedmunkey.common.service.call_errors import ending
from fedmunkey.protos import membership_pb2, membership_pb2_grpc
from fedmunkey.server.members.admission import serial_of_caller
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.members.register import MemberRegister


class MembershipServicer(membership_pb2_grpc.MembershipServicer):
    """Answers calls of members that were admitted; `cards` reads the versions of the federation card."""

    def __init__(
        self, register: MemberRegister, authority: CertificateAuthority, cards: Callable[[], CardChain]
    ) -> None:
        self._register = register
        self._authority = authority
        self._cards = cards

    async def Rotate(self, message: membership_pb2.RotateRequest, context: Any) -> Any:  # noqa: N802
        """Give the caller a certificate for a fresh key."""
        serial = serial_of_caller(context)

        def rotate() -> membership_pb2.RotateResponse:
            made = self._register.rotate(serial, read_signing_request(message.signing_request), self._authority)
            return membership_pb2.RotateResponse(certificate=certificate_pem(made))

        return await _answer(context, rotate)

    async def GetCards(self, message: membership_pb2.GetCardsRequest, context: Any) -> Any:  # noqa: N802
        """Give versions of the federation card."""

        def read() -> membership_pb2.GetCardsResponse:
            after = [signed for signed in self._cards().cards if signed.card.version > message.after]
            return membership_pb2.GetCardsResponse(cards=[signed.envelope.to_bytes() for signed in after])

        return await _answer(context, read)


async def _answer(context: Any, call: Callable[[], Any]) -> Any:
    try:
        return await asyncio.get_running_loop().run_in_executor(None, call)
    except Exception as error:
        await context.abort(*ending(error, "deletion service"))
    raise AssertionError("abort raises")
