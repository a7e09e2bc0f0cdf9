"""What a site's replies tell a coordinator that chooses the weights; beside it, what those of a simulated site do."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, MessageType
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedmunkey.client.learning.held_out import OwnHeldOut
from fedmunkey.client.learning.own_memory import count_right_held_out, evaluate_held_out
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.rounds.evaluation_leave import (
    A_DAY,
    STEP,
    EvaluationLeave,
    EvaluationRule,
    coarse_counts,
    spend_evaluation,
)
from fedmunkey.client.rounds.what_leaves import ANSWERING, LEAVING, Leaving, check_listed, table
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.feature_map import SCALE
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES, WEIGHT_BITS
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.closed_form.solving import RIDGES, Choice
from fedmunkey.common.deletions.acknowledgement import Acknowledgement
from fedmunkey.common.deletions.states import SiteState
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.programs.round_messages import CONTRIBUTE, METRICS, TAKE_RELEASE
from fedmunkey.common.proofs.receipts import PREDICATE_TYPE, Receipt, WitnessedHead
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import Statement
from fedmunkey.protos import deletion_pb2
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.entitlements import ROLES
from tests.client.one_site import Make
from tests.client.one_site import digits as digits_of_one_site
from tests.solved_sites import CLASSES, ENCODER, Hospital, digits, feature_map, make_hospital, solved_settings

pytestmark = pytest.mark.usefixtures("within_a_run")

TRAIN = range(60)
ABSENT = 9
"""A class of which no record is held out, as the attack needs one."""
HELD_OUT = [200 + row for row, label in enumerate(load_digits().target[200:400]) if label != ABSENT][:120]
TEMPERATURE = TEMPERATURES[3]
DAY = 24 * 3600.0


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.register("hospital-1")
        service = LedgerService(ledger)
        with DeletionServer(service) as server:
            yield server.address
        service.close()


@pytest.fixture
def hospital(tmp_path: Path, address: str) -> Hospital:
    """A site that says what one does whose `site.toml` says that it tells counts."""
    records = [digits(TRAIN), digits(HELD_OUT, Split.TEST)]
    made = make_hospital(tmp_path, 1, solved_settings(tmp_path, address, random_features=15), records)
    made.node_config["evaluation"] = "counts"
    return made


def chosen(hospital: Hospital, weights: NDArray[np.int32]) -> Release:
    read = feature_map(hospital.settings)
    left_out = np.zeros((FOLDS, read.size, CLASSES), dtype=np.int32)
    return Release(weights, left_out, Choice(RIDGES[4], TEMPERATURE, 0.9, 0.3), read, hospital.settings.encoder, {})


def give(hospital: Hospital, release: Release, round_id: str) -> dict[str, float]:
    told = {"release": json.dumps(vars(release.choice)), "digest": release.digest(), "round_id": round_id}
    return numbers_of(hospital.send(TAKE_RELEASE, release.arrays(), **told))


def ask(hospital: Hospital, weights: NDArray[np.int32], number: int) -> dict[str, float]:
    """Have a site contribute to a round, then give it weights that are no sums' solution; return what it tells."""
    assert hospital.send(CONTRIBUTE, round_id=f"{number}-round").has_content()
    return give(hospital, chosen(hospital, weights), f"{number}-round")


def numbers_of(reply: Message) -> dict[str, float]:
    assert reply.has_content(), reply.error.reason
    return {name: float(str(value)) for name, value in reply.content.metric_records[METRICS].items()}


def reconstruct(hospital: Hospital) -> tuple[NDArray[np.float64], int]:
    """Return the mean of what is read of held-out pictures as losses, or else accuracies, tell it; and how many told.

    With small weights for the absent class, the loss moves by the mean itself (its gradient), divided by the number of
    classes and the temperature.
    """
    size, small, said = feature_map(hospital.settings).size, 0.005, 0
    found = np.zeros(size)
    for place in range(size):
        sides = []
        for sign in (1, -1):
            weights = np.zeros((size, CLASSES), dtype=np.int32)
            weights[place, ABSENT] = sign * round(small * 2**WEIGHT_BITS)
            told = ask(hospital, weights, 2 * place + (sign > 0) + 1)
            said += bool(told)
            sides.append(told.get("test-loss", told.get("test-accuracy", np.nan)))
        found[place] = (sides[0] - sides[1]) / (2 * small) * TEMPERATURE * CLASSES
    return np.nan_to_num(found), said


