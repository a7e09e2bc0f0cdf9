"""What a memory costs besides passes of the model: looking neighbours up, and sending shared weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fedmunkey.common.model.aggregation import Retrieved
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import nearest
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured
from fedmunkey.simulations.bench.timing import alternate, ratio
from fedmunkey.simulations.programs.machine import torch_threads

_LOOKUP = Figure("lookup-time", "looking up one query in a bank of 10,000, over the model's pass for it", "x")
_SENT = Figure("bytes-sent", "shared weights that a site sends in a round, over the features of one record", "records")

_FEATURES = (2, 512)


def _measure(bench: Bench) -> Iterator[Measured]:
    """Take the frozen path with features of two tokens of 512 numbers and keys of 1,024, one thread."""
    entries, repetitions = (200, 5) if bench.quick else (10_000, 200)
    settings = Settings(guarantee=Guarantee.CERTIFIED)
    reading = Recipe.of(settings).reading
    shape = ModelShape.of(Recipe.of(settings.replace(image_path=ImagePath.FROZEN)), _FEATURES)
    torch.manual_seed(0)
    model = Munkey(shape).eval()
    features = torch.randn(1, *_FEATURES)
    keys = torch.nn.functional.normalize(torch.randn(entries, features.numel()), dim=1)
    query = torch.nn.functional.normalize(features.flatten(1), dim=1)
    found = Retrieved(
        torch.randn(1, reading.neighbours, shape.exemplar_size),
        torch.ones(1, reading.neighbours),
        torch.ones(1, reading.neighbours, dtype=torch.bool),
    )
    actions: list[Callable[[], object]] = [
        lambda: nearest(query, keys, reading.neighbours),
        lambda: model.classify(features, found, reading),
    ]
    with (
        torch.inference_mode(),
        torch_threads(1),
        threadpool_limits(1),
        bench.progress.counting("serving", repetitions) as count,
    ):
        lookup = ratio(alternate(actions, repetitions, count, clock=time.process_time))
    note = f"K = {reading.neighbours} and the image's vote, 1 thread, processor time; the encoder's pass is left out"
    yield bench.result(_LOOKUP, lookup.median, note, **lookup.to_json())
    weights = sum(weight.nbytes for weight in model.state_dict().values())
    each = features.nbytes
    run = f"{weights * settings.rounds / each:,.0f} over a run of {settings.rounds} rounds"
    note = f"with fewer records than that, uploading their features would send fewer bytes; {run}"
    yield bench.result(_SENT, weights / each, note, weights_bytes=weights, features_bytes_each=each)


GROUP = Group("serving", (_LOOKUP, _SENT), _measure)
