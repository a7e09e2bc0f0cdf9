"""Whose signatures a request needs: somebody who may file, and as many others who may approve as are required."""

from __future__ import annotations

from collections.abc import Collection

from fedmunkey.common.deletions.words import OFFICER, WholeSite
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.duties import Duty, duty_words
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.trusted_keys import Approved, Role, TrustedKey, TrustedKeys


def check_duties(signers: Collection[TrustedKey], what: str = "the request") -> None:
    """Check that each of some signers may sign, and one of them may file; raises `InvalidProof`.

    The signatures themselves have been checked.
    """
    for signer in signers:
        if not signer.duties & {Duty.FILE, Duty.APPROVE}:
            raise InvalidProof(
                f"not theirs to sign: the key {signer.key.key_id[:16]} of {signer.name} may only "
                f"{duty_words(signer.duties)}"
            )
    if not any(Duty.FILE in signer.duties for signer in signers):
        names = ", ".join(sorted({signer.name for signer in signers}))
        raise InvalidProof(f"filed by nobody: {names} may approve {what}, and nobody who may file has signed it")


def count_persons(signers: Collection[TrustedKey]) -> int:
    """Return how many persons stand behind a request: one who filed it, and others, by name, who approve it."""
    filers = {signer.name for signer in signers if Duty.FILE in signer.duties}
    approvers = {signer.name for signer in signers if Duty.APPROVE in signer.duties}
    return max((1 + len(approvers - {filer}) for filer in filers), default=0)


def officers_needed(opened: OpenedRequest, trust: TrustedKeys) -> int:
    """Return how many officers must have signed a request: several for a whole site, or for all, where it is set.

    What a site asks for itself, short of everything, is its own to decide.
    """
    if isinstance(opened.request.target, WholeSite):
        return trust.officers
    return trust.officers if trust.approved is Approved.ALL and opened.request.requester == OFFICER else 1


def check_approved(opened: OpenedRequest, trust: TrustedKeys, site: str = "this site") -> None:
    """Check that who signed a request may, and that they are enough; raises `InvalidProof`.

    The signatures have been checked. `site` is what the message calls the site whose everything may be meant.
    """
    signers = signers_of(opened, trust)
    check_duties(signers)
    needed = officers_needed(opened, trust)
    persons = count_persons(signers) if opened.request.requester == OFFICER else 0
    if needed > 1 and persons < needed:
        what = f"everything that {site} holds" if isinstance(opened.request.target, WholeSite) else "anything"
        raise InvalidProof(
            f"signed by too few: {needed} officers must ask for {what}, and {persons} did; add the others' "
            "signatures with munkey-client countersign"
        )


def signers_of(opened: OpenedRequest, trust: TrustedKeys) -> tuple[TrustedKey, ...]:
    """Return the keys that signed a request whose signatures were checked."""
    envelope, terms = opened.signed()
    role, name = (Role.OFFICER, None) if terms.requester == OFFICER else (Role.SITE, terms.requester)
    signed = {signature.key_id for signature in envelope.signatures}
    return tuple(key for key in trust.of(role, name) if key.key.key_id in signed)
