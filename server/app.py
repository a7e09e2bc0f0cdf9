"""The Flower ServerApp of the coordinator."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch  # Flower turns arrays into torch tensors only where torch was imported before.
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid

from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.identity import read_certificate
from fedmunkey.common.model.checkpoints import Checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.model_choice import choose_shape, first_model
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.waiting import wait_for_service
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.rounds.careful_grid import CarefulGrid
from fedmunkey.server.rounds.forgetting_strategy import ForgettingStrategy
from fedmunkey.server.rounds.run_record import RunRecord
from fedmunkey.server.rounds.solving_rounds import SolvingRounds
from fedmunkey.server.rounds.strategies import make_strategy

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_ROUND_SECONDS = 3600.0
"""How long opening a round may take: a simulation measures then. A service that is gone is noticed at once."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run's configuration describes."""
    # Simulated sites answer from this process, and nobody but Flower has written what they say.
    careful = CarefulGrid(grid) if isinstance(grid, HttpGrid) else grid
    run_federation(careful, Settings.parse(context.run_config))


def run_federation(grid: Grid, settings: Settings) -> None:
    """Train for all rounds, opening each with the deletion service, and leave events and weights in `output-dir`.

    Raises `FedmunkeyError` if the settings, the identity or the first weights cannot be used, before anything is
    written; or if the deletion service stays out of reach or no site can train, and then the reason is in the events as
    well.
    """
    shape = choose_shape(settings)
    recipe = Recipe.of(settings)
    # JSON has no infinity, which is an epsilon that adds no noise.
    config = {name: str(value) if value == math.inf else value for name, value in settings.to_config().items()}
    facts = {"guarantee": settings.guarantee.value, "settings": config}
    identity = Identity.read(Path(settings.deletion_identity)) if settings.deletion_identity else None
    model = None if recipe.route.solved else first_model(settings, shape)
    record = RunRecord(Path(settings.output_dir), facts)
    with DeletionChannel(settings.deletion_service, timeout=_ROUND_SECONDS, identity=identity) as service:

        def open_round(number: int) -> None:
            wait_for_service(
                lambda: service.open_round(number), patience=settings.deletion_patience, on_wait=record.note_waiting
            )

        try:
            if model is None:
                read = FeatureMap.of(recipe, shape)
                authority = read_certificate(identity.ca_file) if identity else None
                SolvingRounds(
                    *(grid, settings, read, record, open_round, authority),
                    released=service.note_release,
                    need=service.renewal_need,
                ).run()
            else:
                write = _checkpoints_of(shape, settings.encoder)
                strategy = ForgettingStrategy(
                    make_strategy(settings),
                    open_round=open_round,
                    record=record,
                    write=write,
                    card=settings.federation_card,
                )
                strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=settings.rounds)
        except FedmunkeyError as error:
            logger.error("%s", error)
            record.note_stopped(str(error))
            raise
    record.note_finished()


def _checkpoints_of(
    shape: ModelShape, encoder: str
) -> Callable[[Path, Mapping[str, torch.Tensor], dict[str, Any]], None]:
    """Return what writes weights of a model of some shape."""
    return lambda path, weights, about: write_checkpoint(path, Checkpoint(weights, shape, encoder, about))
