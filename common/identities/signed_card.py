"""The federation card as it is signed, handed over and kept: a chain of versions by the federation's authority.

Each version is an in-toto Statement in a DSSE envelope, canonical JSON, in a file of its own, `cards/1.json` and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.common.errors import InvalidInput, InvalidProof
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.model.federation_card import FederationCard
from fedmunkey.common.private_files import replace_file
from fedmunkey.common.proofs.signing.authority_key import AuthorityPublicKey, AuthoritySigningKey
from fedmunkey.common.proofs.signing.canonical import canonical_json, read_hex, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import Statement, read_envelope, read_time, write_time

PREDICATE_TYPE = "urn:fedmunkey:federation-card:v1"
CARDS_FOLDER = "cards"
"""The folder of the versions, in the coordinator's folder and in every member's."""

SHORT = 12
"""Digits of a card's digest that people are shown."""


@dataclass(frozen=True)
class SignedCard:
    """A card with the envelope that the authority signed; `digest` is the SHA-256 of what it says, hexadecimal."""

    card: FederationCard
    digest: str
    envelope: Envelope

    @classmethod
    def sign(cls, card: FederationCard, key: ec.EllipticCurvePrivateKey) -> SignedCard:
        """Sign a card with the authority's key; raises `InvalidProof` if a text in it is no printable line."""
        said = _predicate(card)
        digest = hashlib.sha256(canonical_json(said)).digest()
        statement = Statement(card.federation, digest, PREDICATE_TYPE, said)
        return cls(card, digest.hex(), statement.sign(AuthoritySigningKey(key)))

    @classmethod
    def read(cls, data: bytes, authority: x509.Certificate) -> SignedCard:
        """Read an envelope's bytes.

        Raises `InvalidProof` if the authority did not sign it, or it is no card that this version of the project reads.
        """
        envelope = read_envelope(data)
        key = authority.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidProof("the authority has no key that signs federation cards")
        signer = AuthorityPublicKey(key)
        try:
            envelope.verify({signer.key_id: signer})
        except InvalidProof as error:
            raise InvalidProof(f"the federation card is not the authority's: {error}") from None
        statement = Statement.of(envelope, PREDICATE_TYPE)
        if hashlib.sha256(canonical_json(statement.predicate)).digest() != statement.digest:
            raise InvalidProof("the federation card is not that of its digest")
        return cls(_read_predicate(statement.subject, statement.predicate), statement.digest.hex(), envelope)

    @property
    def words(self) -> str:
        """Which version it is, for people."""
        return f"version {self.card.version} ({self.digest[:SHORT]})"


@dataclass(frozen=True)
class CardChain:
    """All versions of a federation's card, oldest first; none before the first was made."""

    cards: tuple[SignedCard, ...] = ()

    def __post_init__(self) -> None:
        """Check that each version follows the one before; raises `InvalidProof`."""
        before = ""
        for version, signed in enumerate(self.cards, 1):
            card = signed.card
            if (card.version, card.previous) != (version, before) or card.federation != self.cards[0].card.federation:
                raise InvalidProof(
                    f"version {card.version} of the federation card does not follow the one before it; get the "
                    "versions again from the coordinator"
                )
            before = signed.digest

    @property
    def current(self) -> SignedCard | None:
        """The last version."""
        return self.cards[-1] if self.cards else None

    def until(self, version: int | None) -> CardChain:
        """Return the versions up to one, all with None; raises `InvalidInput` if there is no such version."""
        if version is not None and version > len(self.cards):
            raise InvalidInput(f"there is no version {version} of the federation card; there are {len(self.cards)}")
        return replace(self, cards=self.cards[:version])

    def follow(self, more: Sequence[bytes], authority: x509.Certificate) -> CardChain:
        """Return the chain with the versions after it; those that it has must be the same. Raises `InvalidProof`."""
        told = [SignedCard.read(data, authority) for data in more]
        known = {signed.card.version: signed for signed in self.cards}
        for signed in told:
            held = known.setdefault(signed.card.version, signed)
            if held.digest != signed.digest:
                raise InvalidProof(
                    f"there are two federation cards of version {signed.card.version}, {held.digest[:SHORT]} and "
                    f"{signed.digest[:SHORT]}; ask the coordinator which one members have agreed on"
                )
        return replace(self, cards=tuple(signed for _, signed in sorted(known.items())))

    @classmethod
    def read(cls, folder: Path, authority: x509.Certificate) -> CardChain:
        """Read the versions in a member's folder; none where there is no folder of them.

        Raises `InvalidProof` if a file cannot be read, was changed or is missing between others.
        """
        files = sorted((folder / CARDS_FOLDER).glob("*.json"), key=lambda path: (len(path.name), path.name))
        cards = []
        for path in files:
            try:
                cards.append(SignedCard.read(path.read_bytes(), authority))
            except OSError as error:
                raise InvalidProof(f"{path} cannot be read ({error.strerror}); put its copy back") from None
            except InvalidInput as error:
                raise InvalidProof(f"{path}: {error}") from None
        return cls(tuple(cards))

    def write(self, folder: Path) -> None:
        """Keep the versions in a member's folder; those that are there stay as they are."""
        (folder / CARDS_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        for signed in self.cards:
            path = folder / CARDS_FOLDER / f"{signed.card.version}.json"
            if not path.exists():
                replace_file(path, signed.envelope.to_bytes())


def _predicate(card: FederationCard) -> dict[str, Any]:
    return {
        "version": card.version,
        "previous": card.previous,
        "reason": card.reason,
        "time": write_time(card.made_at),
        **CardDraft(card.classes, card.encoder, card.settings).to_document(),
    }


def _read_predicate(federation: str, predicate: dict[str, Any]) -> FederationCard:
    """Read what `_predicate` writes; raises `InvalidProof` for anything else."""
    what = "the federation card"
    about = {name: predicate.get(name) for name in ("version", "previous", "reason", "time")}
    version, previous, reason, time = take(about, what, version=int, previous=str, reason=str, time=str)
    said = CardDraft.of({name: value for name, value in predicate.items() if name not in about}, what)
    if previous:
        read_hex(previous, f"the digest before {what}")
    try:
        return FederationCard(
            federation, version, previous, reason, read_time(time), said.classes, said.encoder, said.settings
        )
    except InvalidInput as error:
        raise InvalidProof(
            f"{what} cannot be used by this version of the project ({error}); install the coordinator's"
        ) from None


def card_time(now: datetime) -> datetime:
    """Return a time as a card holds it, to the second."""
    return read_time(write_time(now))
