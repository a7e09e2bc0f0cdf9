"""Signed requests as files that officers hand on: one more signature, and the request is made, or handed on again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedmunkey.common.deletions.words import DeletionRequest, Records, Subject, Target, WholeSite
from fedmunkey.common.errors import InvalidDeletion, InvalidProof, count_of
from fedmunkey.common.proofs.signed_requests import RequestTerms, read_terms
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import envelope_of, read_envelope
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES

SAVED_BYTES = 4 * 2**20
"""Bytes that such a file has at most."""


@dataclass(frozen=True)
class SavedRequest:
    """A request, and what its signers have signed."""

    request: DeletionRequest
    terms: RequestTerms

    @classmethod
    def parse(cls, data: bytes, what: str) -> SavedRequest:
        """Read what `to_bytes` made; what it says is held against what was signed.

        Raises `InvalidProof` or `InvalidDeletion`, which call it `what`.
        """
        document = parse_canonical(data, what, SAVED_BYTES)
        listed: list[str] | None = None
        if isinstance(document, dict) and "references" in document:
            document, listed = take(document, what, envelope=dict, references=list)
        envelope = envelope_of(document)
        terms = read_terms(envelope)
        target = _target_of(terms, [read_hex(str(reference), "a reference") for reference in listed or ()])
        request = DeletionRequest(terms.request_id, terms.requester, target, envelope.to_bytes())
        terms.check_describes(request)
        return cls(request, terms)

    @property
    def words(self) -> str:
        """What signing it does."""
        target = self.request.target
        who = f"{self.terms.site!r} is" if self.terms.site else "every site that holds it is"
        if isinstance(target, Subject):
            return f"{who} to forget one patient"
        return (
            f"{who} to forget {'everything' if isinstance(target, WholeSite) else count_of(self.terms.count, 'record')}"
        )

    @property
    def signers(self) -> tuple[str, ...]:
        """Ids of the keys that have signed."""
        return tuple(signature.key_id for signature in read_envelope(self.request.signature).signatures)

    def countersign(self, key: SigningKey) -> DeletionRequest:
        """Return the request with one more signature; raises `InvalidProof` if the key has signed it already."""
        envelope = read_envelope(self.request.signature).countersign(key)
        return replace(self.request, signature=envelope.to_bytes())


def saved_bytes(request: DeletionRequest) -> bytes:
    """Return a signed request as a file; raises `InvalidDeletion` if it is not signed, or names too many records."""
    target = request.target
    if not request.signature:
        raise InvalidDeletion(
            "--save is for a request signed with --signing-key and --secret; give both, or leave it out"
        )
    if isinstance(target, WholeSite):
        return request.signature
    named = frozenset({target.reference}) if isinstance(target, Subject) else target.references
    if len(named) > MAXIMUM_REFERENCES:
        raise InvalidDeletion(f"--save is for at most {MAXIMUM_REFERENCES} records; save several requests")
    references = sorted(reference.hex() for reference in named)
    return canonical_json({"envelope": read_envelope(request.signature).to_document(), "references": references})


def _target_of(terms: RequestTerms, references: Sequence[bytes]) -> Target:
    """Return what a request asks for, by what was signed and the references beside it; raises `InvalidProof`."""
    if terms.kind == "site":
        return WholeSite(terms.site)
    if terms.kind == "subject" and len(references) == 1:
        return Subject(references[0])
    if terms.kind == "records" and references:
        return Records(frozenset(references), terms.site)
    raise InvalidProof("altered: the file does not hold what its requester signed")


def read_saved(path: Path) -> bytes:
    """Read such a file; raises `InvalidDeletion` if it cannot be."""
    try:
        with path.open("rb") as file:
            # Whatever is longer is no such file, and said to be none.
            return file.read(SAVED_BYTES + 1)
    except OSError as error:
        raise InvalidDeletion(f"{path} cannot be read ({error.strerror}); forget --save writes such a file") from None
