"""What the coordinator refuses, keeps and certifies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Records,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion, NotAllowed
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.proofs.verification import verify_certificate
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import DeletionExists, Ledger
from tests.proof_case import (
    SECRET,
    SITE_KEYS,
    SITES,
    START,
    STRANGER,
    TRUST,
    answered,
    open_coordinator,
    signed_request,
)

FIRST, SECOND = SITES


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[LedgerService]:
    with ExitStack() as stack:
        yield open_coordinator(stack, tmp_path, clock)


def size(service: LedgerService) -> int:
    update = service.log_update(0)
    assert update is not None
    return LogHead.of(update.head).size


def order_of(service: LedgerService, site: str, number: int = 1) -> DeletionOrder:
    return next(iter(service.watch(site, number - 1)))


def test_signed_request_reaches_the_sites_with_its_signature(service: LedgerService) -> None:
    request = signed_request()

    service.submit(request)

    assert {order_of(service, site).request.signature for site in SITES} == {request.signature}
    assert size(service) == 1


def test_site_asks_for_its_own_records_with_its_own_key(service: LedgerService) -> None:
    target = Records(frozenset({bytes(32)}), FIRST)

    status = service.submit(signed_request("own", target, requester=FIRST, key=SITE_KEYS[FIRST]))

    assert [progress.site for progress in status.sites] == [FIRST]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (replace(signed_request(), signature=b""), "unsigned"),
        (replace(signed_request(), signature=b"rubbish"), "not JSON"),
        (signed_request(key=STRANGER), "not trusted"),
        (signed_request(key=SITE_KEYS[FIRST]), "not trusted"),
        (signed_request("a", WholeSite(SECOND), requester=SECOND, key=SITE_KEYS[FIRST]), "not trusted"),
        (replace(signed_request(), target=Subject(bytes(32))), "altered: the target"),
        (replace(signed_request(), request_id="other"), "altered: the request id"),
        (signed_request(issued=START - timedelta(days=91)), "expired"),
        (signed_request(issued=START + timedelta(days=1)), "future"),
        (signed_request("a", WholeSite(SECOND), requester=FIRST, key=SITE_KEYS[FIRST]), "may not ask"),
    ],
)
def test_request_that_nobody_entitled_signed_is_refused(
    service: LedgerService, request_: DeletionRequest, reason: str
) -> None:
    with pytest.raises(NotAllowed, match=reason):
        service.submit(request_)

    assert not service.page().statuses
    assert size(service) == 0


def test_revoked_key_asks_for_nothing_from_then_on(service: LedgerService, tmp_path: Path) -> None:
    service.submit(signed_request("before"))
    TRUST.revoke(TRUST.keys[0].key.key_id, START).write(tmp_path / "trust.json")

    with pytest.raises(NotAllowed, match="revoked"):
        service.submit(signed_request("after"))


def test_same_request_signed_again_is_the_same_request(service: LedgerService, clock: Clock) -> None:
    first = signed_request()
    service.submit(first)
    clock.now = START + timedelta(days=1)

    status = service.submit(signed_request(issued=clock.now))

    assert len(service.page().statuses) == 1
    assert status.request == first
    assert order_of(service, FIRST).request.signature == first.signature
    with pytest.raises(DeletionExists):
        service.submit(signed_request(target=Subject(bytes(32))))
    assert size(service) == 1


def test_answer_is_kept_with_its_receipt_and_once_in_the_log(service: LedgerService) -> None:
    service.submit(signed_request())
    answer = answered(order_of(service, FIRST), None, START)

    service.acknowledge(answer)
    service.acknowledge(replace(answer, seconds=9.0))

    assert size(service) == 2
    assert service.get("request-1").sites[0].state is SiteState.ERASED


def test_answer_without_the_sites_own_receipt_is_refused(service: LedgerService) -> None:
    service.submit(signed_request())
    order = order_of(service, FIRST)
    answer = answered(order, None, START)
    other = answered(order_of(service, SECOND), None, START)

    def receipt(answer: Acknowledgement, request: bytes) -> bytes:
        return Receipt(answer, request, START, None, None).sign(SITE_KEYS[FIRST]).to_bytes()

    stranger = Receipt(answer, OpenedRequest.of(order.request).digest, START, None, None).sign(STRANGER).to_bytes()
    for wrong, reason in (
        (b"", "no receipt"),
        (b"rubbish", "not JSON"),
        (other.receipt, "differ in site"),
        (stranger, "not trusted"),
        (receipt(answer, bytes(32)), "another request"),
        (receipt(replace(answer, records=4), OpenedRequest.of(order.request).digest), "differ in records"),
    ):
        with pytest.raises(InvalidDeletion, match=reason):
            service.acknowledge(replace(answer, receipt=wrong))
    assert not service.get("request-1").sites[0].state.final
    assert size(service) == 1


def test_answers_of_several_calls_are_checked_each_by_itself(service: LedgerService) -> None:
    service.submit(signed_request())
    good, bad = (answered(order_of(service, site), None, START) for site in SITES)

    outcomes = service.acknowledge_calls_soon([[replace(bad, receipt=good.receipt)], [good], [replace(good, number=9)]])

    assert isinstance(outcomes[0], InvalidDeletion)
    assert "differ in site" in str(outcomes[0])
    assert isinstance(outcomes[1], list)
    assert [future.result() for future in outcomes[1]] == [None]
    assert isinstance(outcomes[2], list)
    with pytest.raises(InvalidDeletion, match="has no order 9"):
        outcomes[2][0].result()
    assert [progress.state for progress in service.get("request-1").sites] == [SiteState.ERASED, SiteState.PENDING]
    assert size(service) == 2


def test_certificate_needs_every_sites_answer(service: LedgerService) -> None:
    service.submit(signed_request())
    with pytest.raises(InvalidDeletion, match=f"no answer from {FIRST}, {SECOND}"):
        service.certificate("request-1")
    for site in SITES:
        service.acknowledge(answered(order_of(service, site), None, START))

    verified = verify_certificate(service.certificate("request-1"), TRUST)

    assert [receipt.answer.site for receipt in verified.receipts] == list(SITES)
    with pytest.raises(InvalidDeletion, match="no request 'other'"):
        service.certificate("other")


def test_certificate_holds_after_the_log_has_grown(service: LedgerService) -> None:
    names = [f"request-{number}" for number in range(1, 6)]
    for number, name in enumerate(names, 1):
        service.submit(signed_request(name))
        for site in SITES:
            service.acknowledge(answered(order_of(service, site, number), None, START))

    assert {verify_certificate(service.certificate(name), TRUST).head.size for name in names} == {15}


def test_log_and_certificate_travel_over_grpc(service: LedgerService) -> None:
    request = signed_request()
    with DeletionServer(service) as server, DeletionChannel(server.address) as channel:
        channel.submit(request)
        for site in SITES:
            (order,) = channel.watch(site, 0)
            assert order.request.signature == request.signature
            channel.acknowledge(answered(order, None, START))
        update = channel.log_update(0, [bytes(32)])

        assert update == service.log_update(0, [bytes(32)])
        assert channel.certificate("request-1") == service.certificate("request-1")
        with pytest.raises(InvalidDeletion, match="the 9 that were seen"):
            channel.log_update(9)
        with pytest.raises(InvalidDeletion, match="unsigned"):
            channel.submit(replace(request, request_id="x", signature=b""))


def test_what_could_not_be_written_is_not_in_the_log(service: LedgerService, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as failing:
        failing.setattr("fedmunkey.server.ledger.requests.number_orders", fail)
        with pytest.raises(RuntimeError, match="the power failed"):
            service.submit(signed_request())
    assert size(service) == 0

    service.submit(signed_request())
    answer = answered(order_of(service, FIRST), None, START)
    with monkeypatch.context() as failing:
        failing.setattr("fedmunkey.server.ledger.answers.settle", fail)
        with pytest.raises(RuntimeError, match="the power failed"):
            service.acknowledge(answer)
    assert size(service) == 1

    service.acknowledge(answer)

    assert size(service) == 2
    kept = service.get("request-1").sites[0].acknowledgement
    assert kept is not None
    assert kept.receipt == answer.receipt


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("the power failed")


def test_without_trusted_keys_unsigned_requests_and_answers_pass(tmp_path: Path, service: LedgerService) -> None:
    proofs = service._proofs
    assert proofs is not None
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        trusting = LedgerService(ledger, proofs=CoordinatorProofs(proofs.log, clock=lambda: START))
        trusting.submit(DeletionRequest("open", OFFICER, WholeSite(FIRST)))
        answer = Acknowledgement(1, FIRST, "open", SiteState.NOTHING_HELD, 0, 0, Guarantee.EXACT, 0.1)
        trusting.acknowledge(answer)

        with pytest.raises(InvalidDeletion, match="not signed"):
            trusting.certificate("open")
        with pytest.raises(NotAllowed, match="altered"):
            trusting.submit(replace(signed_request(), request_id="x"))
    assert size(service) == 0


def test_service_without_a_log_says_so(ledger: Ledger) -> None:
    service = LedgerService(ledger)
    service.submit(DeletionRequest("open", FIRST, WholeSite(FIRST)))
    with DeletionServer(service) as server, DeletionChannel(server.address) as channel:
        assert channel.log_update(0) is None
        with pytest.raises(InvalidDeletion, match="keeps no log"):
            channel.certificate("open")


def test_log_holds_no_reference(service: LedgerService) -> None:
    service.submit(signed_request())
    order = order_of(service, FIRST)
    service.acknowledge(answered(order, None, START))
    reference = SECRET.reference("patient-17")

    proofs = service._proofs
    assert proofs is not None
    with proofs.log._engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT content FROM log_leaves").fetchall()

    assert len(rows) == 2
    for (content,) in rows:
        assert reference not in content
        assert reference.hex().encode() not in content


def test_certificate_of_many_sites_holds_with_heads_that_were_signed_in_between(tmp_path: Path, clock: Clock) -> None:
    keys = {f"site-{number:03d}": SigningKey.from_seed(number.to_bytes(32, "big")) for number in range(1, 251)}
    trusted = TrustedKeys(
        (*TRUST.keys, *(TrustedKey(site, Role.SITE, key.public) for site, key in keys.items())),
    )
    with ExitStack() as stack:
        service = open_coordinator(stack, tmp_path, clock)
        trusted.write(tmp_path / "trust.json")
        for site in SITES:
            service.ledger.remove(site)
        for site in keys:
            service.ledger.register(site)
        service.submit(signed_request())
        for number, (site, key) in enumerate(keys.items()):
            order = order_of(service, site)
            said = replace(answered(replace(order, site=FIRST), None, START), receipt=b"", site=site)
            receipt = Receipt(said, OpenedRequest.of(order.request).digest, START, bytes(32), None)
            service.acknowledge(replace(said, receipt=receipt.sign(key).to_bytes()))
            if number % 60 == 0:
                # Somebody looks, for which the head is signed.
                size(service)
        verified = verify_certificate(service.certificate("request-1"), trusted)

    assert [receipt.answer.site for receipt in verified.receipts] == sorted(keys)
    assert verified.erased == 3 * len(keys)
