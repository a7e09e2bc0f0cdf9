from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.simulations.run.plan import (
    DeletionKind,
    PlannedDeletion,
    ResolvedDeletion,
    forget_rows,
    parse_plan,
    resolve,
)
from tests.simulations.tiny_hospitals import records_of


def hospital(name: str, subjects: list[str], held_out: int = 2) -> Dataset:
    """Return one training record for each of the subjects, after some held-out records of the first of them."""
    splits = ["test"] * held_out + ["train"] * len(subjects)
    return records_of(name, splits, subjects=[subjects[0]] * held_out + subjects)


def federation(*counts: int) -> list[Dataset]:
    """Return hospitals with this many training records, two of each subject."""
    return [hospital(f"h{at}", [f"{at}-{row // 2}" for row in range(count)]) for at, count in enumerate(counts)]


def partly_permanent(*counts: int) -> list[Dataset]:
    """Return a federation in which every other subject has given the records for good."""
    hospitals = federation(*counts)
    for dataset in hospitals:
        given = [int(subject.partition("-")[2]) % 2 == 1 for subject in dataset.subject_ids.tolist()]
        dataset.consents[given] = Consent.PERMANENT.value
    return hospitals


def drawn(texts: list[str], hospitals: list[Dataset], seed: int = 0) -> tuple[ResolvedDeletion, ...]:
    return resolve(parse_plan(texts, hospitals=len(hospitals), num_rounds=9), hospitals, seed)


def refused(texts: list[str], hospitals: list[Dataset]) -> str:
    with pytest.raises(InvalidDeletion) as caught:
        drawn(texts, hospitals)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_every_form_and_is_in_the_order_in_which_deletions_happen() -> None:
    texts = ["records:5%@1", "records:40@2", "subjects:10@3", "subjects:2.5%@4", "site:2@5"]

    plan = parse_plan(texts, hospitals=5, num_rounds=5)
    unordered = parse_plan(["site:1@4", "records:1@2", "subjects:1@4"], hospitals=2, num_rounds=9)

    assert plan == (
        PlannedDeletion(DeletionKind.RECORDS, 1, fraction=0.05),
        PlannedDeletion(DeletionKind.RECORDS, 2, count=40),
        PlannedDeletion(DeletionKind.SUBJECTS, 3, count=10),
        PlannedDeletion(DeletionKind.SUBJECTS, 4, fraction=0.025),
        PlannedDeletion(DeletionKind.SITE, 5, hospital=2),
    )
    assert [str(planned) for planned in plan] == texts
    assert [str(planned) for planned in unordered] == ["records:1@2", "site:1@4", "subjects:1@4"]


@given(st.sampled_from(["records", "subjects"]), st.decimals(0, 100, places=3).filter(bool), st.integers(1, 9))
def test_percentage_is_written_as_it_was_read(kind: str, percent: object, round_number: int) -> None:
    (planned,) = parse_plan([f"{kind}:{percent}%@{round_number}"], hospitals=1, num_rounds=9)

    assert parse_plan([str(planned)], hospitals=1, num_rounds=9) == (planned,)


OUTSIDE = """records records:5 records@3 patients:5@3 records:-5@3 records:5% records:5@ records:@3 records:1.5@3
site:2%@3 site:1.0@3 records:5@3@4 records:5@3.0 records:nan%@3 records:٣@3 records:10@3#2"""


@pytest.mark.parametrize("text", ["", *OUTSIDE.split(), "records:5@3\nsite:1@2", f"records:{'9' * 5000}@3"])
def test_text_outside_the_grammar_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(InvalidDeletion) as caught:
        parse_plan([text], hospitals=5, num_rounds=9)

    assert "not of the form kind:amount@round; write for example records:5%@3" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["records:5@0"], "there is no round 0; choose a round from 1 to 9"),
        (["records:5@10"], "there is no round 10; choose a round from 1 to 9"),
        (["site:7@3"], "names hospital 7, but there are 5"),
        (["site:0@3"], "names hospital 0, but there are 5"),
        (["records:0%@3"], "0% is out of range"),
        (["subjects:100.1%@3"], "100.1% is out of range"),
        (["records:0@3"], "deletes no records"),
        (["site:2@5", "site:2@3"], "hospital 2 is deleted twice"),
    ],
)
def test_values_out_of_range_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InvalidDeletion) as caught:
        parse_plan(texts, hospitals=5, num_rounds=9)

    assert str(caught.value).startswith(f"{texts[0]}: {message}")


@pytest.mark.parametrize(
    ("texts", "expected", "subjects"),
    [
        (["records:50%@1", "records:25%@2"], [20, 10], 0),
        (["subjects:10%@1"], [4], 2),
        (["records:0.001%@1"], [1], 0),
    ],
)
def test_percentage_is_of_those_at_the_beginning_and_of_at_least_one(
    texts: list[str], expected: list[int], subjects: int
) -> None:
    deletions = drawn(texts, federation(12, 28))

    assert [sum(deletion.expected) for deletion in deletions] == expected
    assert len(deletions[0].subjects) == subjects


def test_only_training_records_are_erased_and_none_twice() -> None:
    hospitals = federation(12, 28)

    deletions = drawn(["records:10@1", "subjects:5@2", "site:1@3", "records:3@3"], hospitals)

    for index, dataset in enumerate(hospitals):
        rows = np.concatenate([deletion.rows[index] for deletion in deletions])
        assert set(dataset.splits[rows]) == {Split.TRAIN.value}
        assert len(set(rows.tolist())) == len(rows)


