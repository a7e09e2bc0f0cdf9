"""What every deletion service keeps to, in process and over gRPC."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Records,
    RequestState,
    SiteState,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion, RefusedContributions
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.deletion_service import DeletionService
from fedmunkey.common.settings.settings import RENEW_DAYS
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService, News
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.log import TransparencyLog
from tests.followers import Follower
from tests.patience import PATIENCE
from tests.releases import give

REFERENCE = bytes(range(32))
SUBJECT = DeletionRequest("subject-1", OFFICER, Subject(REFERENCE))


def own_site(request_id: str, site: str = "hospital-1") -> DeletionRequest:
    return DeletionRequest(request_id, site, WholeSite(site))


def erased(order: DeletionOrder, records: int = 3) -> Acknowledgement:
    return Acknowledgement(
        order.number, order.site, order.request.request_id, SiteState.ERASED, records, 2, Guarantee.EMPIRICAL, 0.25
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.register("hospital-1")
        ledger.register("hospital-2")
        yield ledger


@pytest.fixture
def rounds() -> list[int]:
    """What the round hook was called with."""
    return []


class DeletionServiceContract(ABC):
    @pytest.fixture
    @abstractmethod
    def service(self, ledger: Ledger, rounds: list[int]) -> Iterator[DeletionService]:
        """Give a service over the ledger that calls `rounds.append` on a round."""

    @abstractmethod
    def close(self, service: DeletionService) -> None:
        """End the service as its reader would."""

    def test_request_addresses_every_site(self, service: DeletionService) -> None:
        status = service.submit(SUBJECT)

        assert status.request == SUBJECT
        assert status.state is RequestState.DISPATCHED
        assert [(part.site, part.number, part.state) for part in status.sites] == [
            ("hospital-1", 1, SiteState.PENDING),
            ("hospital-2", 1, SiteState.PENDING),
        ]
        assert service.get("subject-1") == status

    def test_request_waits_for_renewed_weights_and_says_until_when(self, service: DeletionService) -> None:
        before = ReleasedWeights("ab" * 32, 40, 40, (SiteContribution("hospital-1", 0, b""),))
        give(service, before)
        service.submit(own_site("own"))
        for order in service.watch("hospital-1", 0):
            service.acknowledge(replace(erased(order), guarantee=Guarantee.EXACT))

        waits, need = service.get("own"), service.renewal_need()
        give(service, replace(before, digest="cd" * 32, contributions=(SiteContribution("hospital-1", 1, b""),)))

        answered_at = waits.sites[0].acknowledged_at
        assert answered_at is not None
        assert (waits.state, waits.renew_by) == (RequestState.ERASED, answered_at + timedelta(days=RENEW_DAYS))
        assert need == RenewalNeed(2, waits.renew_by, 40)
        assert service.get("own").state is RequestState.COMPLETED
        assert service.renewal_need() == RenewalNeed(0, None, 40)

    def test_release_by_a_site_that_says_more_than_it_was_ordered_is_refused(self, service: DeletionService) -> None:
        released = ReleasedWeights("ab" * 32, 40, 40, (SiteContribution("hospital-1", 3, b""),))

        with pytest.raises(RefusedContributions, match=r"'hospital-1' is refused: it says .* after order 3") as refused:
            give(service, released)

        assert list(refused.value.faults) == ["hospital-1"]
        assert service.renewal_need().records is None

    @pytest.mark.parametrize(
        ("target", "sites"),
        [
            (Records(frozenset({REFERENCE})), ["hospital-1", "hospital-2"]),
            (Records(frozenset({REFERENCE}), "hospital-2"), ["hospital-2"]),
            (Subject(REFERENCE), ["hospital-1", "hospital-2"]),
            (WholeSite("hospital-2"), ["hospital-2"]),
        ],
    )
    def test_officer_may_ask_for_everything(self, service: DeletionService, target: Target, sites: list[str]) -> None:
        status = service.submit(DeletionRequest("request-1", OFFICER, target))

        assert status.request.target == target
        assert [part.site for part in status.sites] == sites

    @pytest.mark.parametrize(
        "target", [Records(frozenset({REFERENCE}), "hospital-1"), Subject(REFERENCE), WholeSite("hospital-1")]
    )
    def test_site_may_ask_for_what_it_holds_itself(self, service: DeletionService, target: Target) -> None:
        status = service.submit(DeletionRequest("request-1", "hospital-1", target))

        assert [part.site for part in status.sites] == ["hospital-1"]
        assert list(service.watch("hospital-2", 0)) == []

    @pytest.mark.parametrize(
        ("requester", "target"),
        [
            ("hospital-1", Records(frozenset({REFERENCE}), "hospital-2")),
            ("hospital-1", Records(frozenset({REFERENCE}))),
            ("hospital-1", WholeSite("hospital-2")),
            ("coordinator", Subject(REFERENCE)),
            ("hospital-9", WholeSite("hospital-9")),
        ],
    )
    def test_others_may_not_ask(self, service: DeletionService, requester: str, target: Target) -> None:
        with pytest.raises(InvalidDeletion, match=f"{requester}.*may not ask"):
            service.submit(DeletionRequest("request-1", requester, target))

        assert list(service.requests()) == []

    @pytest.mark.parametrize(
        ("ask", "fault"),
        [
            (lambda service: service.submit(replace(SUBJECT, target=WholeSite("hospital-9"))), "'hospital-9' is not"),
            (lambda service: service.submit(own_site("\x1b[2J")), "printable"),
            (lambda service: service.get("request-9"), "no request 'request-9'"),
            (lambda service: list(service.watch("hospital-9", 0)), "'hospital-9' is not registered"),
            (lambda service: list(service.watch("hospital-1", 1)), "another ledger or an older copy"),
            (lambda service: service.open_round(-1), "round"),
        ],
    )
    def test_what_is_not_there_is_refused(
        self, service: DeletionService, ask: Callable[[DeletionService], object], fault: str
    ) -> None:
        with pytest.raises(InvalidDeletion, match=fault):
            ask(service)

    def test_concurrent_requests_are_numbered_without_gaps(self, service: DeletionService) -> None:
        def submit(number: int) -> None:
            site = f"hospital-{number % 2 + 1}"
            service.submit(own_site(f"own-{number}", site))
            service.submit(DeletionRequest(f"all-{number}", OFFICER, Subject(REFERENCE)))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(submit, range(20)))

        for site in ("hospital-1", "hospital-2"):
            orders = list(service.watch(site, 0))
            assert [order.number for order in orders] == list(range(1, 31))
            assert len({order.request.request_id for order in orders}) == 30

    def test_watch_goes_on_after_the_last_number(self, service: DeletionService) -> None:
        for number in range(1, 4):
            service.submit(own_site(f"request-{number}"))

        orders = list(service.watch("hospital-1", 2))

        assert orders == [DeletionOrder(3, "hospital-1", own_site("request-3"))]
        assert list(service.watch("hospital-1", 3)) == []

    def test_follower_receives_old_orders_and_those_to_come(self, service: DeletionService) -> None:
        service.submit(own_site("request-1"))
        follower = Follower(service.watch("hospital-1", 0, follow=True))
        assert follower.next() == DeletionOrder(1, "hospital-1", own_site("request-1"))

        service.submit(own_site("request-2", "hospital-2"))
        service.submit(own_site("request-3"))

        assert follower.next() == DeletionOrder(2, "hospital-1", own_site("request-3"))
        self.close(service)
        assert follower.next() is None
        follower.join()

    def test_request_is_complete_when_every_site_has_answered(self, service: DeletionService) -> None:
        service.submit(SUBJECT)
        (first,) = service.watch("hospital-1", 0)
        (second,) = service.watch("hospital-2", 0)
        nothing = replace(erased(second), state=SiteState.NOTHING_HELD, records=0, entries=0)

        service.acknowledge(erased(first))
        assert service.get("subject-1").state is RequestState.DISPATCHED
        service.acknowledge(nothing)

        status = service.get("subject-1")
        assert status.state is RequestState.COMPLETED
        assert status.erased == 3
        assert status.seconds is not None
        assert [part.acknowledgement for part in status.sites] == [erased(first), nothing]

    @pytest.mark.parametrize("changes", [{"number": 2}, {"request_id": "request-2"}, {"site": "hospital-2"}])
    def test_answer_to_no_order_is_refused(self, service: DeletionService, changes: dict[str, object]) -> None:
        service.submit(own_site("request-1"))
        (order,) = service.watch("hospital-1", 0)

        with pytest.raises(InvalidDeletion):
            service.acknowledge(replace(erased(order), **changes))  # type: ignore[arg-type]

        assert not service.get("request-1").sites[0].state.answered

    def test_round_is_announced_and_pending_orders_are_counted(
        self, service: DeletionService, rounds: list[int], ledger: Ledger
    ) -> None:
        service.submit(SUBJECT)
        (order,) = service.watch("hospital-1", 0)

        assert service.open_round(1) == 2
        service.acknowledge(erased(order))
        assert service.open_round(2) == 1

        assert rounds == [1, 2]
        assert [number for number, _ in ledger.rounds()] == [1, 2]

    def test_requests_come_page_by_page(self, service: DeletionService) -> None:
        submitted = [service.submit(own_site(f"request-{number}")) for number in range(5)]

        first = service.page(size=2)
        second = service.page(first.next_page, size=2)
        third = service.page(second.next_page, size=2)

        assert [*first.statuses, *second.statuses, *third.statuses] == submitted
        assert third.next_page == ""
        assert list(service.requests()) == submitted

    @pytest.mark.parametrize(("page", "size"), [("", 0), ("", 1001), ("", -1), ("second", 10), ("9" * 30, 10)])
    def test_page_that_cannot_be_is_refused(self, service: DeletionService, page: str, size: int) -> None:
        with pytest.raises(InvalidDeletion, match="page"):
            service.page(page, size)


class TestLedgerService(DeletionServiceContract):
    @pytest.fixture
    def service(self, ledger: Ledger, rounds: list[int]) -> Iterator[DeletionService]:
        with closing(LedgerService(ledger, rounds.append)) as service:
            yield service

    def close(self, service: DeletionService) -> None:
        assert isinstance(service, LedgerService)
        service.close()


class TestServedDeletionService(DeletionServiceContract):
    @pytest.fixture
    def service(self, ledger: Ledger, rounds: list[int]) -> Iterator[DeletionService]:
        with ExitStack() as stack:
            server = stack.enter_context(DeletionServer(LedgerService(ledger, rounds.append)))
            yield stack.enter_context(DeletionChannel(server.address, timeout=PATIENCE))

    def close(self, service: DeletionService) -> None:
        assert isinstance(service, DeletionChannel)
        service.close()


def test_request_is_in_the_ledger_before_anyone_is_woken(ledger: Ledger) -> None:
    service = LedgerService(ledger)
    seen: list[RequestState] = []

    with service.listening(lambda _: seen.append(ledger.status("subject-1").state)):
        service.submit(SUBJECT)

    assert seen == [RequestState.DISPATCHED]


def test_only_followers_of_addressed_sites_hear_of_a_request(ledger: Ledger) -> None:
    service = LedgerService(ledger)
    heard: list[News] = []

    with service.listening(heard.append):
        service.submit(own_site("request-1", "hospital-2"))

    assert heard == [News({"hospital-2": 1}, own_site("request-1", "hospital-2"))]


def test_round_hook_may_submit_requests(ledger: Ledger) -> None:
    def plan(number: int) -> None:
        service.submit(own_site(f"planned-{number}"))

    service = LedgerService(ledger, plan)

    assert service.open_round(1) == 1
    assert service.open_round(1) == 1
    assert [status.request.request_id for status in service.requests()] == ["planned-1"]


def test_federation_without_sites_takes_no_requests(tmp_path: Path) -> None:
    with Ledger(tmp_path / "empty.sqlite") as ledger, pytest.raises(InvalidDeletion, match="no site is registered"):
        LedgerService(ledger).submit(SUBJECT)


def test_closed_service_has_no_more_orders_to_follow(ledger: Ledger) -> None:
    service = LedgerService(ledger)
    service.submit(SUBJECT)
    service.close()

    assert list(service.watch("hospital-1", 0, follow=True)) == []


def test_answers_without_receipts_are_not_looked_up_where_nobody_checks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.register("hospital-1")
        proofs = CoordinatorProofs(TransparencyLog(ledger.engine, SigningKey.from_seed(bytes(32))))
        service = LedgerService(ledger, proofs=proofs)
        service.submit(DeletionRequest("request-1", "hospital-1", WholeSite("hospital-1")))
        monkeypatch.setattr(ledger, "signatures", lambda _: pytest.fail("nothing has to be looked up"))

        answer = Acknowledgement(1, "hospital-1", "request-1", SiteState.ERASED, 1, 1, Guarantee.EXACT, 0.1)
        service.acknowledge_all([answer])

        assert service.get("request-1").state is RequestState.COMPLETED
