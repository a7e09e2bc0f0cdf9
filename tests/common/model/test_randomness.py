from __future__ import annotations

import itertools

import torch

from fedmunkey.common.model.randomness import derive_seed, generator


def test_seed_is_a_function_of_run_seed_and_names() -> None:
    # A fixed number, because the same seed must give the same run on another machine too.
    assert derive_seed(0, "train", 3) == derive_seed(0, "train", 3) == 6001875794698332171


def test_different_streams_have_different_seeds() -> None:
    names: list[tuple[str | int, ...]] = [(), ("a",), ("b",), ("a", "b"), ("a/b",), ("b", "a"), ("a", ""), (1,), (2, 3)]
    seeds = {derive_seed(seed, *stream) for seed, stream in itertools.product((0, 1, 10, 12), names)}

    assert len(seeds) == 4 * len(names)
    assert derive_seed(12, 3) not in seeds


def test_seed_has_63_bits() -> None:
    seeds = [derive_seed(seed) for seed in range(200)]

    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) >= 2**62


def test_generator_draws_its_own_stream_whatever_else_is_drawn() -> None:
    first = torch.rand(5, generator=generator(7, "site", "a"))
    torch.manual_seed(0)
    torch.rand(3)

    assert torch.equal(first, torch.rand(5, generator=generator(7, "site", "a")))
    assert not torch.equal(first, torch.rand(5, generator=generator(7, "site", "b")))
    assert not torch.equal(first, torch.rand(5, generator=generator(8, "site", "a")))