def mean_of_held_out(hospital: Hospital) -> NDArray[np.float64]:
    keys = ENCODER.encode(torch.from_numpy(digits(HELD_OUT).images)).keys
    read = feature_map(hospital.settings).read(keys.numpy(), np.empty(0, dtype=np.float32))
    mean: NDArray[np.float64] = read.mean(0) / SCALE
    return mean


# Weights that the coordinator chooses.


def test_site_with_a_bare_file_tells_nothing_of_its_held_out_records(hospital: Hospital) -> None:
    """Whatever weights it is sent, its replies are the same with and without a record."""
    del hospital.node_config["evaluation"]
    weights = np.zeros((feature_map(hospital.settings).size, CLASSES), dtype=np.int32)

    assert [ask(hospital, weights + number, number) for number in range(1, 4)] == [{}, {}, {}]
    assert not (hospital.folder.path / "evaluations.json").exists()


@pytest.mark.parametrize(("days", "least", "most"), [(1, 0.74, 0.83), (125, 0.99, 1.0)])
def test_counts_tell_who_knows_all_other_held_out_records_of_one_more(
    folder: SiteFolder, days: int, least: float, most: float
) -> None:
    """The best that weights can be chosen for: all others stand on the edge, and the one record is answered rightly."""
    asked = [spend_evaluation(folder, f"{n}-round", now=DAY * (n * days // 1000) + n) for n in range(1000)]
    told = sum(asked)
    sites = 3200 // told + 30

    def highest(right: int) -> NDArray[np.float64]:
        return np.array([max(coarse_counts(right, 120)["test-accuracy"] for _ in range(told)) for _ in range(sites)])

    held, other = highest(61), highest(60)

    pairs = held[:, None] - other[None]
    assert told == min(A_DAY * days, 1000)
    assert least < (pairs > 0).mean() + (pairs == 0).mean() / 2 <= most


def test_mean_of_held_out_pictures_cannot_be_told_by_chosen_weights(hospital: Hospital) -> None:
    truth = mean_of_held_out(hospital)

    found, said = reconstruct(hospital)

    assert said == A_DAY < 2 * len(truth)
    assert np.linalg.norm(found - truth) > 0.9 * np.linalg.norm(truth)


def test_attack_finds_the_mean_where_everything_is_told(hospital: Hospital) -> None:
    hospital.node_config["evaluation"] = "full"
    truth = mean_of_held_out(hospital)

    found, said = reconstruct(hospital)

    assert said == 2 * len(truth)
    assert np.abs(found - truth).max() < 1e-3


def test_thousand_chosen_weights_tell_nothing_of_a_training_record(hospital: Hospital) -> None:
    rng, size = np.random.default_rng(0), feature_map(hospital.settings).size
    releases = [chosen(hospital, rng.integers(-(2**20), 2**20, (size, CLASSES), np.int32)) for _ in range(1000)]

    def answers() -> tuple[list[int], list[float]]:
        with hospital.folder.open() as store:
            counts = [count_right_held_out(store, release, Split.TEST) for release in releases]
            return counts, [
                evaluate_held_out(store, release, OwnHeldOut(), [Split.TEST])[Split.TEST].own_loss
                for release in releases[:20]
            ]

    with_it, losses = answers()
    hospital.delete(5)
    without, others = answers()

    # Before they are rounded, and were all of them told: whoever guesses is right in half of all cases.
    assert with_it == without
    assert len(set(with_it)) > 10
    # What a simulated site tells beside that gives the record away.
    assert min(abs(one - other) for one, other in zip(losses, others, strict=True)) > 1e-6


def test_weights_are_evaluated_once_in_a_round_and_only_where_the_site_contributed(hospital: Hospital) -> None:
    weights = np.zeros((feature_map(hospital.settings).size, CLASSES), dtype=np.int32)

    assert set(ask(hospital, weights, 1)) == {"num-examples", "test-accuracy"}
    assert give(hospital, chosen(hospital, weights), "1-round") == {}
    assert give(hospital, chosen(hospital, weights + 1), "1-round") == {}
    assert give(hospital, chosen(hospital, weights), "2-round") == {}
    assert give(hospital, chosen(hospital, weights), "") == {}


def test_few_held_out_records_are_not_counted(hospital: Hospital) -> None:
    hospital.node_config["fewest-evaluated"] = len(HELD_OUT) + 1
    weights = np.zeros((feature_map(hospital.settings).size, CLASSES), dtype=np.int32)

    assert ask(hospital, weights, 1) == {}


def more_held_out() -> Dataset:
    records = digits_of_one_site()
    return replace(records, splits=np.where(records.splits == Split.TRAIN.value, Split.TEST.value, Split.TRAIN.value))


@pytest.mark.parametrize(
    ("guarantee", "said", "names"),
    [
        ("certified", {"insecure-sums": False}, set()),
        ("certified", {"evaluation": "off"}, set()),
        ("certified", {"evaluation": "counts"}, {"num-examples", "test-accuracy", "epsilon", "delta"}),
        ("empirical", {"insecure-sums": False}, {"num-examples", "test-accuracy"}),
        ("empirical", {"evaluation": "off"}, set()),
    ],
)
def test_site_tells_what_its_settings_or_else_its_promise_allow(
    make_federation: Make, guarantee: str, said: dict[str, Any], names: set[str]
) -> None:
    federation = make_federation(records=more_held_out(), guarantee=guarantee, num_rounds=2, local_steps=2)
    context = federation.context(**{"fewest-evaluated": 20, **said})

    trained = federation.ask(MessageType.TRAIN, context=context)
    evaluated = federation.ask(MessageType.EVALUATE, context=context)

    assert set(numbers_of(evaluated)) == names
    assert np.isnan(numbers_of(trained)["train-loss"])
    if names:
        assert numbers_of(evaluated)["num-examples"] == 20


def test_deployed_sites_leave_is_its_own_and_a_simulated_one_tells_everything() -> None:
    deployed = {"site-dir": "/srv/site"}

    assert EvaluationRule.of({"partition-id": 0}, Guarantee.CERTIFIED).leave is EvaluationLeave.FULL
    assert EvaluationRule.of(deployed, Guarantee.CERTIFIED).leave is EvaluationLeave.OFF
    assert EvaluationRule.of(deployed, Guarantee.EXACT).leave is EvaluationLeave.OFF
    assert EvaluationRule.of(deployed, Guarantee.EMPIRICAL) == EvaluationRule(EvaluationLeave.COUNTS, 100)
    with pytest.raises(InvalidSetting, match="evaluation = everything: this site says off or counts"):
        EvaluationRule.of({**deployed, "evaluation": "everything"}, Guarantee.EXACT)


# How often, and how coarse.


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return SiteFolder(tmp_path)


def test_of_a_thousand_evaluations_few_are_told_and_the_note_outlives_the_process(folder: SiteFolder) -> None:
    told = [spend_evaluation(folder, f"{number}-round", now=1000.0 + number) for number in range(1000)]

    assert told == [True] * A_DAY + [False] * (1000 - A_DAY)
    (note,) = folder.path.iterdir()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert not spend_evaluation(folder, "0-round", now=1000.0 + DAY + 1)
    assert spend_evaluation(folder, "1000-round", now=1000.0 + DAY + 1)


def test_note_that_cannot_be_read_counts_as_a_day_that_is_spent(folder: SiteFolder) -> None:
    (folder.path / "evaluations.json").write_text("{")

    assert not spend_evaluation(folder, now=0.0)
    assert not spend_evaluation(folder, now=DAY - 1)
    assert spend_evaluation(folder, now=DAY + 1)


def test_clock_that_is_set_back_gives_no_second_day(folder: SiteFolder) -> None:
    assert all(spend_evaluation(folder, now=DAY / 2) for _ in range(A_DAY))

    assert not spend_evaluation(folder, now=0.0)


@pytest.mark.parametrize("right", [40, 49, 55])
def test_one_record_changes_what_is_told_by_a_tenth_at_most(right: int) -> None:
    draws, examples = 20_000, 120
    one, other = (
        Counter(coarse_counts(count, examples)["test-accuracy"] for _ in range(draws)) for count in (right, right + 1)
    )

    apart = sum(abs(one[told] - other[told]) for told in one | other) / (2 * draws)
    assert apart < 1 / STEP + 0.02
    assert {round(told * examples) % STEP for told in one} == {0}
    assert sum(told * times for told, times in one.items()) / draws == pytest.approx(right / examples, abs=0.003)


def test_counts_of_few_records_are_possible_ones() -> None:
    assert coarse_counts(5, 9) == {}
    assert all(coarse_counts(count, count) == {"num-examples": 40, "test-accuracy": 1.0} for count in range(40, 50))
    assert coarse_counts(0, 45) == {"num-examples": 40, "test-accuracy": 0.0}


# The table.


@pytest.mark.parametrize("rows", [LEAVING, ANSWERING])
def test_security_shows_each_number_that_leaves(rows: tuple[Leaving, ...]) -> None:
    assert table(rows) in (Path(__file__).parents[3] / "SECURITY.md").read_text(encoding="utf-8")


def test_everything_that_a_site_says_about_deletions_has_a_line() -> None:
    listed = frozenset().union(*(each.names for each in ANSWERING))
    loss = PrivacyLoss(1.0, 1e-5, 2)
    answer = Acknowledgement(
        *(1, "hospital-1", "request-1", SiteState.ERASED, 3, 2, Guarantee.CERTIFIED, 0.5),
        record_loss=replace(loss, records=1),
        subject_loss=loss,
    )
    now = datetime(2026, 3, 1, tzinfo=UTC)
    receipt = Receipt(answer, bytes(32), now, bytes(32), WitnessedHead(1, bytes(32)), (now, now), ("00" * 32,), 2)
    signed = Statement.of(receipt.sign(SigningKey.from_seed(bytes(32))), PREDICATE_TYPE).predicate

    said = leaves_of(signed) | leaves_of(answer.to_document())
    for call in deletion_pb2.DESCRIPTOR.services_by_name["Deletion"].methods:
        if MemberRole.SITE in ROLES[call.name]:
            said |= fields_of(call.input_type)

    assert said - listed == set()
    assert listed - said == set()


def leaves_of(document: dict[str, Any], under: str = "") -> set[str]:
    """Return the names of the values in a document, with those that they lie under."""
    return {
        name
        for key, value in document.items()
        for name in (leaves_of(value, f"{under}{key}.") if isinstance(value, dict) else {f"{under}{key}"})
    }


def fields_of(message: Any) -> set[str]:
    """Return the names of all fields of a message and of those in it."""
    found: set[str] = set()
    for field in message.fields:
        found |= fields_of(field.message_type) if field.message_type is not None else {field.name}
    return found


def test_text_of_an_error_is_a_short_printable_line(hospital: Hospital) -> None:
    hospital.node_config["site-dir"] = "away\n/" * 300

    reply = hospital.send(CONTRIBUTE)

    reason = reply.error.reason or ""
    assert "away\\n/" in reason
    assert reason.isprintable()
    assert len(reason) == 500


def test_number_without_a_line_does_not_leave() -> None:
    check_listed(["num-examples", "test-accuracy", "train-loss"])

    with pytest.raises(LookupError, match="median-loss would leave the site"):
        check_listed(["num-examples", "median-loss"])
