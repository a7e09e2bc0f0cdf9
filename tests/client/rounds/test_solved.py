"""What a site answers where weights are solved for, and what it refuses."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from fedmunkey.client.learning import contribution
from fedmunkey.client.learning.contribution import sum_records
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.clock import utc_now
from fedmunkey.common.closed_form.folds import FOLDS, folds_of
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES
from fedmunkey.common.closed_form.release import Release, read_release
from fedmunkey.common.closed_form.solving import RIDGES, Choice, left_out_weights, shared_weights
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.identities.identity import CERTIFICATE_FILE
from fedmunkey.common.programs.round_messages import (
    ANNOUNCE,
    ARRAYS,
    CHANGED,
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
from tests.coordinator import Coordinator, killed_at, make_identity, running_coordinator
from tests.solved_sites import CLASSES, Hospital, deletion_of, digits, feature_map, make_hospital, solved_settings

pytestmark = pytest.mark.usefixtures("within_a_run")

TRAIN, TEST = range(60), range(200, 212)
SIZE = 41
SHAPE = SumsShape(FOLDS, SIZE, CLASSES)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LedgerService]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number in (1, 2, 3):
            ledger.register(f"hospital-{number}")
        service = LedgerService(ledger)
        yield service
        service.close()


@pytest.fixture
def address(service: LedgerService) -> Iterator[str]:
    with DeletionServer(service) as server:
        yield server.address


@pytest.fixture
def hospital(tmp_path: Path, address: str) -> Hospital:
    """A site without an identity, which masks nothing."""
    records = [digits(TRAIN), digits(TEST, Split.TEST)]
    return make_hospital(tmp_path, 1, solved_settings(tmp_path, address), records)


def reason_of(reply: Message) -> str:
    assert reply.has_error()
    assert reply.error.code == 1000
    assert "\n" not in (reply.error.reason or "")
    return reply.error.reason or ""


def numbers_of(reply: Message) -> NDArray[np.uint64]:
    assert reply.has_content(), reply.error.reason
    return reply.content.array_records[ARRAYS][NUMBERS].numpy()


def config_of(reply: Message) -> dict[str, Any]:
    return dict(reply.content.config_records[CONFIG])


def contributed(hospital: Hospital) -> tuple[Sums, dict[str, Any]]:
    reply = hospital.send(CONTRIBUTE)
    return Sums.from_numbers(numbers_of(reply), SHAPE), config_of(reply)


def asking(said: dict[str, Any]) -> dict[str, int]:
    return {"generation": int(said["generation"]), "last_entry": int(said["last-entry"])}


def released(sums: Sums, hospital: Hospital) -> Release:
    choice = Choice(RIDGES[4], TEMPERATURES[3], 0.9, 0.3)
    left_out = left_out_weights(sums)[4]
    read = feature_map(hospital.settings)
    return Release(shared_weights(sums, RIDGES[4]), left_out, choice, read, hospital.settings.encoder, {})


def give(hospital: Hospital, given: Release, **changes: Any) -> Message:
    told = {"release": json.dumps(vars(given.choice)), "digest": given.digest(), **changes}
    return hospital.send(TAKE_RELEASE, given.arrays(), **told)


# What a reply holds.


def test_site_says_who_it_is(hospital: Hospital) -> None:
    reply = hospital.send(ANNOUNCE)

    assert dict(reply.content.config_records[SITE]) == {SITE: "hospital-1"}
    assert config_of(reply) == {"certificate": ""}


def test_contribution_is_the_sums_over_the_bank_and_nothing_is_kept(hospital: Hospital) -> None:
    before = {path.name for path in hospital.folder.path.iterdir()}

    reply = hospital.send(CONTRIBUTE)

    with hospital.folder.open() as store:
        made = sum_records(store, feature_map(hospital.settings), CLASSES, permanent_only=False)
    assert numbers_of(reply).tobytes() == made.sums.to_numbers().tobytes()
    assert made.sums.records == len(TRAIN)
    assert set(reply.content) == {ARRAYS, METRICS, SITE, CONFIG}
    assert len(reply.content.metric_records[METRICS]) == 0
    said = config_of(reply)
    assert set(said) == {"generation", "last-entry", "last-order", "statement"}
    assert (said["last-entry"], said["last-order"]) == (60, 0)
    assert {path.name for path in hospital.folder.path.iterdir()} - before <= {"last-round.json"}


def test_permanent_consent_is_asked_for_where_the_settings_want_it(tmp_path: Path, address: str) -> None:
    settings = solved_settings(tmp_path, address, learns_from="permanent")
    records = [digits(range(30)), digits(range(30, 50), consent=Consent.PERMANENT)]
    hospital = make_hospital(tmp_path, 1, settings, records)
    only = make_hospital(tmp_path, 2, settings, records[1:])

    assert contributed(hospital)[0].digest() == contributed(only)[0].digest()
    assert contributed(hospital)[0].records == 20


def test_block_in_which_records_are_read_does_not_count(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, said = contributed(hospital)
    left_out = left_out_weights(whole)
    tallies = numbers_of(hospital.send(TALLY, {NUMBERS: left_out}, **asking(said)))

    monkeypatch.setattr(contribution, "_BLOCK", 7)

    assert contributed(hospital)[0].digest() == whole.digest()
    again = numbers_of(hospital.send(TALLY, {NUMBERS: left_out}, **asking(said)))
    assert again.tobytes() == tallies.tobytes()
    assert again.shape == (len(RIDGES) * (1 + len(TEMPERATURES)),)


def test_released_weights_are_kept_and_evaluated(hospital: Hospital) -> None:
    release = released(contributed(hospital)[0], hospital)

    reply = give(hospital, release)

    assert read_release(hospital.folder.shared_weights).digest() == release.digest()
    metrics = reply.content.metric_records[METRICS]
    names = {"examples", "loss", "accuracy", "macro-f1", "own-loss", "own-accuracy"}
    of_splits = {f"{split}-{name}" for split in ("val", "test") for name in names}
    assert set(metrics) == {"entries", "num-examples"} | of_splits
    assert (metrics["entries"], metrics["num-examples"], metrics["val-examples"]) == (60, 12, 0)
    assert float(str(metrics["test-accuracy"])) > 0.5
    silent = give(hospital, release, take_over=True)
    assert silent.has_content()
    assert len(silent.content.metric_records[METRICS]) == 0


def test_site_that_has_promised_less_takes_part_and_names_the_same_metrics(
    hospital: Hospital, tmp_path: Path, address: str
) -> None:
    del address
    other = make_hospital(tmp_path, 2, hospital.settings, [digits(range(60, 90))], promised="empirical")
    sums = contributed(hospital)[0].plus(contributed(other)[0])
    release = released(sums, hospital)

    names = [set(give(each, release).content.metric_records[METRICS]) for each in (hospital, other)]

    assert names[0] == names[1]


# Weights of an earlier run.


def test_weights_of_an_earlier_run_are_taken_again_with_what_the_site_promised_for_them(
    hospital: Hospital, service: LedgerService
) -> None:
    service.submit(deletion_of("hospital-1", 0))
    sums, _ = contributed(hospital)
    earlier = released(sums, hospital)
    give(hospital, earlier)
    give(hospital, replace(earlier, weights=earlier.weights + 1))

    assert give(hospital, earlier, again=True).has_content()

    kept = read_release(hospital.folder.shared_weights)
    assert kept.digest() == earlier.digest()
    assert kept.about["contributed-up-to"] == 1


def test_weights_of_an_earlier_run_that_hold_what_was_deleted_since_are_refused(
    hospital: Hospital, service: LedgerService
) -> None:
    earlier = released(contributed(hospital)[0], hospital)
    give(hospital, earlier)
    service.submit(deletion_of("hospital-1", 0))
    later = released(contributed(hospital)[0], hospital)
    give(hospital, later)

    reason = reason_of(give(hospital, earlier, again=True))

    assert "hold what request request-0 erased; the site keeps those that it has" in reason
    assert read_release(hospital.folder.shared_weights).digest() == later.digest()
    assert give(hospital, later, again=True).has_content()


def test_of_weights_that_a_site_does_not_know_the_worst_is_believed(hospital: Hospital, service: LedgerService) -> None:
    unknown = released(contributed(hospital)[0], hospital)
    assert give(hospital, unknown, again=True).has_content()
    (hospital.folder.path / "releases.json").unlink()
    service.submit(deletion_of("hospital-1", 0))

    assert "they may hold what it has erased" in reason_of(give(hospital, unknown, again=True))


# What is refused.


def test_other_guarantees_send_no_sums(hospital: Hospital, tmp_path: Path, address: str) -> None:
    for guarantee in ("certified", "empirical"):
        settings = solved_settings(tmp_path / guarantee, address, guarantee=guarantee)
        other = make_hospital(tmp_path / guarantee, 1, settings, [digits(range(20))])
        for kind in (ANNOUNCE, CONTRIBUTE, TALLY, TAKE_RELEASE):
            reason = reason_of(other.send(kind))
            assert reason == f"under guarantee = {guarantee} nobody sends sums; set guarantee = exact"
    for kind in ("train", "evaluate"):
        assert "under guarantee = exact nobody trains step by step" in reason_of(hospital.send(kind))


def test_certified_promise_is_kept(tmp_path: Path, address: str) -> None:
    settings = solved_settings(tmp_path, address)
    hospital = make_hospital(tmp_path, 1, settings, [digits(range(20))], promised="certified")

    for kind in (ANNOUNCE, CONTRIBUTE, TALLY, TAKE_RELEASE):
        reason = reason_of(hospital.send(kind))
        assert "promised its patients guarantee = certified, and sums have no noise" in reason
    assert not hospital.folder.shared_weights.exists()


COUNTED = (len(RIDGES), FOLDS, SIZE, CLASSES)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (None, "the coordinator's message holds no weights that can be read"),
        ({"other": np.zeros(COUNTED, np.int32)}, "weights of shape (0,) to be counted, not int32 of (19, 3, 41, 10)"),
        ({NUMBERS: np.zeros(COUNTED[1:], np.int32)}, "weights of shape (3, 41, 10) to be counted"),
        ({NUMBERS: np.zeros((1, *COUNTED[1:]), np.int32)}, "weights of shape (1, 3, 41, 10) to be counted"),
        ({NUMBERS: np.zeros(COUNTED, np.int64)}, "sent int64 weights of shape"),
        ({NUMBERS: np.full(COUNTED, 0.5)}, "sent float64 weights of shape"),
        ({NUMBERS: np.full(COUNTED, np.nan, np.float32)}, "sent float32 weights of shape"),
        ({NUMBERS: np.full(COUNTED, -(2**31), np.int32)}, "weights are too large, or no numbers"),
    ],
)
def test_weights_that_cannot_be_counted_are_refused(
    hospital: Hospital, weights: dict[str, NDArray[Any]] | None, reason: str
) -> None:
    _, said = contributed(hospital)

    assert reason in reason_of(hospital.send(TALLY, weights, **asking(said)))


@pytest.mark.parametrize("missing", ["generation", "last_entry"])
@pytest.mark.parametrize("value", [None, "many"])
def test_question_that_says_too_little_is_refused(hospital: Hospital, missing: str, value: str | None) -> None:
    sums, said = contributed(hospital)
    told: dict[str, Any] = asking(said)
    told = {name: number for name, number in told.items() if name != missing} | ({missing: value} if value else {})

    reason = reason_of(hospital.send(TALLY, {NUMBERS: left_out_weights(sums)}, **told))

    assert reason == f"the coordinator's message says no {missing.replace('_', '-')}; is it of another version?"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": "0" * 64}, "are not those of the digest that was announced; run another round"),
        ({"release": "{}"}, "a field of the released weights is missing"),
        ({"release": "no JSON"}, "a field of the released weights is missing"),
        ({"release": json.dumps({"ridge": 3, "temperature": 0.1, "accuracy": 1, "likelihood": 1})}, "nobody chooses"),
    ],
)
def test_release_that_is_not_what_was_announced_is_refused(
    hospital: Hospital, change: dict[str, Any], reason: str
) -> None:
    release = released(contributed(hospital)[0], hospital)

    assert reason in reason_of(give(hospital, release, **change))
    assert not hospital.folder.shared_weights.exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"weights": np.zeros((SIZE, CLASSES), np.int32)},
        {"weights": np.zeros((), np.int32), "left-out": np.zeros((FOLDS, SIZE, CLASSES), np.int32)},
        {"weights": np.zeros((SIZE, CLASSES)), "left-out": np.zeros((FOLDS, SIZE, CLASSES))},
        {"weights": np.zeros((SIZE, 4), np.int32), "left-out": np.zeros((FOLDS, SIZE, 4), np.int32)},
        {"weights": np.zeros((SIZE, CLASSES), np.int32), "left-out": np.zeros((2, SIZE, CLASSES), np.int32)},
        {
            "weights": np.full((SIZE, CLASSES), 2**31 - 1, np.int32),
            "left-out": np.full((FOLDS, SIZE, CLASSES), -(2**31), np.int32),
        },
    ],
)
def test_released_weights_of_another_kind_leave_the_old_ones(
    hospital: Hospital, arrays: dict[str, NDArray[Any]]
) -> None:
    release = released(contributed(hospital)[0], hospital)
    give(hospital, release)

    told = {"release": json.dumps(vars(release.choice)), "digest": release.digest()}
    reason_of(hospital.send(TAKE_RELEASE, arrays, **told))

    assert read_release(hospital.folder.shared_weights).digest() == release.digest()


def test_message_without_weights_or_words_is_refused(hospital: Hospital) -> None:
    reason = reason_of(hospital.send(TAKE_RELEASE))

    assert reason == "the coordinator's message holds no weights that can be read; run another round"


# Deletions and arrivals.


def test_deletion_amid_the_sums_starts_them_again(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = make_hospital(tmp_path / "never", 2, hospital.settings, [digits([row for row in TRAIN if row != 9])])
    read = folds_of
    calls = []

    def delete_and_read(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            hospital.delete(9)
        return read(*given)

    with monkeypatch.context() as patched:
        patched.setattr(contribution, "_BLOCK", 25)
        patched.setattr(contribution, "folds_of", delete_and_read)
        interrupted = contributed(hospital)[0]

    # Two blocks of the first reading, then all three of the second.
    assert len(calls) == 2 + 3
    assert interrupted.digest() == contributed(never)[0].digest()


def test_sums_after_a_deletion_are_those_of_a_site_that_never_had_the_record(
    hospital: Hospital, service: LedgerService, tmp_path: Path
) -> None:
    kept = [row for row in TRAIN if row not in (3, 30, 59)]
    never = make_hospital(tmp_path / "never", 2, hospital.settings, [digits(kept)])
    before = contributed(hospital)[0].digest()

    # The site hears of it before it answers.
    service.submit(deletion_of("hospital-1", 3, 30, 59))

    after, said = contributed(hospital)
    assert after.digest() == contributed(never)[0].digest() != before
    assert said["last-order"] == 1


def test_nothing_is_counted_after_a_deletion(hospital: Hospital) -> None:
    sums, said = contributed(hospital)

    hospital.delete(9)

    reply = hospital.send(TALLY, {NUMBERS: left_out_weights(sums)}, **asking(said))
    assert (reply.error.code, reply.error.reason) == (
        CHANGED,
        "records were deleted while a round was under way; it is begun again",
    )


def test_arrivals_between_sums_and_tallies_are_in_the_next_round(hospital: Hospital) -> None:
    sums, said = contributed(hospital)
    left_out = left_out_weights(sums)
    before = numbers_of(hospital.send(TALLY, {NUMBERS: left_out}, **asking(said)))

    hospital.enrol(digits(range(100, 130)))

    assert numbers_of(hospital.send(TALLY, {NUMBERS: left_out}, **asking(said))).tobytes() == before.tobytes()
    again, later = contributed(hospital)
    assert again.records == len(TRAIN) + 30
    assert later["last-entry"] > said["last-entry"]


def test_site_without_a_record_has_empty_sums_and_tallies(tmp_path: Path, address: str) -> None:
    hospital = make_hospital(tmp_path, 1, solved_settings(tmp_path, address))

    sums, said = contributed(hospital)

    assert sums.records == 0
    assert said["last-entry"] == 0
    hospital.enrol(digits(range(5)))
    weights = np.zeros(COUNTED, dtype=np.int32)
    assert not numbers_of(hospital.send(TALLY, {NUMBERS: weights}, **asking(said))).any()


# Masks.


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    with running_coordinator(tmp_path / "coordinator") as running:
        yield running


@pytest.fixture
def hospitals(tmp_path: Path, coordinator: Coordinator) -> list[Hospital]:
    """Three members with some digits each."""
    settings = solved_settings(tmp_path, coordinator.address)
    return [
        make_hospital(
            tmp_path, number, settings, [digits(range(20 * number, 20 * number + 20))], coordinator=coordinator
        )
        for number in (1, 2, 3)
    ]


def round_of(hospitals: list[Hospital], *, seconds: float = 0.0, tail: str = "round") -> dict[str, Any]:
    certificates = {}
    for hospital in hospitals:
        reply = hospital.send(ANNOUNCE)
        certificates[str(reply.content.config_records[SITE][SITE])] = str(config_of(reply)["certificate"])
    return {"round_id": f"{time.time_ns() + int(seconds * 1e9)}-{tail}", "participants": json.dumps(certificates)}


def test_masked_sums_tell_the_total_only(hospitals: list[Hospital]) -> None:
    about = round_of(hospitals)

    replies = [hospital.send(CONTRIBUTE, **about) for hospital in hospitals]

    rows = [numbers_of(reply) for reply in replies]
    plain = []
    for hospital, row in zip(hospitals, rows, strict=True):
        with hospital.folder.open() as store:
            plain.append(sum_records(store, feature_map(hospital.settings), CLASSES, permanent_only=False).sums)
        with pytest.raises(InvalidWeights):
            Sums.from_numbers(row, SHAPE)
        assert not (row == plain[-1].to_numbers()).any()
    total = Sums.from_numbers(np.sum(rows, axis=0, dtype=np.uint64), SHAPE)
    assert total.digest() == plain[0].plus(plain[1]).plus(plain[2]).digest()
    with pytest.raises(InvalidWeights):
        Sums.from_numbers(rows[0] + rows[1], SHAPE)

    left_out = left_out_weights(total)
    counted = [
        numbers_of(hospital.send(TALLY, {NUMBERS: left_out}, **about, **asking(config_of(reply))))
        for hospital, reply in zip(hospitals, replies, strict=True)
    ]
    tallies = np.sum(counted, axis=0, dtype=np.uint64).view(np.int64).reshape(len(RIDGES), -1)
    assert 0 < tallies[0, 0] <= total.records == 60
    assert all((row.view(np.int64) > 10**9).any() for row in counted)


def test_round_is_used_once(hospitals: list[Hospital]) -> None:
    about, earlier = round_of(hospitals), round_of(hospitals, seconds=-5)
    first = hospitals[0].send(CONTRIBUTE, **about)
    assert first.has_content()

    repeated = "the round repeats an earlier one, whose masks must not be used again; begin another"
    assert reason_of(hospitals[0].send(CONTRIBUTE, **about)) == repeated
    assert reason_of(hospitals[0].send(CONTRIBUTE, **{**about, "round_id": f"{about['round_id']}-other"})) == repeated
    assert reason_of(hospitals[0].send(CONTRIBUTE, **earlier)) == repeated
    assert hospitals[0].send(CONTRIBUTE, **round_of(hospitals)).has_content()


def test_tallies_of_a_round_are_masked_once(hospitals: list[Hospital]) -> None:
    # Under one mask the difference of two tallies is the site's own, for weights of the coordinator's choice.
    about = round_of(hospitals)
    asked = {**about, **asking(config_of(hospitals[0].send(CONTRIBUTE, **about)))}
    weights = {NUMBERS: np.zeros(COUNTED, dtype=np.int32)}
    other = {**asked, "round_id": round_of(hospitals)["round_id"]}

    assert "other records than this round's sums" in reason_of(hospitals[0].send(TALLY, weights, **other))
    first = numbers_of(hospitals[0].send(TALLY, weights, **asked))
    assert numbers_of(hospitals[0].send(TALLY, weights, **asked)).tobytes() == first.tobytes()
    weights[NUMBERS] += 1
    assert "counts of other weights than before in this round" in reason_of(hospitals[0].send(TALLY, weights, **asked))


@pytest.mark.parametrize("seconds", [-700, 700])
def test_round_of_another_time_is_refused(hospitals: list[Hospital], seconds: float) -> None:
    reason = reason_of(hospitals[0].send(CONTRIBUTE, **round_of(hospitals, seconds=seconds)))

    assert "the round began more than 600 s before or after this machine's time; check both machines' clocks" in reason


@pytest.mark.parametrize("round_id", ["", "now", "-1-x", "²-x", "1" * 21, None])
def test_round_without_a_time_is_refused(hospitals: list[Hospital], round_id: str | None) -> None:
    about = {name: value for name, value in {**round_of(hospitals), "round_id": round_id}.items() if value is not None}

    assert "the round has no id that masks could be made for" in reason_of(hospitals[0].send(CONTRIBUTE, **about))


def test_round_that_does_not_say_who_takes_part_is_refused(hospitals: list[Hospital]) -> None:
    about = round_of(hospitals)
    del about["participants"]

    changes: list[dict[str, Any]] = [{}, *({"participants": said} for said in ("", "[]", "3", "no"))]
    for change in changes:
        reason = reason_of(hospitals[0].send(CONTRIBUTE, **about, **change))
        assert "the round does not say who takes part, so no masks can be made" in reason


def test_foreign_participants_are_refused(hospitals: list[Hospital], coordinator: Coordinator, tmp_path: Path) -> None:
    about = round_of(hospitals)
    announced: dict[str, str] = json.loads(about["participants"])
    old = make_identity(coordinator.authority, tmp_path / "old", name="hospital-3", start=utc_now() - timedelta(days=2))
    with running_coordinator(tmp_path / "elsewhere") as elsewhere:
        foreign = elsewhere.member("hospital-3").certificate_file.read_text()
    for change, reason in (
        ({"hospital-3": foreign}, "'hospital-3' in a round was not signed by the authority"),
        ({"hospital-3": (old / CERTIFICATE_FILE).read_text()}, "'hospital-3' in a round is not valid now"),
        ({"hospital-4": announced["hospital-3"]}, "'hospital-4' in a round is that of somebody else"),
        ({"hospital-3": "text"}, "the certificate of 'hospital-3' in a round"),
    ):
        asked = {**about, "participants": json.dumps({**announced, **change})}
        assert reason in reason_of(hospitals[0].send(CONTRIBUTE, **asked))
    others = {name: pem for name, pem in announced.items() if name != "hospital-1"}
    fourth = coordinator.member("hospital-4").certificate_file.read_text()
    asked = {**about, "participants": json.dumps({**others, "hospital-4": fourth})}
    assert "hospital-1 is not among the sites of this round" in reason_of(hospitals[0].send(CONTRIBUTE, **asked))


def test_fewer_than_three_need_the_sites_own_leave(hospitals: list[Hospital]) -> None:
    reason = reason_of(hospitals[0].send(CONTRIBUTE, **round_of(hospitals[:2])))

    assert reason.startswith("2 sites take part: of fewer than 3 each would learn the others' sums")
    hospitals[0].node_config["insecure-sums"] = True
    assert hospitals[0].send(CONTRIBUTE, **round_of(hospitals[:2])).has_content()


@pytest.mark.parametrize("point", ["contribute.summed", "contribute.masked", "tally.counted"])
def test_site_that_is_killed_takes_part_in_the_next_round(hospitals: list[Hospital], point: str) -> None:
    about = round_of(hospitals)
    weights = {NUMBERS: np.zeros(COUNTED, dtype=np.int32)}
    with killed_at(point):
        reply = hospitals[0].send(CONTRIBUTE, **about)
        hospitals[0].send(TALLY, weights, **about, **asking(config_of(reply)))

    # Its masks may have been seen, so it does not make them again.
    assert "repeats an earlier one" in reason_of(hospitals[0].send(CONTRIBUTE, **about))
    again = round_of(hospitals)
    reply = hospitals[0].send(CONTRIBUTE, **again)
    assert hospitals[0].send(TALLY, weights, **again, **asking(config_of(reply))).has_content()


@pytest.mark.parametrize(("point", "kept"), [("release.received", False), ("release.written", True)])
def test_site_that_is_killed_has_the_old_weights_or_the_new_ones(hospital: Hospital, point: str, kept: bool) -> None:
    old = released(contributed(hospital)[0], hospital)
    give(hospital, old)
    hospital.delete(9)
    new = released(contributed(hospital)[0], hospital)

    with killed_at(point):
        give(hospital, new)

    assert read_release(hospital.folder.shared_weights).digest() == (new if kept else old).digest()
    assert give(hospital, new).has_content()
    assert read_release(hospital.folder.shared_weights).digest() == new.digest()
