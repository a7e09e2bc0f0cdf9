"""The Flower ClientApp of a site: it catches up with deletions, then trains or evaluates.

What a reply holds is decided here and nowhere else: the shared weights, numbers about the whole site, its name.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedmunkey.client.deletions.agent import catch_up_patiently
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.learning.bank import Bank, read_bank, read_held_out, read_permanent_bank, read_permanent_held_out
from fedmunkey.client.learning.evaluation import Evaluation, evaluate
from fedmunkey.client.learning.exact_state import refresh_tokens
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.noisy_step import noisy_steps_of_round
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.client.learning.training import train
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder, check_promise, model_shape
from fedmunkey.common.errors import BankChanged, FedmunkeyError, InvalidSetting, InvalidWeights
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.model_choice import choose_device
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.round_messages import ARRAYS, CONFIG, METRICS, ROUND, SITE, TAKE_OVER
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.settings import Settings

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_ERROR_CODE = 1000
"""Flower leaves error codes from 1000 on to apps."""

_CHECK_EVERY = 16
"""Training steps between two looks at the key store's generation."""

_SHOWN = 4
"""How often local training says how far it is."""

app = ClientApp()


@dataclass(frozen=True)
class _Turn:
    """What a site needs to answer one message."""

    message: Message
    recipe: Recipe
    folder: SiteFolder
    store: KeyStore

    @property
    def settings(self) -> Settings:
        return self.recipe.settings

    @property
    def round_number(self) -> int:
        return int(str(self._config[ROUND]))

    @property
    def proximal_mu(self) -> float:
        return float(str(self._config.get("proximal-mu", 0.0)))

    @property
    def takes_over_only(self) -> bool:
        """Whether the coordinator wants no accuracy of this site."""
        return bool(self._config.get(TAKE_OVER, False))

    @property
    def _config(self) -> ConfigRecord:
        return self.message.content.config_records[CONFIG]

    def load_model(self) -> Munkey:
        """Return a model with the shared weights that came with the message."""
        model = Munkey(model_shape(self.settings, self.store.description))
        state = self.message.content.array_records[ARRAYS].to_torch_state_dict()
        try:
            model.load_state_dict(state)
        except RuntimeError:
            raise InvalidWeights("the coordinator sent weights of another model; check the site's settings") from None
        return model.to(choose_device(self.settings.device))

    def reply(self, metrics: dict[str, float | int], model: Munkey | None = None) -> Message:
        """Return the reply: metrics, the site's name and, after training, the shared weights."""
        site = self.store.description.site
        content = RecordDict({METRICS: MetricRecord(dict(metrics)), SITE: ConfigRecord({SITE: site})})
        if model is not None:
            content[ARRAYS] = ArrayRecord(model.cpu().state_dict())
        return Message(content=content, reply_to=self.message)


@app.train()
def train_site(message: Message, context: Context) -> Message:
    """Train on the site's bank, from the shared weights of the message."""
    return _answer(message, context, _train)


@app.evaluate()
def evaluate_site(message: Message, context: Context) -> Message:
    """Evaluate the shared weights of the message with the site's bank on its held-out records."""
    return _answer(message, context, _evaluate)


def _answer(message: Message, context: Context, act: Callable[[_Turn], Message]) -> Message:
    """Catch up with deletions, then act; where that fails for a known reason, reply with an error that says why."""
    try:
        settings = Settings.parse(context.run_config)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        folder = SiteFolder.locate(context.node_config, settings)
        insecure = "site-dir" not in context.node_config or bool(context.node_config.get("insecure-orders"))
        with faults_explained(), folder.open_to_hear(insecure=insecure) as store:
            with DeletionChannel(settings.deletion_service, identity=folder.find_identity()) as service:
                catch_up_patiently(store, service, patience=settings.deletion_patience)
            hit(Failpoint.TRAIN_CAUGHT_UP)
            check_promise(settings, store.description)
            _check_labels(store, settings)
            return act(_Turn(message, Recipe.of(settings), folder, store))
    except FedmunkeyError as error:
        logger.error("%s", error)
        return Message(Error(code=_ERROR_CODE, reason=str(error)), reply_to=message)


def _check_labels(store: KeyStore, settings: Settings) -> None:
    largest = store.records.largest_label()
    if largest is not None and largest >= settings.num_classes:
        raise InvalidSetting(
            f"num-classes = {settings.num_classes}: this site has records of class {largest}; set it to {largest + 1}"
        )


