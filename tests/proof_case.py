"""A request that two sites have answered, with all its signatures and the log that holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.renewals import SiteContribution
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    SiteState,
    Subject,
    Target,
)
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.proofs.contributions import Contribution
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import Receipt, WitnessedHead
from fedmunkey.common.proofs.signed_requests import OpenedRequest, sign_request
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.log import TransparencyLog

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SITES = ("hospital-1", "hospital-2")
SECRET = FederationSecret(bytes(range(32)))
OFFICER_KEY, LOG, STRANGER = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
SITE_KEYS = {site: SigningKey.from_seed(bytes([number]) * 32) for number, site in enumerate(SITES, 10)}
TRUST = TrustedKeys(
    (
        TrustedKey("officer-1", Role.OFFICER, OFFICER_KEY.public),
        TrustedKey("coordinator", Role.LOG, LOG.public),
        *(TrustedKey(site, Role.SITE, key.public) for site, key in SITE_KEYS.items()),
    )
)


@dataclass(frozen=True)
class ProofCase:
    """What was signed, as it travels: a site's order and receipt, the log's last head and the certificate."""

    order: DeletionOrder
    receipt: bytes
    head: bytes
    certificate: bytes


def signed_request(
    request_id: str = "request-1",
    target: Target | None = None,
    *,
    requester: str = OFFICER,
    key: SigningKey = OFFICER_KEY,
    issued: datetime = START,
    days: float = 90,
    secret: FederationSecret = SECRET,
) -> DeletionRequest:
    """Return a request with its signature; by default the officer's, for one subject."""
    request = DeletionRequest(request_id, requester, target or Subject(SECRET.reference("patient-17")))
    expires = issued + timedelta(days=days)
    return sign_request(request, key, secret.federation_id, issued=issued, expires=expires)


def answered(
    order: DeletionOrder, seen: WitnessedHead | None, time: datetime, guarantee: Guarantee = Guarantee.CERTIFIED
) -> Acknowledgement:
    """Return what a site answers that has erased three records, two of them entries of its bank, with its receipt."""
    certified = guarantee is Guarantee.CERTIFIED
    answer = Acknowledgement(
        order.number,
        order.site,
        order.request.request_id,
        SiteState.ERASED,
        3,
        2,
        guarantee,
        0.25,
        record_loss=PrivacyLoss(1.25, 1e-5) if certified else None,
        subject_loss=PrivacyLoss(3.0, 1e-5, 2) if certified else None,
    )
    receipt = Receipt(answer, OpenedRequest.of(order.request).digest, time, bytes(32), seen)
    return replace(answer, receipt=receipt.sign(SITE_KEYS[order.site]).to_bytes())


def contributed(
    site: str, last_order: int, time: datetime = START, *, key: SigningKey | None = None, named: str = ""
) -> SiteContribution:
    """Return a site's part in a release with what it signed about that, or what somebody else did in its name."""
    said = Contribution(named or site, "1-round", last_order, bytes(32), time)
    return SiteContribution(site, last_order, said.sign(key or SITE_KEYS[site]).to_bytes())


def open_coordinator(
    stack: contextlib.ExitStack, folder: Path, clock: Callable[[], datetime] = lambda: START
) -> LedgerService:
    """Return a deletion service with the case's sites, keys and log, whose files lie in a folder."""
    ledger = stack.enter_context(Ledger(folder / "ledger.sqlite", clock=clock))
    for site in SITES:
        ledger.register(site)
    TRUST.write(folder / "trust.json")
    proofs = CoordinatorProofs(TransparencyLog(ledger.engine, LOG, clock=clock), folder / "trust.json", clock=clock)
    return stack.enter_context(contextlib.closing(LedgerService(ledger, proofs=proofs)))


def make_case(folder: Path) -> ProofCase:
    """Carry out three requests with a coordinator in a folder, and return what was signed of the second one."""
    with contextlib.ExitStack() as stack:
        service = open_coordinator(stack, folder)
        for number in range(1, 4):
            service.submit(signed_request(f"request-{number}"))
            for site in SITES:
                # Only the first site witnesses the log.
                update = service.log_update(0) if site == SITES[0] else None
                head = None if update is None else LogHead.of(update.head)
                order = next(iter(service.watch(site, number - 1)))
                seen = None if head is None else WitnessedHead(head.size, head.root)
                service.acknowledge(answered(order, seen, START))
                if (number, site) == (2, SITES[0]):
                    kept, receipt = order, answered(order, seen, START).receipt
        last = service.log_update(0)
        if last is None:
            raise AssertionError("the coordinator keeps a log")
        return ProofCase(kept, receipt, last.head.to_bytes(), service.certificate("request-2"))
