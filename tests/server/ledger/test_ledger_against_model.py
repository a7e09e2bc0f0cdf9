"""Any sequence of requests, answers and restarts leaves a ledger as the plain model of a federation says."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Records,
    RequestState,
    SiteState,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults.model import Expected, FederationModel, ModelRecord, ModelRequest, Named, SiteModel

SITES = ("hospital-1", "hospital-2", "hospital-3")
RECORDS = 18


def reference(number: int) -> bytes:
    return number.to_bytes(32, "big")


@dataclass
class LedgerModel(FederationModel):
    """A federation in which orders follow at once: `orders` has the request ids of each site's, from number 1."""

    orders: dict[str, list[str]] = field(default_factory=dict)

    def enter(self, asked: ModelRequest) -> dict[str, int]:
        """Note a request and give each site that it addresses an order; return their numbers by site."""
        if asked.request_id not in self.asked:
            self.ask(asked)
            for site in asked.sites:
                self.orders.setdefault(site, []).append(asked.request_id)
        return {site: self.orders[site].index(asked.request_id) + 1 for site in asked.sites}


def federation() -> LedgerModel:
    records = {number: ModelRecord(number, number // 6) for number in range(RECORDS)}
    sites = {
        site: SiteModel(records, {number: 0 for number in range(RECORDS) if number % len(SITES) == index})
        for index, site in enumerate(SITES)
    }
    return LedgerModel(sites)


class LedgerAgainstModel(RuleBasedStateMachine):
    """Does the same to a ledger and to a model of it, and compares them after every step."""

    requests = Bundle("requests")

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.ledger = Ledger(self.path)
        for site in SITES:
            self.ledger.register(site)
        self.service = LedgerService(self.ledger)
        self.model = federation()
        self.answers: dict[tuple[str, int], Expected] = {}

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()

    @rule(target=requests, numbers=st.frozensets(st.integers(0, RECORDS - 1), min_size=1, max_size=4))
    def submit_records(self, numbers: frozenset[int]) -> DeletionRequest:
        return self._submit(Records(frozenset(map(reference, numbers))), Named(numbers))

    @rule(target=requests, subject=st.integers(0, RECORDS // 6))
    def submit_subject(self, subject: int) -> DeletionRequest:
        return self._submit(Subject(reference(1000 + subject)), Named(subject=subject))

    @rule(target=requests, site=st.sampled_from(SITES))
    def submit_whole_site(self, site: str) -> DeletionRequest:
        return self._submit(WholeSite(site), Named(everything=True), site)

    @rule(request=requests)
    def submit_again(self, request: DeletionRequest) -> None:
        again = self.service.submit(request)

        known = self.model.asked[request.request_id]
        assert {progress.site: progress.number for progress in again.sites} == self.model.enter(known)

    @rule(request=requests)
    def submit_another_request_under_the_same_id(self, request: DeletionRequest) -> None:
        with pytest.raises(InvalidDeletion, match="stands for another request"):
            self.service.submit(DeletionRequest(request.request_id, request.requester, Subject(bytes(32))))

    @rule(target=requests, site=st.sampled_from(SITES), stranger=st.sampled_from(["coordinator", *SITES]))
    def submit_what_is_not_ones_own(self, site: str, stranger: str) -> object:
        if stranger != site:
            with pytest.raises(InvalidDeletion):
                self.service.submit(DeletionRequest("not-allowed", stranger, WholeSite(site)))
        return multiple()

    @rule(site=st.sampled_from(SITES))
    def answer_the_next_order(self, site: str) -> None:
        done = self.model.sites[site].order
        order = next(self.service.watch(site, done), None)
        orders = self.model.orders.get(site, [])

        assert (None if order is None else order.request.request_id) == next(iter(orders[done:]), None)
        if order is not None:
            self.answers[site, order.number] = self.model.apply(site, order.request.request_id)
            self._acknowledge(site, order.number)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), seconds=st.floats(0, 10))
    def answer_again(self, data: st.DataObject, seconds: float) -> None:
        self._acknowledge(*data.draw(st.sampled_from(sorted(self.answers))), seconds)

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer_otherwise(self, data: st.DataObject) -> None:
        site, number = data.draw(st.sampled_from(sorted(self.answers)))
        known = self.answers[site, number]
        self.answers[site, number] = Expected(SiteState.ERASED, known.records + 1, known.entries)

        with pytest.raises(InvalidDeletion):
            self._acknowledge(site, number)
        self.answers[site, number] = known

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path)
        self.service = LedgerService(self.ledger)

    @invariant()
    def holds_the_same(self) -> None:
        statuses = list(self.service.requests())

        assert [status.request.request_id for status in statuses] == list(self.model.asked)
        for status in statuses:
            asked = self.model.asked[status.request.request_id]
            numbers = self.model.enter(asked)
            assert {progress.site: progress.number for progress in status.sites} == numbers
            given = {site: self.answers.get((site, number)) for site, number in numbers.items()}
            assert {progress.site: _given(progress.acknowledgement) for progress in status.sites} == given
            assert status.state.final == (None not in given.values())
            assert not status.state.final or status.state is RequestState.COMPLETED

    @invariant()
    def streams_have_no_gaps(self) -> None:
        for site in SITES:
            orders = list(self.service.watch(site, 0))
            assert [order.number for order in orders] == list(range(1, len(orders) + 1))
            assert [order.request.request_id for order in orders] == self.model.orders.get(site, [])

    def _submit(self, target: Target, named: Named, *sites: str) -> DeletionRequest:
        request = DeletionRequest(f"request-{len(self.model.asked)}", OFFICER, target)
        status = self.service.submit(request)

        numbers = self.model.enter(ModelRequest(request.request_id, named, sites or SITES))
        assert {progress.site: progress.number for progress in status.sites} == numbers
        return request

    def _acknowledge(self, site: str, number: int, seconds: float = 0.5) -> None:
        answer = self.answers[site, number]
        request_id = self.model.orders[site][number - 1]
        claims = (answer.state, answer.records, answer.entries, Guarantee.EXACT, seconds)
        self.service.acknowledge(Acknowledgement(number, site, request_id, *claims))


def _given(answer: Acknowledgement | None) -> Expected | None:
    return None if answer is None else Expected(answer.state, answer.records, answer.entries)


LedgerAgainstModel.TestCase.settings = settings(max_examples=10, stateful_step_count=20)
TestLedgerAgainstModel = LedgerAgainstModel.TestCase
