"""What a site answers in rounds in which weights are solved for, and what it refuses to a coordinator."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedmunkey.client.app import app
from fedmunkey.client.site import model_shape
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.solving import RIDGES
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.programs.round_messages import (
    ARRAYS,
    CONFIG,
    CONTRIBUTE,
    GENERATION,
    LAST_ENTRY,
    NUMBERS,
    ROUND,
    ROUND_ID,
    TALLY,
)
from tests.client.one_site import TRAIN, Federation, Make, reason_of


class Asking:
    """A coordinator that asks one site, which has no identity and so sends what masks would cover."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        with federation.folder.open() as store:
            shape = model_shape(federation.settings, store.description)
        size = FeatureMap.of(Recipe.of(federation.settings), shape).size
        self.weights = np.zeros((len(RIDGES), FOLDS, size, federation.settings.num_classes), np.int32)
        self.round_id = ""

    def begin(self) -> dict[str, int]:
        """Begin a round; return which records the site's sums are over."""
        self.round_id = f"{time.time_ns()}-1"
        reply = self._ask(CONTRIBUTE, {})
        assert reply.has_content(), reply.error.reason
        said = reply.content.config_records[CONFIG]
        return {name: int(str(said[name])) for name in (GENERATION, LAST_ENTRY)}

    def tally(self, records: dict[str, int], weights: NDArray[np.int32] | None = None) -> Message:
        chosen = self.weights if weights is None else weights
        return self._ask(TALLY, dict(records), ArrayRecord({NUMBERS: Array(chosen)}))

    def _ask(self, kind: str, config: dict[str, Any], arrays: ArrayRecord | None = None) -> Message:
        content = RecordDict({CONFIG: ConfigRecord({ROUND: 1, ROUND_ID: self.round_id, **config})})
        if arrays is not None:
            content[ARRAYS] = arrays
        return app(Message(content, dst_node_id=1, message_type=kind), self.federation.context())


@pytest.fixture
def asking(make_federation: Make) -> Asking:
    return Asking(make_federation(guarantee="exact"))


def counted(reply: Message) -> bytes:
    assert reply.has_content(), reply.error.reason
    return reply.content.array_records[ARRAYS][NUMBERS].numpy().tobytes()


def test_site_counts_once_more_for_the_same_weights_and_never_for_others(asking: Asking) -> None:
    records = asking.begin()
    first = counted(asking.tally(records))
    others = asking.weights.copy()
    others.flat[0] = 1

    assert counted(asking.tally(records)) == first
    assert "counts of other weights than before" in reason_of(asking.tally(records, others))
    assert counted(asking.tally(records)) == first


@pytest.mark.parametrize("change", [{LAST_ENTRY: TRAIN - 1}, {LAST_ENTRY: TRAIN + 1}, {GENERATION: 7}])
def test_site_counts_over_no_other_records_than_its_sums_are_over(asking: Asking, change: dict[str, int]) -> None:
    records = asking.begin()

    assert "over other records" in reason_of(asking.tally({**records, **change}))
    counted(asking.tally(records))


def test_site_counts_in_no_round_to_which_it_added_nothing(asking: Asking) -> None:
    records = asking.begin()
    asking.round_id = f"{time.time_ns()}-2"

    assert "over other records" in reason_of(asking.tally(records))
