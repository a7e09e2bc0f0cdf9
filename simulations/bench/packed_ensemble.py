"""The packed ensemble against separate passes and against the same transformer without a memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.timing import alternate, keep_freed_memory, ratio
from fedmunkey.simulations.federation.plain_models import PlainViT
from fedmunkey.simulations.programs.machine import torch_threads

_DIFFERENCE = Figure(
    "packed-difference", "packed ensemble, K = 4: largest difference of a logit to separate passes", "", at_most(1e-5)
)
_PACKED = Figure("packed-time", "packed ensemble, K = 4: one pass over one plain ViT pass", "x", at_most(1.3))
_VOTING = Figure(
    "packed-time-image-vote", "packed ensemble, K = 4 and the image's own vote, over one plain ViT pass", "x"
)
_SEPARATE = Figure("separate-time", "4 separate passes over one plain ViT pass", "x")

_MEMBERS = 4
_BATCHES = (64, 128, 256)


def _measure(bench: Bench) -> Iterator[Measured]:
    """Time passes of the default transformer on 28x28 images in 4x4 patches, with one thread."""
    batches = _BATCHES[:1] if bench.quick else _BATCHES
    repetitions = 3 if bench.quick else 40
    settings = Settings(
        guarantee=Guarantee.EMPIRICAL, image_shape="1x28x28", patch_size=4, image_path=ImagePath.PATCHES
    )
    shape = ModelShape.of(Recipe.of(settings), (0, 0))
    keep_freed_memory()
    torch.manual_seed(0)
    model, plain = Munkey(shape).eval(), PlainViT(shape).eval()
    # A head of zeros would make every member the same.
    torch.nn.init.normal_(model.head.weight, std=0.1)
    differences: list[float] = []
    times: dict[int, NDArray[np.float64]] = {}
    with torch_threads(1), torch.inference_mode(), bench.progress.counting("packed ensemble", len(batches)) as count:
        for batch in batches:
            images = torch.randint(0, 256, (batch, *shape.input_shape), dtype=torch.uint8)
            exemplars = torch.randn(batch, _MEMBERS + 1, shape.exemplar_size)
            passes = _passes(model, plain, images, exemplars)
            differences.append(float((passes[0]() - passes[2]()).abs().max()))
            seconds = alternate(passes, repetitions, clock=time.process_time)
            times[batch] = seconds
            count(1)
    sizes = f"batches of {', '.join(map(str, batches))}, 1 thread, processor time"
    yield bench.result(_DIFFERENCE, max(differences), sizes)
    pooled = np.concatenate(list(times.values()))
    for figure, place in ((_PACKED, 0), (_VOTING, 1), (_SEPARATE, 2)):
        by_batch = {str(batch): ratio(seconds, place, 3).to_json() for batch, seconds in times.items()}
        found = ratio(pooled, place, 3)
        yield bench.result(figure, found.median, f"{sizes}; median over all", by_batch=by_batch, **found.to_json())


def _passes(model: Munkey, plain: PlainViT, images: Tensor, exemplars: Tensor) -> list[Callable[[], Tensor]]:
    """Return the packed pass, the one with the image's vote, the separate passes and the plain one."""
    members = exemplars[:, :_MEMBERS].contiguous()
    image_vote = torch.zeros(exemplars.shape[:2], dtype=torch.bool)
    image_vote[:, _MEMBERS] = True

    def separate() -> Tensor:
        return torch.cat([model(images, member) for member in members.split(1, dim=1)], dim=1)

    return [
        lambda: model(images, members),
        lambda: model(images, exemplars, null_memory=image_vote),
        separate,
        lambda: plain(images),
    ]


GROUP = Group("packed-ensemble", (_DIFFERENCE, _PACKED, _VOTING, _SEPARATE), _measure)
