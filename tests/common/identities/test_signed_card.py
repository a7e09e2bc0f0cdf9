from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidInput, InvalidProof
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.identities.signed_card import CARDS_FOLDER, CardChain, SignedCard
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.federation_card import FederationCard, agreed_settings
from fedmunkey.common.proofs.signing.authority_key import AuthoritySigningKey
from fedmunkey.common.settings.settings import Settings

MADE = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)


class Authority:
    """A federation's key and the certificate that members have of it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fed")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
        builder = builder.serial_number(1).not_valid_before(utc_now()).not_valid_after(utc_now() + timedelta(days=1))
        self.certificate = builder.sign(self.key, hashes.SHA256())

    def sign(self, version: int = 1, previous: str = "", renew: float = 7.0) -> SignedCard:
        settings = Settings().replace(num_classes=2, renew_within=renew, guarantee="exact")
        facts = DescriptorEncoder(1).facts
        card = FederationCard("fed", version, previous, "why", MADE, ("ä", "b"), facts, agreed_settings(settings))
        return SignedCard.sign(card, self.key)

    def chain(self) -> CardChain:
        first = self.sign()
        return CardChain((first, self.sign(2, first.digest, 0.5)))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_card_is_read_as_it_was_signed(authority: Authority) -> None:
    signed = authority.sign(renew=0.1)

    read = SignedCard.read(signed.envelope.to_bytes(), authority.certificate)

    assert read == signed
    assert read.card.settings["renew-within"] == 0.1
    assert read.card.made_at == MADE


def test_signature_has_64_bytes_and_holds_for_its_message_and_key_alone() -> None:
    first, second = (AuthoritySigningKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))

    signature = first.sign(b"a card")

    assert len(signature) == 64
    assert first.public.verifies(signature, b"a card")
    assert not first.public.verifies(signature, b"a cart")
    assert not second.public.verifies(signature, b"a card")
    assert not first.public.verifies(bytes(64), b"a card")


def test_card_of_another_authority_is_refused(authority: Authority) -> None:
    with pytest.raises(InvalidProof, match="not the authority's"):
        SignedCard.read(Authority().sign().envelope.to_bytes(), authority.certificate)


def test_no_byte_of_a_card_can_be_changed(authority: Authority) -> None:
    data = authority.sign().envelope.to_bytes()

    for place in range(0, len(data), 37):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(InvalidInput):
            SignedCard.read(bytes(changed), authority.certificate)


def test_versions_follow_each_other(authority: Authority) -> None:
    first, second = authority.chain().cards

    for broken in ((second,), (first, first), (first, authority.sign(2, "ab" * 32)), (first, authority.sign(3))):
        with pytest.raises(InvalidProof, match="does not follow"):
            CardChain(broken)


def test_versions_are_kept_and_read_again(authority: Authority, tmp_path: Path) -> None:
    chain = authority.chain()

    chain.write(tmp_path)

    assert CardChain.read(tmp_path, authority.certificate) == chain
    assert CardChain.read(tmp_path / "nothing", authority.certificate) == CardChain()
    assert chain.until(1).current == chain.cards[0]
    with pytest.raises(InvalidInput, match="there is no version 3"):
        chain.until(3)


def test_version_that_is_missing_between_others_is_noticed(authority: Authority, tmp_path: Path) -> None:
    authority.chain().write(tmp_path)
    (tmp_path / CARDS_FOLDER / "1.json").unlink()

    with pytest.raises(InvalidProof, match="does not follow"):
        CardChain.read(tmp_path, authority.certificate)


def test_chain_is_followed_and_two_cards_of_one_version_are_not(authority: Authority) -> None:
    chain = authority.chain()
    first, second = (signed.envelope.to_bytes() for signed in chain.cards)
    other = authority.sign(renew=3.0)

    assert CardChain().follow([first, second], authority.certificate) == chain
    assert chain.until(1).follow([second], authority.certificate) == chain
    assert chain.follow([], authority.certificate) == chain
    with pytest.raises(InvalidProof, match="two federation cards of version 1"):
        chain.follow([other.envelope.to_bytes()], authority.certificate)


def test_card_with_a_setting_of_a_later_version_says_so(authority: Authority) -> None:
    card = authority.sign().card
    later = replace(card)
    object.__setattr__(later, "settings", {**card.settings, "of-tomorrow": 1})
    signed = SignedCard.sign(later, authority.key)

    with pytest.raises(InvalidProof, match="unknown setting of-tomorrow"):
        SignedCard.read(signed.envelope.to_bytes(), authority.certificate)


def test_proposal_is_read_as_it_was_written_and_overwrites_nothing(authority: Authority, tmp_path: Path) -> None:
    card = authority.sign().card
    draft = CardDraft(card.classes, card.encoder, card.settings)

    draft.write(tmp_path / "proposal.json")

    assert CardDraft.read(tmp_path / "proposal.json") == draft
    with pytest.raises(InvalidInput, match="cannot be written"):
        draft.write(tmp_path / "proposal.json")
    (tmp_path / "proposal.json").write_text("{}")
    with pytest.raises(InvalidInput, match="card propose writes such a file"):
        CardDraft.read(tmp_path / "proposal.json")
