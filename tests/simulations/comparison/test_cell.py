"""One cell: a family is trained once, and each of its methods forgets the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model_choice import choose_shape, initial_model
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.comparison import cell as cell_module
from fedmunkey.simulations.comparison.cell import Outcome, run_cell
from fedmunkey.simulations.federation.case import Case, seen_although_forgotten
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.unlearning.method import Budget
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily
from fedmunkey.simulations.unlearning.registry import METHODS
from fedmunkey.simulations.unlearning.retraining import Retraining


@pytest.fixture
def question(settings: Settings) -> Question:
    return Question(settings.replace(random_features=50), 3, math.inf, 0.3, 0.2, "random+canaries", Budget(1))


def test_scanners_and_sizes_change_what_every_method_is_asked(question: Question, everything: Encoded) -> None:
    plain, sized = question.case(everything, 0), replace(question, alpha=0.3, divide_by=DivideBy.SIZES)
    shifted = replace(question, feature_shift=1.0).case(everything, 0)

    sizes = [len(hospital.given.split(Split.TRAIN).records) for hospital in sized.case(everything, 0).hospitals]

    assert max(sizes) > 1.5 * min(sizes)
    for ours, scanned in zip(plain.hospitals, shifted.hospitals, strict=True):
        assert ours.given.records.record_ids.tolist() == scanned.given.records.record_ids.tolist()
        assert (ours.given.records.images != scanned.given.records.images).any()
        assert not ours.given.encoding.keys.equal(scanned.given.encoding.keys)


def run(question: Question, images: Encoded, names: Sequence[str], seed: int) -> list[Outcome]:
    return run_cell(question, images, [METHODS[name] for name in names], seed)


def without_times(outcomes: list[Outcome]) -> list[str]:
    return [repr(replace(outcome, train_seconds=0.0, forget_seconds=0.0)) for outcome in outcomes]


@pytest.mark.parametrize("family", sorted({method.family.name for method in METHODS.values()}))
def test_every_method_of_a_family_has_an_outcome(question: Question, everything: Encoded, family: str) -> None:
    names = [name for name, method in METHODS.items() if method.family.name == family]

    found = run(question, everything, names, 0)

    assert [outcome.method for outcome in found] == names
    for outcome in found:
        assert outcome.seed == 0
        assert 0 <= outcome.after.test_accuracy <= 100
        assert outcome.train_seconds > 0
        assert outcome.before == found[0].before
        assert outcome.oracle == found[0].oracle


def test_nothing_done_leaves_everything_and_empirical_deletion_has_no_bound(
    question: Question, everything: Encoded
) -> None:
    (nothing,) = run(question, everything, ["nothing"], 0)
    (empirical,) = run(question, everything, ["munkey-empirical"], 0)

    assert nothing.after == nothing.before
    assert math.isnan(nothing.identical)
    assert math.isnan(nothing.epsilon)
    assert math.isnan(empirical.epsilon)
    assert empirical.identical == 0
    weights = initial_model(choose_shape(question.settings), 0).state_dict().values()
    assert empirical.training_bytes == 2 * 3 * question.settings.rounds * sum(weight.nbytes for weight in weights)


def test_exact_deletion_leaves_the_bytes_of_the_oracle(question: Question, everything: Encoded) -> None:
    (exact,) = run(question, everything, ["munkey-exact"], 0)

    assert exact.after == exact.oracle
    assert exact.gap == exact.epsilon == 0
    assert exact.identical == 1
    # Nothing is drawn at random, and each round sends as much as the first.
    assert exact.chance == 0
    assert exact.bytes_sent == exact.training_bytes > 0


def test_certified_deletion_spends_what_was_asked(question: Question, everything: Encoded) -> None:
    settings = question.settings.replace(image_path="frozen", depth=0, epsilon=5.0, delta=1e-3)
    (certified,) = run(question.with_settings(settings), everything, ["munkey-certified"], 3)
    (noiseless,) = run(question.with_settings(settings.replace(epsilon=math.inf)), everything, ["munkey-certified"], 3)

    assert 0.8 * 5 < certified.epsilon <= 5
    assert math.isnan(noiseless.epsilon)
    assert certified.identical == noiseless.identical == 0
    assert certified.after != noiseless.after


def test_retraining_is_the_other_oracle_and_is_not_trained_twice(
    question: Question, everything: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings: list[int] = []
    honest = PlainFamily.train

    def counted(self: PlainFamily, records: Mapping[str, Encoded], settings: Settings, *rest: object) -> object:
        trainings.append(settings.seed)
        return honest(self, records, settings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PlainFamily, "train", counted)
    (found,) = run(question, everything, ["retraining"], 0)

    assert len(trainings) == 3
    case = question.case(everything, 0)
    again = Retraining().forget(PlainFamily().train(case.everything(), case.settings, case.shape), case, Budget(1))
    assert found.bytes_sent == again.bytes_sent
    assert found.chance == found.gap
    assert found.forget_seconds > 0


def test_same_seed_gives_the_same_figures(question: Question, everything: Encoded) -> None:
    names = ["nothing", "fine-tuning", "scrub"]

    first, again = (run(question, everything, names, 5) for _ in range(2))

    assert without_times(first) == without_times(again)
    assert without_times(first) != without_times(run(question, everything, names, 6))


def test_methods_of_several_families_are_refused(question: Question, everything: Encoded) -> None:
    with pytest.raises(ValueError, match="nothing, sisa are not of one family"):
        run(question, everything, ["nothing", "sisa"], 0)


def test_oracle_that_would_see_a_forgotten_record_stops_the_cell(
    question: Question, everything: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:

    def with_everything(case: Case, seen: Mapping[str, Encoded]) -> int:
        del seen
        return seen_although_forgotten(case, {h.name: h.given.split(Split.TRAIN) for h in case.hospitals})

    monkeypatch.setattr(cell_module, "seen_although_forgotten", with_everything)

    with pytest.raises(AssertionError, match="records that are to be forgotten"):
        run(question, everything, ["nothing"], 0)
