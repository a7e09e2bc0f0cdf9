from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from scipy import stats

from fedmunkey.client.learning.secret_noise import SecretNoise

KEY = bytes(range(32))
# How unlikely, under the right distribution, the numbers of a test may be; their key is fixed, so it never flickers.
UNLIKELY = 1e-3


def test_stream_is_a_function_of_key_and_labels() -> None:
    # Fixed numbers, because a site that resumes on another machine must draw the same noise.
    first = SecretNoise(KEY, "noise", 3).uniform(2)

    assert first.tolist() == SecretNoise(KEY, "noise", 3).uniform(2).tolist()
    assert first.tolist() == [0.8829421562394112, 0.16547203641740438]


def test_other_keys_and_labels_give_other_streams() -> None:
    labels: list[tuple[str | int, ...]] = [(), ("",), ("ab", "c"), ("a", "bc"), ("abc",), ('a","bc',), ("é",)]
    labels += [(1,), ("1",), (1, 1), (11,)]
    keys = [KEY, KEY[::-1], KEY[:16]]
    streams = {tuple(SecretNoise(key, *names).uniform(2)) for key, names in itertools.product(keys, labels)}

    assert len(streams) == len(keys) * len(labels)


@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("counts", [(5, 5), (1, 0, 9), (3, 4, 3)])
def test_calls_continue_the_stream(draw: str, counts: tuple[int, ...]) -> None:
    noise = SecretNoise(KEY, "continued")
    pieces = [np.asarray(getattr(noise, draw)(count)) for count in counts]

    whole = np.asarray(getattr(SecretNoise(KEY, "continued"), draw)(10))
    assert np.concatenate(pieces).tolist() == whole.tolist()
    # Normal and uniform numbers come from the same stream.
    assert noise.uniform(2).tolist() == SecretNoise(KEY, "continued").uniform(12)[10:].tolist()


def test_uniform_numbers_are_uniform() -> None:
    numbers = SecretNoise(KEY, "uniform").uniform(100_000)

    assert numbers.dtype == np.float64
    assert 0 < numbers.min() < numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > UNLIKELY
    assert stats.chisquare(np.histogram(numbers, 256, (0, 1))[0]).pvalue > UNLIKELY
    lowest_bits = (np.floor(numbers * 2.0**52) % 256).astype(int)
    assert stats.chisquare(np.bincount(lowest_bits, minlength=256)).pvalue > UNLIKELY


@pytest.mark.parametrize(("byte", "number"), [(b"\x00", 2.0**-53), (b"\xff", 1 - 2.0**-53)])
def test_uniform_numbers_reach_neither_end(byte: bytes, number: float) -> None:
    class Stuck:
        def update(self, data: bytes) -> bytes:
            return byte * len(data)

    noise = SecretNoise(KEY)
    noise._keystream = Stuck()  # type: ignore[assignment]

    assert noise.uniform(1).tolist() == [number]
    assert 8.2 < abs(noise.normal(1).item()) < 8.3


def test_normal_numbers_are_standard_normal() -> None:
    numbers = SecretNoise(KEY, "normal").normal(100_000)

    assert numbers.dtype == torch.float32
    assert numbers.shape == (100_000,)
    assert stats.kstest(numbers.double().numpy(), "norm").pvalue > UNLIKELY
    assert stats.kurtosistest(numbers.double().numpy()).pvalue > UNLIKELY


def test_every_stream_is_as_random_as_chance_would_have_it() -> None:
    # Streams that are each too even, or too uneven, pass a test of one of them, but not one of all their p-values.
    chances = [stats.kstest(SecretNoise(KEY, "one of", i).uniform(2_000), "uniform").pvalue for i in range(200)]

    assert stats.kstest(chances, "uniform").pvalue > UNLIKELY


def test_streams_and_neighbours_in_a_stream_are_uncorrelated() -> None:
    streams = [SecretNoise(KEY, "site", index).normal(50_000).double().numpy() for index in range(4)]

    between = np.corrcoef(streams) - np.eye(4)
    within = [np.corrcoef(numbers[:-1], numbers[1:])[0, 1] for numbers in streams]
    assert np.abs(between).max() < 4.5 / np.sqrt(50_000)
    assert np.abs(within).max() < 4.5 / np.sqrt(50_000)


def test_global_generators_are_neither_read_nor_moved() -> None:
    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]

    torch.manual_seed(0)
    before = states()
    first = SecretNoise(KEY).normal(10)
    assert states() == before

    torch.manual_seed(1)
    assert torch.equal(first, SecretNoise(KEY).normal(10))


def test_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes, not 15"):
        SecretNoise(bytes(15))