def test_subject_is_erased_wherever_it_has_records() -> None:
    hospitals = [hospital("h1", ["both", "both"]), hospital("h2", ["both", "other"])]

    tried = (drawn(["subjects:1@1"], hospitals, seed)[0] for seed in range(20))
    deletion = next(deletion for deletion in tried if deletion.subjects == ("both",))

    assert [rows.tolist() for rows in deletion.rows] == [[2, 3], [2]]
    assert deletion.expected == (2, 1)


def test_subject_without_training_records_or_whose_records_were_all_deleted_is_not_drawn() -> None:
    dataset = hospital("h1", ["a", "b", "c"])
    dataset.subject_ids[:2] = "z"

    (deletion,) = drawn(["subjects:2@1"], [dataset])
    first, second = drawn(["subjects:3@1", "subjects:2@2"], federation(6, 6))

    assert "z" not in deletion.subjects
    assert not set(first.subjects) & set(second.subjects)


def test_site_loses_all_training_records_that_it_still_has_whatever_the_consent() -> None:
    hospitals = partly_permanent(12, 28)

    records, site = drawn(["records:6@1", "site:2@2"], hospitals)

    assert site.expected == (0, 28 - records.expected[1])
    assert sorted([*records.rows[1], *site.rows[1]]) == list(range(2, 30))
    assert set(hospitals[1].consents[site.rows[1]]) == {"revocable", "permanent"}


@pytest.mark.parametrize("texts", [["records:10@1"], ["subjects:5@1"], ["records:25%@1"]])
def test_only_what_may_be_withdrawn_is_drawn(texts: list[str]) -> None:
    hospitals = partly_permanent(12, 28)

    for seed in range(20):
        (deletion,) = drawn(texts, hospitals, seed)
        assert sum(deletion.expected) == 10
        for dataset, rows in zip(hospitals, deletion.rows, strict=True):
            assert set(dataset.consents[rows]) <= {Consent.REVOCABLE.value}


def test_percentage_of_records_is_of_all_and_that_of_subjects_is_of_those_that_may_be_withdrawn() -> None:
    records, subjects = (drawn([text], partly_permanent(12, 28))[0] for text in ("records:25%@1", "subjects:50%@1"))

    assert sum(records.expected) == 10
    assert len(subjects.subjects) == 5


def test_subject_with_a_permanent_record_goes_whole() -> None:
    dataset = hospital("h1", ["mixed", "mixed", "given", "given"], held_out=0)
    dataset.consents[1:] = Consent.PERMANENT.value

    (deletion,) = drawn(["subjects:1@1"], [dataset])

    assert deletion.subjects == ("mixed",)
    assert deletion.rows[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("texts", "make", "message"),
    [
        (["records:21@1"], partly_permanent, "asks for 21 records, but only 20 are left"),
        (["subjects:11@1"], partly_permanent, "asks for 11 subjects, but only 10 are left"),
        (["records:60%@1"], partly_permanent, "asks for 24 records, but only 20 are left"),
        (["records:30@1", "records:11@2"], federation, "asks for 11 records, but only 10 are left"),
        (["site:1@1", "subjects:15@2"], federation, "asks for 15 subjects, but only 14 are left"),
    ],
)
def test_asking_for_more_than_may_be_withdrawn_says_how_many_may(
    texts: list[str], make: Callable[..., list[Dataset]], message: str
) -> None:
    assert refused(texts, make(12, 28)).startswith(f"{texts[-1]}: {message} that may be withdrawn")


def test_same_seed_draws_the_same_records_and_another_seed_others() -> None:
    first, same, other = (forget_rows(drawn(["records:10@1"], federation(40, 40), seed), 2) for seed in (0, 0, 1))

    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in same]
    assert [rows.tolist() for rows in first] != [rows.tolist() for rows in other]


def test_records_are_drawn_from_all_hospitals_by_their_size() -> None:
    counts = np.sum([drawn(["records:10@1"], federation(10, 30), seed)[0].expected for seed in range(100)], axis=0)

    assert 0.2 < counts[0] / counts.sum() < 0.3


def test_forget_rows_join_all_deletions() -> None:
    hospitals = federation(12, 28)
    deletions = drawn(["records:10@1", "site:1@3"], hospitals)

    together = forget_rows(deletions, len(hospitals))

    assert together[0].tolist() == list(range(2, 14))
    assert together[1].tolist() == deletions[0].rows[1].tolist()
    assert [rows.tolist() for rows in forget_rows([], 2)] == [[], []]


@pytest.mark.parametrize(
    "texts", [["records:100%@1"], ["subjects:20@3"], ["site:1@1", "site:2@2"], ["records:10@1", "records:30@2"]]
)
def test_plan_that_leaves_no_record_anywhere_is_refused(texts: list[str]) -> None:
    message = refused(texts, federation(12, 28))

    assert message == f"{texts[-1]}: leaves no training record at any hospital; delete less"


def test_deleting_a_hospital_that_has_nothing_left_is_refused() -> None:
    hospitals = [hospital("h1", ["a"]), hospital("h2", ["b"] * 9)]
    plan = parse_plan(["subjects:1@1", "site:1@2"], hospitals=2, num_rounds=2)
    seed = next(seed for seed in range(20) if resolve(plan[:1], hospitals, seed)[0].subjects == ("a",))

    with pytest.raises(InvalidDeletion, match="site:1@2: hospital 1 has no training record left"):
        resolve(plan, hospitals, seed)
