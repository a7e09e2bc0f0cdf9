"""Signed requests as files that officers hand on: one more signature, and the request is made, or handed on again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fedmunkey.common.deletions.words import DeletionRequest, Records, Subject, WholeSite
from fedmunkey.common.errors import InvalidDeletion, count_of
from fedmunkey.common.proofs.signed_requests import RequestTerms, read_terms
from fedmunkey.common.proofs.signing.canonical import canonical_json, parse_canonical, read_hex, take
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import envelope_of, read_envelope
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES

SAVED_BYTES = 4 * 2**20
"""Bytes that such a file has at most."""


@dataclass(frozen=True)
class SavedRequest:
    """A request for everything, or some records, at one site, and what its signers have signed."""

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
        target = (
            WholeSite(terms.site)
            if listed is None
            else Records(frozenset(read_hex(str(reference), "a reference") for reference in listed), terms.site)
        )
        request = DeletionRequest(terms.request_id, terms.requester, target, envelope.to_bytes())
        terms.check_describes(request)
        return cls(request, terms)

    @property
    def words(self) -> str:
        """What signing it does."""
        everything = isinstance(self.request.target, WholeSite)
        return (
            f"{self.terms.site!r} is to forget {'everything' if everything else count_of(self.terms.count, 'record')}"
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
    """Return a signed request for all, or some records, at one site as a file; raises `InvalidDeletion`."""
    target = request.target
    if not request.signature or isinstance(target, Subject) or not target.site:
        raise InvalidDeletion(
            "--save is for --everything or records of one --site, signed with --signing-key and --secret; leave it out"
        )
    if isinstance(target, WholeSite):
        return request.signature
    if len(target.references) > MAXIMUM_REFERENCES:
        raise InvalidDeletion(f"--save is for at most {MAXIMUM_REFERENCES} records; save several requests")
    references = sorted(reference.hex() for reference in target.references)
    return canonical_json({"envelope": read_envelope(request.signature).to_document(), "references": references})


def read_saved(path: Path) -> bytes:
    """Read such a file; raises `InvalidDeletion` if it cannot be."""
    try:
        with path.open("rb") as file:
            # Whatever is longer is no such file, and said to be none.
            return file.read(SAVED_BYTES + 1)
    except OSError as error:
        raise InvalidDeletion(f"{path} cannot be read ({error.strerror}); forget --save writes such a file") from None
