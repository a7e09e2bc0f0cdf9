"""How a federation's model looks, learns and answers: its settings with everything decided that they leave to choose.

Nobody else asks for `auto`, or for the 0 or -1 that chooses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.gradient_routes import ROUTES, GradientRoute
from fedmunkey.common.privacy.guarantees import Guarantee, Influence
from fedmunkey.common.settings.settings import (
    AUTO_DEPTH,
    DESCRIPTOR,
    AggregationName,
    ExemplarTokens,
    ImagePath,
    ImageShape,
    LearnsFrom,
    Settings,
)

FEW_STEPS = 3
"""Steps of a site in one round, where few are better than whole epochs."""

_BLENDED, _VOTING = 16, 4
"""K where entries are blended by their similarity, and where each is a member of an ensemble or named as support."""

_BLOCKS = 2
"""Of a transformer."""

_RANDOM_FEATURES = 1000
"""Where nothing else is read of a record."""


@dataclass(frozen=True)
class Reading:
    """How the entries nearest to an image are read.

    K `neighbours` become members of an ensemble by the `aggregation`, which is never `auto`; `temperature` is that of
    its softmax, in units of cosine similarity. With `image_vote` a member with null memory, the image alone, votes as
    one more.
    """

    neighbours: int
    aggregation: AggregationName
    temperature: float
    image_vote: bool


@dataclass(frozen=True)
class Recipe:
    """What one federation does.

    Attributes
    ----------
    settings : Settings
        Those that it follows from, for all that they leave no choice in.
    image_path : ImagePath
        `patches` or `frozen`.
    patch_size : int
        In pixels; 0 on the `frozen` path.
    depth : int
        Number of transformer blocks; none but under `empirical`.
    random_features : int
        Fixed random features of the key that are read where weights are solved for.
    steps : int
        Training steps of a site in one round; 0 for whole epochs.
    learning_rate : float
        Peak learning rate of the shared weights.
    """

    settings: Settings
    image_path: ImagePath
    patch_size: int
    depth: int
    random_features: int
    reading: Reading
    route: GradientRoute
    steps: int
    learning_rate: float

    @property
    def neighbours(self) -> int:
        """K: how many keys are retrieved for a prediction."""
        return self.reading.neighbours

    @classmethod
    def of(cls, settings: Settings) -> Recipe:
        """Decide what settings leave open; raises `InvalidSetting` if the patch size does not divide the image."""
        path = settings.image_path
        if path is ImagePath.AUTO:
            # An encoder that has learned weights has features worth more than a patch embedding that starts from none.
            path = ImagePath.PATCHES if settings.encoder == DESCRIPTOR else ImagePath.FROZEN
        frozen = path is ImagePath.FROZEN
        depth = 0
        if settings.guarantee is Guarantee.EMPIRICAL:
            depth = _BLOCKS if settings.depth == AUTO_DEPTH else settings.depth
        random_features = settings.random_features
        if random_features < 0:
            random_features = 0 if frozen else _RANDOM_FEATURES
        route = _route(settings)
        return cls(
            settings=settings,
            image_path=path,
            patch_size=0 if frozen else _patch_size(settings.patch_size, settings.image_shape),
            depth=depth,
            random_features=random_features,
            reading=_reading(settings, blended=frozen and route.noisy),
            route=route,
            steps=settings.local_steps or (FEW_STEPS if frozen or route.noisy else 0),
            learning_rate=settings.clipped_learning_rate if route.noisy else settings.learning_rate,
        )

    def steps_of_round(self, records: int) -> int:
        """Return how many steps a site with so many records takes in one round."""
        return self.steps or math.ceil(records / self.settings.batch_size) * self.settings.local_epochs

    def fraction_of_rates(self, round_number: int) -> float:
        """Return what share of their peaks learning rates have in a round, from 1: half a cosine over all rounds."""
        return 0.5 * (1 + math.cos(math.pi * (round_number - 1) / self.settings.rounds))


def _route(settings: Settings) -> GradientRoute:
    """Look the route up."""
    if settings.guarantee is Guarantee.EXACT:
        return ROUTES["exact" if settings.learns_from is LearnsFrom.ALL else "exact, permanent"]
    if settings.guarantee is Guarantee.CERTIFIED:
        # Without noise nothing is bounded.
        unbounded = math.isinf(settings.epsilon)
        return replace(ROUTES["certified"], influence=Influence.UNBOUNDED) if unbounded else ROUTES["certified"]
    own = settings.exemplar_tokens is ExemplarTokens.OWN
    return ROUTES["empirical" if own else "empirical, joint tokens"]


def _reading(settings: Settings, *, blended: bool) -> Reading:
    """Choose how entries are read beside a linear function of frozen features, or beside anything else."""
    aggregation, image_vote = settings.aggregation, settings.image_vote
    if aggregation is AggregationName.AUTO:
        # A linear image path speaks in every blended member, and needs no vote of its own.
        aggregation = AggregationName.SOFTMAX if blended else AggregationName.ENSEMBLE
        image_vote = image_vote and not blended
    neighbours = settings.neighbours or (_BLENDED if blended else _VOTING)
    return Reading(neighbours, aggregation, settings.temperature, image_vote)


def _patch_size(asked: int, image: ImageShape) -> int:
    """Return the side of a patch; without one asked for, about 16 to 200 patches an image."""
    _, height, width = image
    side = asked or (2 if min(height, width) < 16 else 4 if min(height, width) < 96 else 16)
    if height % side or width % side:
        raise InvalidSetting(f"patch-size = {side} does not divide images of {height}x{width} pixels; set another")
    return side
