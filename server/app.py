"""The Flower ServerApp of the coordinator."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch  # Flower turns arrays into torch tensors only where torch was imported before.
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid

from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.release import Release, read_release
from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.identities import Identity
from fedmunkey.common.identities.identity import read_certificate
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.model_choice import choose_shape, first_model
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.waiting import wait_for_service
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.rounds.careful_grid import ENGINE_LOOK_SECONDS, ENGINE_SILENCE_SECONDS, CarefulGrid
from fedmunkey.server.rounds.engine_mail import EngineMail
from fedmunkey.server.rounds.forgetting_strategy import ForgettingStrategy
from fedmunkey.server.rounds.run_record import (
    GIVES_OUT,
    GUARANTEE,
    LAST,
    ROUND,
    SETTINGS,
    RunRecord,
    read_events,
)
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
    careful = CarefulGrid(grid) if isinstance(grid, HttpGrid) else _in_memory(grid)
    run_federation(careful, Settings.parse(context.run_config))


def _in_memory(grid: Grid) -> CarefulGrid:
    """Return the grid of a simulation, which waits for replies instead of looking for them where it can."""
    careful = partial(CarefulGrid, grid, longest=ENGINE_LOOK_SECONDS, silence=ENGINE_SILENCE_SECONDS)
    mail = EngineMail.of(grid)
    return careful() if mail is None else careful(has_reply=mail.has_reply, wait=mail.wait)


def run_federation(grid: Grid, settings: Settings) -> None:
    """Train for all rounds, opening each with the deletion service, and leave events and weights in `output-dir`.

    A run that was cut off goes on after its last round where the settings say so; where they name weights to give out,
    nobody trains. Raises `FedmunkeyError` if the settings, the identity, the first weights or the folder cannot be
    used, before anything is written; or if the deletion service stays out of reach or no site can train, and then the
    reason is in the events as well.
    """
    shape = choose_shape(settings)
    recipe = Recipe.of(settings)
    folder = Path(settings.output_dir)
    identity = Identity.read(Path(settings.deletion_identity)) if settings.deletion_identity else None
    beginning = _Beginning.of(settings, recipe, shape)
    with (
        RunRecord(folder, _facts(settings), goes_on=settings.resume_run) as record,
        DeletionChannel(settings.deletion_service, timeout=_ROUND_SECONDS, identity=identity) as service,
    ):

        def open_round(number: int) -> None:
            wait_for_service(
                lambda: service.open_round(number), patience=settings.deletion_patience, on_wait=record.note_waiting
            )

        try:
            if beginning.model is None:
                authority = read_certificate(identity.ca_file) if identity else None
                solving = SolvingRounds(
                    *(grid, settings, FeatureMap.of(recipe, shape), record, open_round, authority),
                    released=service.note_release,
                    given_out=service.note_given_out,
                    need=service.renewal_need,
                    before=beginning.rounds,
                )
                solving.run() if beginning.release is None else solving.give_again(beginning.release)
            else:
                write = _checkpoints_of(shape, settings.encoder)
                strategy = ForgettingStrategy(
                    make_strategy(settings),
                    open_round=open_round,
                    record=record,
                    write=write,
                    rounds=settings.rounds,
                    before=beginning.rounds,
                    card=settings.federation_card,
                )
                arrays, left = ArrayRecord(beginning.model.state_dict()), settings.rounds - beginning.rounds
                strategy.give_again(grid, arrays) if settings.give_out else strategy.start(grid, arrays, left)
        except FedmunkeyError as error:
            logger.error("%s", error)
            record.note_stopped(str(error))
            raise
        record.note_finished()


@dataclass(frozen=True)
class _Beginning:
    """What a run begins with: so many rounds that were run before, and a model, or a release to give out, or neither.

    Without a model the rounds solve for their weights.
    """

    rounds: int = 0
    model: Munkey | None = None
    release: Release | None = None

    @classmethod
    def of(cls, settings: Settings, recipe: Recipe, shape: ModelShape) -> _Beginning:
        """Read what the settings name; raises `InvalidWeights` if it cannot be used."""
        last = Path(settings.output_dir) / LAST
        rounds = len({event["number"] for event in read_events(last.parent) if event["event"] == ROUND})
        goes_on = settings.resume_run and last.exists()
        if recipe.route.solved:
            read = FeatureMap.of(recipe, shape)
            again = settings.give_out
            given = read_release(Path(again), feature_map=read, encoder=settings.encoder) if again else None
            return cls(rounds if settings.resume_run else 0, None, given)
        if not goes_on and not settings.give_out:
            return cls(0, first_model(settings, shape))
        path = last if goes_on else Path(settings.give_out)
        found = read_checkpoint(path, expected=shape, encoder=settings.encoder)
        # Weights are written before the event of their round is.
        return cls(int(found.about.get("round", 0)) if goes_on else 0, found.model())


def _facts(settings: Settings) -> dict[str, Any]:
    """Return what stands in the run's folder and beside its weights."""
    # JSON has no infinity, which is an epsilon that adds no noise.
    config = {name: str(value) if value == math.inf else value for name, value in settings.to_config().items()}
    facts = {GUARANTEE: settings.guarantee.value, SETTINGS: config}
    # The run whose weights they are is named by its folder.
    return {**facts, GIVES_OUT: Path(settings.give_out).parent.name} if settings.give_out else facts


def _checkpoints_of(
    shape: ModelShape, encoder: str
) -> Callable[[Path, Mapping[str, torch.Tensor], dict[str, Any]], None]:
    """Return what writes weights of a model of some shape."""
    return lambda path, weights, about: write_checkpoint(path, Checkpoint(weights, shape, encoder, about))
