"""The federation card for people and for programs, as both command lines show it."""

from __future__ import annotations

from typing import Any

from fedmunkey.common.identities.signed_card import CardChain, SignedCard
from fedmunkey.common.model.federation_card import changes, shown
from fedmunkey.common.proofs.signing.statements import write_time

NO_CARD = "no federation card: nothing says what members must agree on"
"""What is said of a federation, or a member, without one."""


def card_shown(signed: SignedCard | None) -> str:
    """Return which card there is, in a few words."""
    return NO_CARD if signed is None else f"federation card {signed.words}"


def card_rows(signed: SignedCard) -> list[tuple[str, str]]:
    """Return what a version says, field by field."""
    card = signed.card
    about = [
        ("federation", card.federation),
        ("version", str(card.version)),
        ("digest", signed.digest),
        ("made", write_time(card.made_at)),
        ("reason", card.reason),
    ]
    return [*about, *((name, shown(value)) for name, value in card.fields().items())]


def history_lines(chain: CardChain) -> list[str]:
    """Return lines about each version where there are several, oldest first: when, why, and what it changed."""
    lines = []
    for place, signed in enumerate(chain.cards if len(chain.cards) > 1 else ()):
        reason = f": {signed.card.reason}" if signed.card.reason else ""
        lines.append(f"{signed.words}, {write_time(signed.card.made_at)}{reason}")
        lines += [
            f"  {name}: {old or 'none'} -> {new or 'none'}" for name, (old, new) in _changes(chain, place).items()
        ]
    return lines


def card_document(chain: CardChain) -> dict[str, Any] | None:
    """Return the current version as JSON, with what earlier ones said otherwise; None where there is no card."""
    if chain.current is None:
        return None
    card = chain.current.card
    versions = [
        {
            "version": signed.card.version,
            "digest": signed.digest,
            "made_at": signed.card.made_at.isoformat(),
            "reason": signed.card.reason,
            "changes": {name: {"before": old, "after": new} for name, (old, new) in _changes(chain, place).items()},
        }
        for place, signed in enumerate(chain.cards)
    ]
    return {
        "federation": card.federation,
        "version": card.version,
        "digest": chain.current.digest,
        "classes": list(card.classes),
        "fields": {name: shown(value) for name, value in card.fields().items()},
        "versions": versions,
    }


def _changes(chain: CardChain, place: int) -> dict[str, tuple[str, str]]:
    """Return what a version, by its place in the chain, says otherwise than the one before; nothing for the first."""
    return changes(chain.cards[place - 1].card, chain.cards[place].card) if place else {}
