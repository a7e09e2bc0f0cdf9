"""Rounds in which shared weights are descended to: a site trains, or evaluates what came of training."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict

import torch
from flwr.app import ArrayRecord, Message

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.answering_tokens import keep_answering_tokens
from fedmunkey.client.learning.bank import Bank, read_bank
from fedmunkey.client.learning.evaluation import Evaluation, count_right, evaluate
from fedmunkey.client.learning.exact_state import refresh_tokens
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.last_round import note_taken_part
from fedmunkey.client.learning.noisy_step import noisy_steps_of_round
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.client.learning.training import train
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.rounds.turn import Turn
from fedmunkey.client.site import model_shape
from fedmunkey.common.errors import BankChanged, InvalidSetting, InvalidWeights
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.model_choice import choose_device
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.round_messages import ARRAYS

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_CHECK_EVERY = 16
"""Training steps between two looks at the key store's generation."""

_SHOWN = 4
"""How often local training says how far it is."""


def train_bank(turn: Turn) -> Message:
    """Train until no deletion came in between, so that nothing that is sent was made with a deleted entry."""
    _check_descends(turn)
    store, route, site = turn.store, turn.recipe.route, turn.site
    if route.joint_tokens:
        keep_answering_tokens(turn.folder, store)
    while True:
        model = _load_model(turn)
        bank = read_bank(store, turn.recipe.neighbours)
        training, secret = _begin_noise(turn, bank) if route.noisy else (None, None)
        try:
            trained = train(
                model,
                bank,
                turn.recipe,
                round_number=turn.round_number,
                generator=generator(turn.settings.seed, site, turn.round_number),
                secret=secret,
                proximal_mu=float(str(turn.config.get("proximal-mu", 0.0))),
                after_step=_watch(store, bank, turn.round_number),
            )
            note_taken_part(turn.folder)
            # Other tokens than jointly trained ones follow from the averaged weights, when those come.
            kept = bank if route.joint_tokens else bank.none()
            store.records.write_tokens(
                bank.generation,
                kept.entries,
                kept.tokens,
                used=route.influence,
                used_entries=bank.entries,
                training=training,
            )
        except BankChanged:
            logger.warning("%s: entries were deleted during training; this round's training starts again", site)
            continue
        logger.info("%s: round %d, loss %.4f on %d entries", site, turn.round_number, trained.loss, trained.examples)
        # A loss is a number about the records that the noise does not cover, and that the coordinator's weights choose.
        told = trained.loss if turn.tells_everything and not route.noisy else math.nan
        metrics = {"num-examples": trained.examples, "train-loss": told}
        reply = turn.reply({**metrics, **_privacy(turn)}, ArrayRecord(model.cpu().state_dict()))
        if store.generation == bank.generation:
            return reply
        if training is not None:
            store.privacy.take_back(training)


def _begin_noise(turn: Turn, bank: Bank) -> tuple[int | None, SecretNoise | None]:
    """Enter what the round's noisy steps will spend; without any entry nothing is spent."""
    if not len(bank):
        return None, None
    training = turn.store.privacy.begin(noisy_steps_of_round(turn.recipe), turn.round_number)
    return training, SecretNoise(turn.store.draw_noise_key(), "training", training)


def _privacy(turn: Turn) -> dict[str, float]:
    """Return what a certified federation hears of the privacy loss so far; no number where none was promised.

    Flower wants the same names from every site, so it is the federation's guarantee that chooses them.
    """
    if turn.settings.guarantee is not Guarantee.CERTIFIED:
        return {}
    if turn.store.description.guarantee is not Guarantee.CERTIFIED:
        return {"epsilon": math.nan, "delta": math.nan}
    loss = turn.store.privacy.loss()
    return {"epsilon": loss.epsilon, "delta": loss.delta}


def evaluate_bank(turn: Turn) -> Message:
    """Say of held-out records, by the shared weights of the message, what the site lets be said.

    A simulated site evaluates them with its bank as well. Those that a run ends with, and those of an earlier run that
    is gone back to, are the ones that the site answers from afterwards; others are forgotten.
    """
    _check_descends(turn)
    if turn.takes_over_only or not turn.tells_everything:
        model = _load_model(turn)
        if turn.ends_run:
            _take_over(turn, model)
        counts = turn.tell_counts(lambda: count_right(turn.store, model, Split.TEST))
        return turn.reply({**counts, **_privacy(turn)} if counts else {})
    store, recipe, about = turn.store, turn.recipe, turn.held_out
    model = _load_model(turn)

    def measure(_generation: int) -> tuple[dict[Split, Evaluation], dict[str, float | int]]:
        bank = read_bank(store, recipe.neighbours)
        if not recipe.route.joint_tokens:
            bank.tokens.copy_(own_tokens(model, bank.inputs))
            store.records.write_tokens(bank.generation, bank.entries, bank.tokens)
        splits = {s: about.with_neighbours(store, s, bank, recipe.neighbours) for s in (Split.VAL, Split.TEST)}
        found = {split: evaluate(model, bank, held_out, recipe.reading) for split, held_out in splits.items()}
        counts = {"entries": len(bank), "num-examples": len(splits[Split.TEST].labels)}
        return found, {**counts, "selection-accuracy": _selection_accuracy(turn, found)}

    found, metrics = store.until_unchanged(measure)
    if turn.ends_run:
        turn.folder.write_shared_weights(model, turn.settings, again=turn.again)
    for split, results in found.items():
        metrics |= {f"{split}-{name.replace('_', '-')}": value for name, value in asdict(results).items()}
    return turn.reply({**metrics, **_privacy(turn)})


def _take_over(turn: Turn, model: Munkey) -> None:
    """Answer from a model's weights from now on."""
    if not turn.recipe.route.joint_tokens:
        refresh_tokens(turn.store, model)
    turn.folder.write_shared_weights(model, turn.settings, again=turn.again)


def _selection_accuracy(turn: Turn, found: dict[Split, Evaluation]) -> float:
    """Return the accuracy by which the best round may be chosen.

    Under `certified` there is nothing to choose by, as the accountant knows of training only.
    """
    if turn.settings.guarantee is Guarantee.CERTIFIED:
        return math.nan
    return found[Split.VAL if found[Split.VAL].examples else Split.TEST].accuracy


def _watch(store: KeyStore, bank: Bank, round_number: int) -> Callable[[int, int], None]:
    """Return what looks at training after each step: it shows how far it is, and stops it when entries are deleted."""
    site = store.description.site

    def look(done: int, total: int) -> None:
        hit(Failpoint.TRAIN_AFTER_STEP)
        if done % _CHECK_EVERY == 0 and store.generation != bank.generation:
            raise BankChanged("entries were deleted during training")
        if done * _SHOWN // total > (done - 1) * _SHOWN // total:
            logger.info("%s: round %d, %d of %d steps", site, round_number, done, total)

    return look


def _load_model(turn: Turn) -> Munkey:
    """Return a model with the shared weights that came with the message."""
    model = Munkey(model_shape(turn.settings, turn.store.description))
    state = turn.message.content.array_records[ARRAYS].to_torch_state_dict()
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise InvalidWeights("the coordinator sent weights of another model; check the site's settings") from None
    if not all(torch.isfinite(weights).all() for weights in state.values()):
        raise InvalidWeights("the coordinator sent weights that are not finite; the site keeps those that it has")
    return model.to(choose_device(turn.settings.device))


def _check_descends(turn: Turn) -> None:
    if turn.recipe.route.solved:
        raise InvalidSetting(
            "under guarantee = exact nobody trains step by step; the coordinator asks for something else"
        )