def _train(turn: _Turn) -> Message:
    """Train until no deletion came in between, so that nothing that is sent was made with a deleted entry."""
    store, route, site = turn.store, turn.recipe.route, turn.store.description.site
    read = read_permanent_bank if route.permanent_only else read_bank
    while True:
        model = turn.load_model()
        bank = read(store, turn.recipe.neighbours)
        training, secret = _begin_noise(turn, bank) if route.noisy else (None, None)
        try:
            trained = train(
                model,
                bank,
                turn.recipe,
                round_number=turn.round_number,
                generator=generator(turn.settings.seed, site, turn.round_number),
                secret=secret,
                proximal_mu=turn.proximal_mu,
                after_step=_watch(store, bank, turn.round_number),
            )
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
        # A loss is a number about the records that the noise does not cover.
        metrics = {"num-examples": trained.examples, "train-loss": math.nan if route.noisy else trained.loss}
        reply = turn.reply({**metrics, **_privacy(turn)}, model)
        if store.generation == bank.generation:
            return reply
        if training is not None:
            store.privacy.take_back(training)


def _begin_noise(turn: _Turn, bank: Bank) -> tuple[int | None, SecretNoise | None]:
    """Enter what the round's noisy steps will spend; without any entry nothing is spent."""
    if not len(bank):
        return None, None
    training = turn.store.privacy.begin(noisy_steps_of_round(turn.recipe), turn.round_number)
    return training, SecretNoise(turn.store.draw_noise_key(), "training", training)


def _privacy(turn: _Turn) -> dict[str, float]:
    """Return what a certified federation hears of the privacy loss so far; no number where none was promised.

    Flower wants the same names from every site, so it is the federation's guarantee that chooses them.
    """
    if turn.settings.guarantee is not Guarantee.CERTIFIED:
        return {}
    if turn.store.description.guarantee is not Guarantee.CERTIFIED:
        return {"epsilon": math.nan, "delta": math.nan}
    loss = turn.store.privacy.loss()
    return {"epsilon": loss.epsilon, "delta": loss.delta}


def _evaluate(turn: _Turn) -> Message:
    """Take over the shared weights of the message, and evaluate them with the bank on the held-out records."""
    if turn.takes_over_only:
        return _take_over(turn)
    store, recipe = turn.store, turn.recipe
    model = turn.load_model()

    def measure(_generation: int) -> tuple[dict[Split, Evaluation], dict[str, float | int]]:
        bank = read_bank(store, recipe.neighbours)
        if not recipe.route.joint_tokens:
            bank.tokens.copy_(own_tokens(model, bank.inputs))
            store.records.write_tokens(bank.generation, bank.entries, bank.tokens)
        splits = {s: read_held_out(store, s, bank, recipe.neighbours) for s in (Split.VAL, Split.TEST)}
        found = {split: evaluate(model, bank, held_out, recipe.reading) for split, held_out in splits.items()}
        counts = {"entries": len(bank), "num-examples": len(splits[Split.TEST].labels)}
        return found, {**counts, "selection-accuracy": _selection_accuracy(turn, model, found)}

    found, metrics = store.until_unchanged(measure)
    turn.folder.write_shared_weights(model, turn.settings)
    for split, results in found.items():
        metrics |= {f"{split}-{name.replace('_', '-')}": value for name, value in asdict(results).items()}
    return turn.reply({**metrics, **_privacy(turn)})


def _take_over(turn: _Turn) -> Message:
    """Take over the shared weights of the message; the reply holds no number."""
    model = turn.load_model()
    if not turn.recipe.route.joint_tokens:
        refresh_tokens(turn.store, model)
    turn.folder.write_shared_weights(model, turn.settings)
    return turn.reply({})


def _selection_accuracy(turn: _Turn, model: Munkey, found: dict[Split, Evaluation]) -> float:
    """Return the accuracy by which the best round may be chosen: of permanent records only under `exact`.

    Choosing by others would let them influence the chosen weights. Under `certified` there is nothing to choose by, as
    the accountant knows of training only.
    """
    store, guarantee = turn.store, turn.settings.guarantee
    if guarantee is Guarantee.CERTIFIED:
        return math.nan
    if guarantee is Guarantee.EMPIRICAL:
        return found[Split.VAL if found[Split.VAL].examples else Split.TEST].accuracy
    bank = read_permanent_bank(store, turn.recipe.neighbours)
    bank.tokens.copy_(own_tokens(model, bank.inputs))
    held_out = read_permanent_held_out(store, Split.VAL, bank, turn.recipe.neighbours)
    return evaluate(model, bank, held_out, turn.recipe.reading).accuracy


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
