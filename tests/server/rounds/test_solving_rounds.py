"""Rounds in which weights are solved for, with real sites in this process, some of which fail, lie or stay away."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from flwr.common.constant import ErrorCode

from fedmunkey.common.closed_form.release import Release, read_release
from fedmunkey.common.errors import FederationStopped, InvalidProof, InvalidWeights
from fedmunkey.common.failpoints import Armed, FailpointPlan, arm
from fedmunkey.common.programs.round_messages import (
    ANNOUNCE,
    ARRAYS,
    CONFIG,
    CONTRIBUTE,
    METRICS,
    NUMBERS,
    SITE,
    TAKE_RELEASE,
    TALLY,
)
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds import asked_sites
from fedmunkey.server.rounds.run_record import EVENTS, LAST, RunRecord
from fedmunkey.server.rounds.solving_rounds import SolvingRounds
from tests.coordinator import Coordinator, Killed, running_coordinator
from tests.solved_sites import (
    Change,
    Hospital,
    SitesGrid,
    digits,
    feature_map,
    make_hospital,
    refusing,
    solved_settings,
    unchanged,
)

pytestmark = pytest.mark.usefixtures("within_a_run")

RECORDS = 60
Split3 = tuple[range, range, range]
EVEN: Split3 = (range(0, 20), range(20, 40), range(40, 60))
EACH = [ANNOUNCE, CONTRIBUTE, TALLY, TAKE_RELEASE]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number in range(1, 7):
            ledger.register(f"hospital-{number}")
        service = LedgerService(ledger)
        with DeletionServer(service) as server:
            yield server.address
        service.close()


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with running_coordinator(tmp_path_factory.mktemp("federation") / "coordinator") as running:
        yield running


Hospitals = list[Hospital]


@pytest.fixture
def plain(tmp_path: Path, address: str) -> Hospitals:
    """Three sites without identities, which mask nothing."""
    settings = solved_settings(tmp_path, address, min_sites=3)
    return [make_hospital(tmp_path, number, settings, [digits(rows)]) for number, rows in enumerate(EVEN, 1)]


@pytest.fixture
def members(tmp_path: Path, coordinator: Coordinator) -> Hospitals:
    """Four members of a federation."""
    settings = solved_settings(tmp_path, coordinator.address, min_sites=3)
    return [
        make_hospital(
            tmp_path, number, settings, [digits(range(15 * number, 15 * number + 15))], coordinator=coordinator
        )
        for number in range(1, 5)
    ]


class Run:
    """A run of rounds that a test looks at."""

    def __init__(
        self,
        hospitals: Hospitals,
        change: Change | None = None,
        *,
        authority: x509.Certificate | None = None,
        **changes: Any,
    ) -> None:
        settings = hospitals[0].settings.replace(**changes)
        self.folder = Path(settings.output_dir) / secrets.token_hex(4)
        self.sites = SitesGrid(hospitals, change or unchanged)
        self.opened: list[int] = []
        self.rounds = SolvingRounds(
            self.sites.grid, settings, feature_map(settings), RunRecord(self.folder, {}), self.opened.append, authority
        )

    def solve(self) -> Release:
        self.rounds.run()
        return read_release(self.folder / LAST)

    def stops(self) -> str:
        with pytest.raises((FederationStopped, InvalidProof)) as stopped:
            self.rounds.run()
        assert "\n" not in str(stopped.value)
        return str(stopped.value)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / EVENTS).read_text().splitlines()]

    def count(self, kind: str, node: int) -> int:
        return self.sites.asked.count((kind, node))


def without(hospitals: Hospitals, node: int) -> Release:
    """Return what the others solve for alone."""
    return Run([hospital for number, hospital in enumerate(hospitals, 1) if number != node], min_sites=2).solve()


# What a round gives.


def test_round_solves_with_all_sites_and_every_site_has_the_release(plain: Hospitals) -> None:
    run = Run(plain)

    release = run.solve()

    assert run.sites.asked == [(kind, node) for kind in (CONTRIBUTE, TALLY, TAKE_RELEASE) for node in (1, 2, 3)]
    assert run.opened == [1]
    assert release.about["records"] == RECORDS
    assert release.about["sites"] == ["hospital-1", "hospital-2", "hospital-3"]
    for hospital in plain:
        assert read_release(hospital.folder.shared_weights).digest() == release.digest()
    (event,) = run.events
    assert (event["number"], event["failures"]) == (1, {})
    assert 0 < event["release_seconds"] <= event["seconds"]
    assert event["bytes_up"] > 3 * 8 * 3 * 41 * 21
    assert event["bytes_down"] > 0


@pytest.mark.parametrize("division", [(60,), (1, 59), (7, 0, 40, 13), (10, 10, 10, 10, 10, 10)])
def test_release_has_the_same_bytes_however_records_are_divided(
    plain: Hospitals, tmp_path: Path, address: str, division: tuple[int, ...]
) -> None:
    expected = Run(plain).solve()
    order = np.random.default_rng(3).permutation(RECORDS).tolist()
    settings = solved_settings(tmp_path / "other", address, min_sites=1)
    hospitals, start = [], 0
    for number, count in enumerate(division, 1):
        rows, start = order[start : start + count], start + count
        hospitals.append(make_hospital(tmp_path / "other", number, settings, [digits(rows)] if rows else []))

    found = Run(hospitals).solve()

    assert found.digest() == expected.digest()
    assert found.choice == expected.choice


def test_masked_release_is_the_unmasked_one(members: Hospitals, coordinator: Coordinator, tmp_path: Path) -> None:
    run = Run(members, authority=coordinator.authority.certificate)
    release = run.solve()

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number in range(1, 5):
            ledger.register(f"hospital-{number}")
        service = LedgerService(ledger)
        with DeletionServer(service) as server:
            settings = solved_settings(tmp_path / "plain", server.address)
            plain = make_hospital(tmp_path / "plain", 1, settings, [digits(range(15, 75))])
            expected = Run([plain], min_sites=1).solve()
        service.close()
    assert release.digest() == expected.digest()
    assert [kind for kind, node in run.sites.asked if node == 1] == EACH


def test_release_after_a_deletion_is_that_of_sites_that_never_had_the_record(
    plain: Hospitals, tmp_path: Path, address: str
) -> None:
    before = Run(plain).solve()
    plain[1].delete(25, 30)
    settings = solved_settings(tmp_path / "never", address, min_sites=3)
    never = [
        make_hospital(tmp_path / "never", number, settings, [digits([row for row in rows if row not in (25, 30)])])
        for number, rows in enumerate(EVEN, 1)
    ]

    after = Run(plain).solve()

    assert after.digest() == Run(never).solve().digest() != before.digest()
    assert after.about["records"] == RECORDS - 2


def test_record_that_is_deleted_between_sums_and_tallies_costs_its_site_nothing(
    plain: Hospitals, tmp_path: Path, address: str
) -> None:
    settings = solved_settings(tmp_path / "never", address, min_sites=3)
    never = [
        make_hospital(tmp_path / "never", number, settings, [digits([row for row in rows if row != 25])])
        for number, rows in enumerate(EVEN, 1)
    ]
    deleted: list[int] = []

    def delete(node: int, message: Message, reply: Message) -> Message:
        if node == 1 and message.metadata.message_type == TALLY and not deleted:
            deleted.append(25)
            plain[1].delete(25)
        return reply

    run = Run(plain, delete)

    assert run.solve().digest() == Run(never).solve().digest()
    assert run.events[0]["failures"] == {}
    assert run.count(CONTRIBUTE, 2) == 2


def test_further_rounds_are_opened_one_after_another(plain: Hospitals) -> None:
    run = Run(plain, num_rounds=2)

    run.solve()

    assert run.opened == [1, 2]
    assert [event["number"] for event in run.events] == [1, 2]


def test_sites_that_are_not_asked_for_accuracies_take_over_the_weights(plain: Hospitals) -> None:
    run = Run(plain, fraction_evaluate=0.4)

    release = run.solve()

    assert list(run.events[0]["evaluation"]) == ["hospital-1"]
    assert all(read_release(each.folder.shared_weights).digest() == release.digest() for each in plain)


# Sites that fail.


def of_node(node: int, kind: str, change: Callable[[Message, Message], Message | None]) -> Change:
    """Change what one node answers to one kind of message."""

    def changed(asked: int, message: Message, reply: Message) -> Message | None:
        return change(message, reply) if (asked, message.metadata.message_type) == (node, kind) else reply

    return changed


def refuse(message: Message, _reply: Message) -> Message:
    return refusing(message, "the disk is full")


def silent(_message: Message, _reply: Message) -> None:
    return None


def numbers(array: Any) -> Callable[[Message, Message], Message]:
    def change(_message: Message, reply: Message) -> Message:
        reply.content[ARRAYS] = ArrayRecord({NUMBERS: Array(array)})
        return reply

    return change


def lacking(name: str) -> Callable[[Message, Message], Message]:
    def change(_message: Message, reply: Message) -> Message:
        del reply.content[name]
        return reply

    return change


def saying(**words: str) -> Callable[[Message, Message], Message]:
    def change(_message: Message, reply: Message) -> Message:
        reply.content.config_records[CONFIG].update({name.replace("_", "-"): word for name, word in words.items()})
        return reply

    return change


def telling(metrics: dict[str, Any]) -> Callable[[Message, Message], Message]:
    def change(_message: Message, reply: Message) -> Message:
        reply.content[METRICS] = MetricRecord(metrics)
        return reply

    return change


def nameless(_message: Message, reply: Message) -> Message:
    reply.content[SITE] = ConfigRecord()
    return reply


NO_NUMBERS = "its reply does not have {} whole numbers"
SUMS, TALLIES = NO_NUMBERS.format(3 * (41 * 42 // 2 + 41 * 10 + 10)), NO_NUMBERS.format(19 * 12)
FAULTS = [
    *(pytest.param(kind, refuse, "the disk is full", id=f"{kind}-error") for kind in (CONTRIBUTE, TALLY)),
    *(pytest.param(kind, silent, "it did not answer in time", id=f"{kind}-silent") for kind in (CONTRIBUTE, TALLY)),
    *(
        pytest.param(kind, change, reason, id=f"{kind}-{name}")
        for kind, reason in ((CONTRIBUTE, SUMS), (TALLY, TALLIES))
        for name, change in (
            ("no arrays", lacking(ARRAYS)),
            ("too short", numbers(np.zeros(7, np.uint64))),
            ("signed", numbers(np.zeros(3843, np.int64))),
            ("floats", numbers(np.zeros(228))),
            ("two rows", numbers(np.zeros((2, 228), np.uint64))),
        )
    ),
    pytest.param(CONTRIBUTE, lacking(CONFIG), "generation = None is not a whole number from 0 on", id="says nothing"),
    pytest.param(
        CONTRIBUTE, saying(last_entry="many"), "last-entry = 'many' is not a whole number from 0 on", id="no number"
    ),
    pytest.param(CONTRIBUTE, saying(last_order=""), "last-order = '' is not a whole number from 0 on", id="no order"),
]


@pytest.mark.parametrize(("kind", "change", "reason"), FAULTS)
def test_round_begins_again_without_a_site_that_fails(
    plain: Hospitals, kind: str, change: Callable[[Message, Message], Message | None], reason: str
) -> None:
    expected = without(plain, 2)
    run = Run(plain, of_node(2, kind, change))

    release = run.solve()

    assert release.digest() == expected.digest()
    assert release.about["sites"] == ["hospital-1", "hospital-3"]
    # Without masks, sums that never came are missing from nothing.
    assert run.count(CONTRIBUTE, 1) == (1 if kind == CONTRIBUTE else 2)
    assert list(run.events[0]["failures"].values()) == [reason]
    # It has the weights all the same.
    assert run.count(TAKE_RELEASE, 2) == 1


@pytest.mark.parametrize(("kind", "change", "reason"), FAULTS[:5])
def test_run_stops_where_the_settings_want_every_site(
    plain: Hospitals, kind: str, change: Callable[[Message, Message], Message | None], reason: str
) -> None:
    run = Run(plain, of_node(2, kind, change), absent_sites="stop")

    stopped = run.stops()

    assert stopped.startswith("round 1: ")
    assert stopped.endswith(f": {reason}; absent-sites = stop")
    assert not (run.folder / LAST).exists()


def test_reply_that_names_no_site_does_not_count(plain: Hospitals) -> None:
    expected = without(plain, 2)
    for change in (lacking(SITE), nameless):
        run = Run(plain, of_node(2, CONTRIBUTE, change))
        assert run.solve().digest() == expected.digest()
        assert run.events[0]["failures"] == {"node 2": "it does not say which site it is"}


def test_two_nodes_of_one_name_stop_the_run(plain: Hospitals) -> None:
    def rename(_message: Message, reply: Message) -> Message:
        reply.content[SITE] = ConfigRecord({SITE: "hospital-1"})
        return reply

    stopped = Run(plain, of_node(3, CONTRIBUTE, rename)).stops()

    assert stopped == "two nodes say that they are hospital-1; revoke the one that is not"


def test_run_stops_when_no_site_can_take_part(plain: Hospitals) -> None:
    run = Run(plain, lambda _node, message, _reply: refusing(message, "no key store"))

    assert run.stops() == (
        "round 1: no site could take part: node 1: no key store; node 2: no key store; node 3: no key store"
    )


def test_run_stops_when_sites_fail_one_after_another(plain: Hospitals) -> None:
    failed = set[int]()

    def fail_first(node: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == TALLY and node == len(failed) + 1:
            failed.add(node)
            return refusing(message, "no key store")
        return reply

    def fail_in_turn(node: int, message: Message, reply: Message) -> Message:
        # One in each attempt: the others of it have answered before.
        return fail_first(node, message, reply) if run.count(TALLY, 3) == len(failed) + (node == 3) else reply

    run = Run(plain, fail_in_turn)

    assert "no site could take part: hospital-1: no key store; hospital-2: no key store; hospital-3" in run.stops()


def test_run_stops_when_no_site_has_a_record(tmp_path: Path, address: str) -> None:
    settings = solved_settings(tmp_path, address, min_sites=2)
    hospitals = [make_hospital(tmp_path, number, settings) for number in (1, 2)]

    assert Run(hospitals).stops() == "round 1: no site has a record left to solve from"


def test_site_that_lies_about_its_sums_stops_the_run(plain: Hospitals) -> None:
    garbage = np.random.default_rng(0).integers(0, 2**64, 3843, dtype=np.uint64)

    with pytest.raises(InvalidWeights, match="these are no sums over records"):
        Run(plain, of_node(2, CONTRIBUTE, numbers(garbage))).solve()
    with pytest.raises(InvalidWeights, match="the tallies are not those of 60 records"):
        Run(plain, of_node(2, TALLY, numbers(np.full(228, 2**40, np.uint64)))).solve()


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (refuse, "the disk is full"),
        (silent, "it did not answer in time"),
        (lacking(METRICS), "its reply has no metrics"),
        (
            lambda _, reply: reply.content.__setitem__(METRICS, MetricRecord({"test-accuracy": [1.0, 2.0]})) or reply,
            "test-accuracy is not a number",
        ),
        (
            lambda _, reply: (
                reply.content.__setitem__(METRICS, MetricRecord({"num-examples": 1, "other": 1.0})) or reply
            ),
            None,
        ),
    ],
)
def test_site_that_fails_to_take_the_release_over_spoils_nothing(
    plain: Hospitals, change: Callable[[Message, Message], Message | None], failure: str | None
) -> None:
    run = Run(plain, of_node(2, TAKE_RELEASE, change))

    run.solve()

    (event,) = run.events
    assert {"hospital-1", "hospital-3"} <= set(event["evaluation"])
    assert event["failures"].get("hospital-2") == failure


# Masked rounds.


def masked(members: Hospitals, coordinator: Coordinator, change: Change | None = None, **changes: Any) -> Run:
    return Run(members, change, authority=coordinator.authority.certificate, **changes)


@pytest.mark.parametrize(
    "point", ["contribute.summed", "contribute.masked", "tally.counted", "release.received", "release.written"]
)
def test_site_that_is_killed_is_left_out_or_has_the_weights_next_time(
    members: Hospitals, coordinator: Coordinator, point: str
) -> None:
    # The second of the four sites that come by.
    def kill() -> None:
        raise Killed

    run = masked(members, coordinator)
    arm(Armed(FailpointPlan.parse(f"{point}=kill@2"), kill=kill))
    try:
        release = run.solve()
    finally:
        arm(None)

    taking_part = [1, 2, 3, 4] if point.startswith("release") else [1, 3, 4]
    assert release.about["sites"] == [f"hospital-{number}" for number in taking_part]
    assert release.about["records"] == 15 * len(taking_part)
    with members[1].folder.open() as store:
        assert store.records.count_labels()
    again = masked(members, coordinator).solve()
    assert again.about["records"] == 60
    assert read_release(members[1].folder.shared_weights).digest() == again.digest()


def test_masks_are_fresh_when_a_round_begins_again(members: Hospitals, coordinator: Coordinator) -> None:
    run = masked(members, coordinator, of_node(4, TALLY, refuse))

    release = run.solve()

    assert release.about["sites"] == ["hospital-1", "hospital-2", "hospital-3"]
    sums = [reply for kind, node, reply in run.sites.replies if (kind, node) == (CONTRIBUTE, 1)]
    first, second = (reply.content.array_records[ARRAYS][NUMBERS].numpy() for reply in sums)
    assert not (first == second).any()


def test_fewer_than_three_members_cannot_solve(members: Hospitals, coordinator: Coordinator) -> None:
    run = masked(members[:3], coordinator, of_node(3, CONTRIBUTE, refuse))

    assert run.stops().startswith("2 sites take part: of fewer than 3 each would learn the others' sums")
    two = masked(members[:2], coordinator, min_sites=2).stops()
    assert two.startswith("round 1: no site could take part: hospital-1: 2 sites take part: of fewer than 3")
    for hospital in members[:2]:
        hospital.node_config["insecure-sums"] = True
    assert masked(members[:2], coordinator, min_sites=2).solve().about["records"] == 30


@pytest.mark.parametrize("change", [refuse, silent, saying(certificate=""), saying(certificate="text")])
def test_site_that_cannot_say_who_it_is_is_left_out_or_stops_the_run(
    members: Hospitals, coordinator: Coordinator, change: Callable[[Message, Message], Message | None]
) -> None:
    run = masked(members, coordinator, of_node(4, ANNOUNCE, change))

    assert run.solve().about["sites"] == ["hospital-1", "hospital-2", "hospital-3"]
    assert len(run.events[0]["failures"]) == 1
    assert run.count(CONTRIBUTE, 4) == 0
    stopped = masked(members, coordinator, of_node(4, ANNOUNCE, change), absent_sites="stop").stops()
    assert stopped.endswith("; absent-sites = stop")


def test_node_with_the_certificate_of_another_site_is_left_out(members: Hospitals, coordinator: Coordinator) -> None:
    other = members[0].folder.find_identity()
    assert other is not None
    pem = other.certificate_file.read_text()

    run = masked(members, coordinator, of_node(4, ANNOUNCE, saying(certificate=pem)))

    assert run.solve().about["sites"] == ["hospital-1", "hospital-2", "hospital-3"]
    assert "is that of somebody else" in run.events[0]["failures"]["hospital-4"]


def test_sites_asked_a_few_at_a_time_give_the_same_weights(plain: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    together = Run(plain).solve()
    monkeypatch.setattr(asked_sites, "_MOST_BYTES", 1)
    monkeypatch.setattr(asked_sites, "_FEWEST_TOGETHER", 2)
    run = Run(plain)

    assert run.solve().digest() == together.digest()
    assert run.sites.grid.send_and_receive.call_count == 2 * 3


@pytest.mark.parametrize("kind", [CONTRIBUTE, TALLY, TAKE_RELEASE])
def test_a_node_that_is_lost_with_its_machine_is_asked_again(
    plain: Hospitals, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(asked_sites, "_LOST_PAUSE_SECONDS", 0.0)
    whole, lost = Run(plain).solve(), iter(range(1 + 4 + 3))

    def lose(node: int, message: Message, reply: Message) -> Message:
        """Answer as Flower's engine does for a worker that has died."""
        dies = (node, message.metadata.message_type) == (2, kind) and next(lost, None) is not None
        return Message(Error(code=ErrorCode.UNKNOWN, reason="the actor died"), reply_to=message) if dies else reply

    run = Run(plain, lose)

    assert run.solve().digest() == whole.digest()
    # Once, four times in vain, and then one of four reaches a worker that lives.
    assert run.count(kind, 2) == 1 + 4 + 4
    assert run.count(kind, 1) == 1
    assert run.events[0]["failures"] == {}


def test_a_node_that_stays_lost_is_left_out(plain: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_sites, "_LOST_SECONDS", 0.0)

    def lose(node: int, message: Message, reply: Message) -> Message:
        died = Error(code=ErrorCode.UNKNOWN, reason="the actor died")
        return Message(died, reply_to=message) if node == 2 else reply

    run = Run(plain, lose)

    release = run.solve()

    assert run.events[0]["failures"]["node 2"] == "the actor died"
    assert release.digest() == without(plain, 2).digest()
