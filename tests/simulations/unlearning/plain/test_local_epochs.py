"""Federated averaging from trained weights with a method's own loss."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from fedmunkey.common.model.randomness import generator
from fedmunkey.simulations.federation.federated_loop import average
from fedmunkey.simulations.federation.plain_models import Examples, Loss, task_loss, train_plain
from fedmunkey.simulations.unlearning.method import Budget, weights_bytes
from fedmunkey.simulations.unlearning.plain import local_epochs
from fedmunkey.simulations.unlearning.plain.local_epochs import Epoch, Share, shares_of, unlearn
from tests.simulations.unlearning.small_case import SETTINGS, same, small_case, trained, weights

RECORDS = Examples(torch.arange(5)[:, None], torch.arange(5) % 2)


def on_retained(share: Share, epoch: Epoch, draws: torch.Generator) -> Iterator[Loss]:
    del epoch
    for batch in share.retained.batches(SETTINGS.batch_size, draws):
        yield partial(task_loss, records=batch, settings=SETTINGS)


def test_batches_hold_each_record_once_with_its_label() -> None:
    batches = list(RECORDS.batches(2, torch.Generator().manual_seed(0)))

    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert sorted(int(number) for batch in batches for number in batch.inputs) == [0, 1, 2, 3, 4]
    assert all(torch.equal(batch.inputs[:, 0] % 2, batch.labels) for batch in batches)
    assert not list(Examples(RECORDS.inputs[:0], RECORDS.labels[:0]).batches(2, torch.Generator()))


def test_shares_are_the_retained_and_the_forgotten_training_records() -> None:
    case = small_case()

    for name, share in shares_of(case).items():
        assert torch.equal(share.retained.labels, torch.from_numpy(case.retained()[name].records.labels))
        assert torch.equal(share.forgotten.inputs, torch.from_numpy(case.forget_records()[name].records.images))
        assert len(share) == len(case.everything()[name].records)
        assert not len(share.without_forgotten().forgotten)


def test_steps_are_those_of_training_at_the_methods_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_epochs, "RATE", 1.0)
    shares = {name: share.without_forgotten() for name, share in shares_of(small_case()).items()}
    settings = SETTINGS.replace(num_rounds=1)
    sent, examples = [], []
    for name, share in shares.items():
        local = copy.deepcopy(trained().model)
        draws = generator(SETTINGS.seed, "a method", name, 1)
        examples.append(train_plain(local, share.retained.inputs, share.retained.labels, settings, 1, draws))
        sent.append(local.state_dict())

    done = unlearn(trained(), shares, SETTINGS, Budget(1), "a method", on_retained)

    assert same(weights(done.answers), average(sent, examples))


def test_epochs_are_counted_over_all_rounds() -> None:
    seen = []

    def note(share: Share, epoch: Epoch, draws: torch.Generator) -> Iterator[Loss]:
        seen.append(epoch)
        return on_retained(share, epoch, draws)

    (name, share), *_ = shares_of(small_case()).items()
    unlearn(trained(), {name: share}, SETTINGS.replace(local_epochs=2), Budget(3), "a method", note)

    assert seen == [Epoch(number, 6) for number in range(1, 7)]


def test_hospital_without_a_step_has_no_part() -> None:
    shares = shares_of(small_case(whole_site=True))
    first, *others = shares
    assert not len(shares[first].retained)

    with_it = unlearn(trained(), shares, SETTINGS, Budget(1), "a method", on_retained)
    without = unlearn(trained(), {name: shares[name] for name in others}, SETTINGS, Budget(1), "a method", on_retained)

    assert same(weights(with_it.answers), weights(without.answers))
    assert with_it.answers.sites == set(others)
    assert with_it.bytes_sent == without.bytes_sent == 2 * 2 * weights_bytes(trained().model)
