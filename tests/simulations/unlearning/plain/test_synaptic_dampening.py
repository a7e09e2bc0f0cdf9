"""Selective synaptic dampening, with importances and dampened weights that are computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmunkey.simulations.federation.plain_models import Examples
from fedmunkey.simulations.unlearning.method import weights_bytes
from fedmunkey.simulations.unlearning.plain.local_epochs import shares_of
from fedmunkey.simulations.unlearning.plain.synaptic_dampening import (
    SynapticDampening,
    dampen,
    mean_importances,
    squared_gradients,
)
from tests.simulations.unlearning.small_case import BUDGET, forget, loss, same, small_case, trained, weights

SELECTIVE = SynapticDampening(alpha=4.0, dampening=0.5)


def joined(parts: Sequence[Examples]) -> Examples:
    return reduce(Examples.joined, parts)


def named(*values: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(values)}


def test_weights_above_the_threshold_are_dampened_and_no_others_and_none_grows() -> None:
    before, of_all = named(3.0, -2.0, 5.0, 7.0), named(1.0, 1.0, 0.5, 0.0)

    after = dampen(before, of_all, named(20.0, 10.0, 8.0, 0.0), alpha=10.0, dampening=1.0)
    strong = dampen(named(2.0, 2.0), named(1.0, 1.0), named(20.0, 40.0), alpha=10.0, dampening=30.0)

    # 3 * 1 / 20; 10 is not above 10 * 1; 5 * 0.5 / 8; what matters for nothing stays.
    assert after["w"].tolist() == [pytest.approx(0.15), -2.0, 0.3125, 7.0]
    assert before["w"].tolist() == [3.0, -2.0, 5.0, 7.0]
    assert strong["w"].tolist() == [2.0, 1.5]


def test_importance_is_the_squared_gradient_of_each_record_by_itself() -> None:
    model = nn.Linear(1, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    records = Examples(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1, 0]))

    sums = squared_gradients(model, records)

    # Both classes have 0.5: the gradient of a bias is 0.5 or -0.5, that of a weight is as much times the input. Those
    # of the first two records would cancel if they were added before squaring.
    assert sums["bias"].tolist() == pytest.approx([0.75, 0.75])
    assert sums["weight"].flatten().tolist() == pytest.approx([0.25 * (1 + 4 + 16)] * 2)


def test_importances_of_the_transformer_are_those_of_batches_of_one() -> None:
    model = trained().model
    forgotten = next(share.forgotten for share in shares_of(small_case()).values())
    expected = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for one in forgotten.parts(1):
        gradients = torch.autograd.grad(F.cross_entropy(model(one.inputs), one.labels), list(model.parameters()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient.square()

    found = squared_gradients(model, forgotten)

    assert len(forgotten) > 1
    assert found.keys() == model.state_dict().keys()
    for name, importance in found.items():
        assert torch.allclose(importance, expected[name], rtol=1e-3, atol=1e-10)


def test_server_divides_what_hospitals_send_by_all_their_records() -> None:
    mean = mean_importances([named(1.0, 2.0), named(3.0, 0.0)], 8)

    assert mean["w"].tolist() == [0.5, 0.25]


def test_hospitals_together_dampen_as_one_with_all_their_records_would() -> None:
    case, model = small_case(), trained().model
    everything = [joined([share.retained, share.forgotten]) for share in shares_of(case).values()]
    forgotten = joined([share.forgotten for share in shares_of(case).values()])
    of_all = mean_importances([squared_gradients(model, joined(everything))], 72)
    of_forgotten = mean_importances([squared_gradients(model, forgotten)], len(forgotten))
    expected = dampen(model.state_dict(), of_all, of_forgotten, alpha=4.0, dampening=0.5)

    found = weights(forget(SELECTIVE, case))

    assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-6) for name in found)


def test_weights_that_are_not_dampened_stay_as_they_are_to_the_last_bit() -> None:
    before, after = weights(trained()), weights(forget(SELECTIVE, small_case()))

    changed = torch.cat([(before[name] != after[name]).flatten() for name in before])
    shrunk = torch.cat([(after[name].abs() < before[name].abs()).flatten() for name in before])

    assert torch.equal(changed, shrunk)
    assert 0 < changed.float().mean() < 0.5


def test_it_forgets_a_class_and_little_else() -> None:
    case = small_case(digit=1)

    after = forget(SynapticDampening(alpha=5.0), case)

    assert loss(after, case.forget_records()) > 5 * loss(trained(), case.forget_records())
    assert loss(after, case.retained()) < 1.5 * loss(trained(), case.retained())


def test_nothing_is_dampened_where_the_forgotten_share_is_above_one_in_alpha() -> None:
    case = small_case()
    share = sum(map(len, case.forgotten.values())) / 72

    assert same(weights(forget(SynapticDampening(alpha=1 / share * 1.001), case)), weights(trained()))


@pytest.mark.parametrize(
    ("whole_site", "messages"),
    # Importances of all records, of forgotten ones, and weights back.
    [(False, 3 + 2 + 3), (True, 3 + 1 + 2)],
)
def test_importances_go_up_and_weights_come_back(whole_site: bool, messages: int) -> None:
    case = small_case(whole_site=whole_site)

    done = SELECTIVE.forget(trained(), case, BUDGET)

    assert done.bytes_sent == messages * weights_bytes(trained().model)
    assert len(done.answers.sites) == (2 if whole_site else 3)
