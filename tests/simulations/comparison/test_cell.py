"""One cell: a family is trained once, and each of its methods forgets the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from fedmunkey.client.dataset import Split
from fedmunkey.common.settings import Settings
from fedmunkey.simulations.case import Case, seen_although_forgotten
from fedmunkey.simulations.comparison import cell as cell_module
from fedmunkey.simulations.comparison.cell import Outcome, run_cell
from fedmunkey.simulations.hospitals import Encoded
from fedmunkey.simulations.question import Question
from fedmunkey.simulations.unlearning.method import Budget
from fedmunkey.simulations.unlearning.plain_vit import PlainFamily
from fedmunkey.simulations.unlearning.registry import METHODS
from fedmunkey.simulations.unlearning.retraining import Retraining


@pytest.fixture
def question(settings: Settings) -> Question:
    return Question(settings.replace(fewest_permanent=1), 3, math.inf, 0.3, 0.2, "random+canaries", Budget(1))


def by_method(outcomes: list[Outcome]) -> dict[str, Outcome]:
    return {outcome.method: outcome for outcome in outcomes}


def without_times(outcomes: list[Outcome]) -> list[str]:
    return [repr(replace(outcome, train_seconds=0.0, forget_seconds=0.0)) for outcome in outcomes]


@pytest.mark.parametrize("family", sorted({method.family.name for method in METHODS.values()}))
def test_every_method_of_a_family_has_an_outcome(question: Question, everything: Encoded, family: str) -> None:
    names = [name for name, method in METHODS.items() if method.family.name == family]

    found = run_cell(question, everything, names, 0)

    assert [outcome.method for outcome in found] == names
    for outcome in found:
        assert outcome.seed == 0
        assert 0 <= outcome.after.test_accuracy <= 100
        assert outcome.train_seconds > 0
        assert outcome.before == found[0].before
        assert outcome.oracle == found[0].oracle


def test_nothing_done_leaves_everything_and_exact_leaves_nothing(question: Question, everything: Encoded) -> None:
    plain = by_method(run_cell(question, everything, ["nothing", "retraining"], 0))
    (exact,) = run_cell(question, everything, ["munkey-exact"], 0)

    assert plain["nothing"].after == plain["nothing"].before
    assert exact.after == exact.oracle
    assert exact.gap == exact.bytes_sent == 0


def test_retraining_is_the_other_oracle_and_is_not_trained_twice(
    question: Question, everything: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings: list[int] = []
    honest = PlainFamily.train

    def counted(self: PlainFamily, records: Mapping[str, Encoded], settings: Settings, *rest: object) -> object:
        trainings.append(settings.seed)
        return honest(self, records, settings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PlainFamily, "train", counted)
    (found,) = run_cell(question, everything, ["retraining"], 0)

    assert len(trainings) == 3
    case = question.case(everything, 0)
    again = Retraining().forget(PlainFamily().train(case.everything(), case.settings, case.shape), case, Budget(1))
    assert found.bytes_sent == again.bytes_sent
    assert found.chance == found.gap
    assert found.forget_seconds > 0


def test_same_seed_gives_the_same_figures(question: Question, everything: Encoded) -> None:
    names = ["nothing", "fine-tuning", "scrub"]

    first, again = (run_cell(question, everything, names, 5) for _ in range(2))

    assert without_times(first) == without_times(again)
    assert without_times(first) != without_times(run_cell(question, everything, names, 6))


def test_methods_of_several_families_are_refused(question: Question, everything: Encoded) -> None:
    with pytest.raises(ValueError, match="nothing, sisa are not of one family"):
        run_cell(question, everything, ["nothing", "sisa"], 0)


def test_oracle_that_would_see_a_forgotten_record_stops_the_cell(
    question: Question, everything: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:

    def with_everything(case: Case, seen: Mapping[str, Encoded]) -> int:
        del seen
        return seen_although_forgotten(case, {h.name: h.given.split(Split.TRAIN) for h in case.hospitals})

    monkeypatch.setattr(cell_module, "seen_although_forgotten", with_everything)

    with pytest.raises(AssertionError, match="records that are to be forgotten"):
        run_cell(question, everything, ["nothing"], 0)
