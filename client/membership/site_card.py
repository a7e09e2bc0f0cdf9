"""The federation card at a member: what it has taken over, and how it hears of more.

cards/1.json       the first version that is in force here or was, as the authority signed it; then 2.json and so on
cards/taken.jsonl  when each was taken over, and how
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import grpc

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import CardMismatch, InvalidIdentity, InvalidProof
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.identity import CA_FILE, read_certificate
from fedmunkey.common.identities.signed_card import CARDS_FOLDER, SHORT, CardChain, SignedCard
from fedmunkey.common.model.federation_card import changes
from fedmunkey.common.private_files import locked_folder, replace_file
from fedmunkey.common.proofs.log_heads import LogHead, card_leaf
from fedmunkey.common.proofs.merkle import check_inclusion, leaf_hash
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys
from fedmunkey.common.service.call_errors import explain
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.secure_connection import Connection
from fedmunkey.protos import membership_pb2
from fedmunkey.protos.membership_pb2_grpc import MembershipStub

_TAKEN = "taken.jsonl"
_SECONDS = 30.0


class Taken(StrEnum):
    """How a version of the card came to be in force at a member: by joining, as its first one, or by a command."""

    JOINED = "joined"
    FIRST = "first"
    ACCEPTED = "accepted"


@dataclass(frozen=True)
class MemberCards:
    """The versions that a member has taken over, in its folder; `identity` is the folder that says whose they are."""

    folder: Path
    identity: Path

    @classmethod
    def of(cls, site: SiteFolder) -> MemberCards:
        """Return those of a site."""
        return cls(site.path, site.identity)

    def read(self) -> CardChain:
        """Return the versions; raises `InvalidProof` if they were changed, `InvalidIdentity` without an authority."""
        if not (self.folder / CARDS_FOLDER).exists():
            return CardChain()
        return CardChain.read(self.folder, read_certificate(self.identity / CA_FILE))

    def words(self) -> str | None:
        """Return which version is in force, in a few words; None where there is none."""
        current = self.read().current
        return None if current is None else current.words

    def keep(self, chain: CardChain, how: Taken, now: datetime) -> None:
        """Take versions over that were checked, and note when; those that are there stay."""
        if chain.current is None:
            return
        chain.write(self.folder)
        with locked_folder(self.folder / CARDS_FOLDER):
            path = self.folder / CARDS_FOLDER / _TAKEN
            noted = path.read_text(encoding="utf-8") if path.exists() else ""
            note = {
                "version": chain.current.card.version,
                "digest": chain.current.digest,
                "at": now.isoformat(),
                "how": how.value,
            }
            replace_file(path, f"{noted}{json.dumps(note)}\n".encode())

    def hear(self, address: str) -> CardChain:
        """Ask the deletion service for all versions; return them, and keep none.

        Raises `InvalidProof` if one is not the authority's, or another than the one that was taken over. Raises
        `InvalidIdentity` if the service refuses the member, and `ServiceUnavailable` if it cannot be reached.
        """
        shown = Identity.read(self.identity)
        return self.read().follow(_ask(shown, address), read_certificate(shown.ca_file))


def check_under(held: SignedCard, heard: CardChain, digest: str) -> None:
    """Check that a run under the card of a digest is under the one that a site has taken over; raises `CardMismatch`.

    `heard` says what the run's card is.
    """
    if digest == held.digest:
        return
    found = next((signed for signed in heard.cards if signed.digest == digest), None)
    if found is None:
        said = f"one that the coordinator does not show ({digest[:SHORT]})" if digest else "none"
        raise CardMismatch(f"federation card: this site has {held.words}, the run is under {said}; ask the coordinator")
    fields = ", ".join(changes(held.card, found.card)) or "nothing but its reason"
    newer = found.card.version > held.card.version
    way_out = "munkey-client card accept takes it over" if newer else "ask the coordinator for another run"
    raise CardMismatch(
        f"federation card: this site has {held.words}, the run is under {found.words}, which differs in {fields}; "
        f"{way_out}"
    )


def check_logged(site: SiteFolder, signed: SignedCard, address: str) -> None:
    """Check that the coordinator's log has a version, so that all members are shown the same one.

    A site that does not know the log's key checks nothing. Raises `InvalidProof`, and `ServiceUnavailable` if the
    service cannot be reached.
    """
    trust = TrustedKeys.read(site.trust) if site.trust.exists() else TrustedKeys()
    if not trust.of(Role.LOG):
        return
    leaf = leaf_hash(card_leaf(signed.envelope.to_bytes()))
    with DeletionChannel(address, identity=site.find_identity()) as channel:
        update = channel.log_update(0, [leaf])
    proof = update.inclusions[0] if update is not None and update.inclusions else None
    if update is None or proof is None:
        raise InvalidProof(f"the coordinator's log does not have {signed.words} of the federation card; ask why")
    head = LogHead.of(update.head)
    trust.verify(update.head, Role.LOG, head.time)
    check_inclusion(leaf, proof.number, head.size, proof.path, head.root)


def _ask(identity: Identity, address: str) -> Sequence[bytes]:
    connection = Connection(address, [], identity, MembershipStub)
    try:
        return list(connection.stub().GetCards(membership_pb2.GetCardsRequest(), timeout=_SECONDS).cards)
    except grpc.RpcError as error:
        raise explain(
            error,
            f"the deletion service at {address}",
            "ask for the federation card again later",
            refused=InvalidIdentity,
            seconds=_SECONDS,
            find_fault=connection.fault,
            nobody=f"the service at {address} has no federation cards; the coordinator has to be upgraded",
        ) from None
    finally:
        connection.close()
