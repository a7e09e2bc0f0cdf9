"""What a site checks of an order by itself, so that a coordinator that is taken over cannot make it delete anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fedmunkey.common.deletions.words import OFFICER, DeletionOrder, Records, Subject
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.governance.approvals import check_approved, count_persons, signers_of
from fedmunkey.common.proofs.governance.instructions import Instruction
from fedmunkey.common.proofs.signed_requests import OpenedRequest, RequestTerms
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.proofs.verification import verify_requester

WHOLE_SITE_SHARE = 0.5
"""Of a site's records, how many orders that name records may take before they need what a whole site needs."""

WHOLE_SITE_DAYS = 30
"""For so long orders are counted together: many small ones take as much as a large one."""


@dataclass(frozen=True)
class Taken:
    """How many of a site's records an order for records takes, of those `held`, and how many were `erased` lately."""

    named: int
    held: int
    erased: int

    @property
    def is_nearly_all(self) -> bool:
        """Whether what is left is too little for this to be about some records."""
        return self.named > 0 and self.named + self.erased > WHOLE_SITE_SHARE * (self.held + self.erased)


def check_share(opened: OpenedRequest, taken: Taken, trust: TrustedKeys) -> None:
    """Check that an order for records takes no site for which several officers must ask; raises `InvalidProof`."""
    _, terms = opened.signed()
    if not isinstance(opened.request.target, Records) or not taken.is_nearly_all:
        return
    persons = count_persons(signers_of(opened, trust)) if terms.requester == OFFICER else 0
    if persons < trust.officers:
        raise InvalidProof(
            f"too much for too few: with what was erased within {WHOLE_SITE_DAYS} days it takes "
            f"{taken.named + taken.erased} of {taken.held + taken.erased} records, and for more than "
            f"{WHOLE_SITE_SHARE:.0%} of a site {trust.officers} officers must sign, as for the whole of it (forget "
            f"--save, countersign); {persons} did"
        )


def check_not_held(holds: Sequence[Instruction]) -> None:
    """Check that no legal hold is on what an order would erase; raises `InvalidProof`, which names the holds only."""
    if holds:
        names = ", ".join(hold.instruction_id for hold in holds[:3])
        raise InvalidProof(
            f"held: the legal hold {names} is on what the order would erase here, so nothing of it is erased; ask "
            "again, as another request, once it is released"
        )


def check_signer(opened: OpenedRequest, trust: TrustedKeys, *, heard: datetime | None = None) -> RequestTerms:
    """Check that the requester signed exactly what a request says, and return what it signed; raises `InvalidProof`.

    `heard` is when the site hears a request for the first time: keys must be good then, their holders may ask or
    approve, and as many officers must have signed as its file of trusted keys asks for.
    """
    envelope, terms = opened.signed()
    verify_requester(envelope, terms, trust, heard=heard)
    if heard is not None:
        check_approved(opened, trust)
    return terms


def check_order(
    order: DeletionOrder,
    opened: OpenedRequest,
    *,
    trust: TrustedKeys,
    federation: str,
    now: datetime,
) -> None:
    """Check that somebody who may has asked this site for what an order says.

    It decides the first hearing only: a request that the site has carried out before is carried out again, whatever
    time has passed. `opened` is the order's request, `federation` the site's own. Raises `InvalidProof` with a reason
    that begins with what is wrong: unsigned, altered, valid for too long, expired, dated in the future, out of scope,
    meant for another federation, not theirs to sign, filed by nobody, signed by too few, or what is wrong with a
    signature or its key. It names no record,
    no patient and no request.
    """
    terms = check_signer(opened, trust, heard=now)
    if terms.federation != federation:
        raise InvalidProof("meant for another federation: the request names one whose secret is not this site's")
    terms.check_time(now)
    target = order.request.target
    if not isinstance(target, Subject) and target.site not in ("", order.site):
        raise InvalidProof("out of scope: the request is about another site")
    if terms.requester == OFFICER:
        return
    if terms.requester != order.site:
        raise InvalidProof("out of scope: a site may ask only for what it holds itself")
    if not isinstance(target, Subject) and target.site != order.site:
        raise InvalidProof("out of scope: a site must name itself as the place of the records")
