"""The Flower ServerApp of the coordinator."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch  # noqa: F401 (Flower turns arrays into torch tensors only where torch was imported before)
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.identities import Identity
from fedmunkey.common.model.model_choice import choose_shape, first_model
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.waiting import wait_for_service
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.rounds.forgetting_strategy import ForgettingStrategy
from fedmunkey.server.rounds.run_record import RunRecord
from fedmunkey.server.rounds.strategies import make_strategy

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_ROUND_SECONDS = 3600.0
"""How long opening a round may take: a simulation measures then. A service that is gone is noticed at once."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run's configuration describes."""
    run_federation(grid, Settings.parse(context.run_config))


def run_federation(grid: Grid, settings: Settings) -> None:
    """Train for all rounds, opening each with the deletion service, and leave events and weights in `output-dir`.

    Raises `FedmunkeyError` if the settings, the identity or the first weights cannot be used, before anything is
    written; or if the deletion service stays out of reach or no site can train, and then the reason is in the events as
    well.
    """
    shape = choose_shape(settings)
    model = first_model(settings, shape)
    # JSON has no infinity, which is an epsilon that adds no noise.
    config = {name: str(value) if value == math.inf else value for name, value in settings.to_config().items()}
    facts = {"guarantee": settings.guarantee.value, "settings": config}
    identity = Identity.read(Path(settings.deletion_identity)) if settings.deletion_identity else None
    record = RunRecord(Path(settings.output_dir), shape, settings.encoder, facts)
    with DeletionChannel(settings.deletion_service, timeout=_ROUND_SECONDS, identity=identity) as service:
        strategy = ForgettingStrategy(
            make_strategy(settings),
            open_round=lambda number: wait_for_service(
                lambda: service.open_round(number), patience=settings.deletion_patience, on_wait=record.note_waiting
            ),
            record=record,
            fewest_examples=Recipe.of(settings).fewest_examples,
        )
        try:
            strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=settings.num_rounds)
        except FedmunkeyError as error:
            logger.error("%s", error)
            record.note_stopped(str(error))
            raise
    record.note_finished()
