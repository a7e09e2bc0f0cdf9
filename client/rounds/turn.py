"""One message of a round, and what a site needs to answer it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from fedmunkey.client.deletions.agent import catch_up_patiently
from fedmunkey.client.importing.agreement import check_round
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.learning.held_out import OwnHeldOut, SharedHeldOut, held_out_of
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.rounds.evaluation_leave import EvaluationLeave, EvaluationRule, coarse_counts, spend_evaluation
from fedmunkey.client.rounds.what_leaves import REASON_CHARACTERS, check_listed
from fedmunkey.client.site import SiteFolder, check_promise
from fedmunkey.common.errors import BankChanged, FedmunkeyError, InvalidSetting
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.identities import Identity
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.programs.round_messages import (
    AGAIN,
    CARD,
    CHANGED,
    CONFIG,
    ENDS_RUN,
    FAILED,
    METRICS,
    ROUND,
    SITE,
    TAKE_OVER,
)
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.foreign_text import printable
from fedmunkey.common.settings.settings import Settings

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")


@dataclass(frozen=True)
class Turn:
    """What a site needs to answer one message.

    `insecure_sums` is the site's own leave to take part where fewer than three sites do, `rule` what it lets its
    evaluations say, `card` the digest of its federation card.
    """

    message: Message
    recipe: Recipe
    folder: SiteFolder
    store: KeyStore
    identity: Identity | None
    insecure_sums: bool
    rule: EvaluationRule
    card: str = ""

    @property
    def settings(self) -> Settings:
        """The federation's."""
        return self.recipe.settings

    @property
    def site(self) -> str:
        """The site's name."""
        return self.store.description.site

    @property
    def round_number(self) -> int:
        """From 1."""
        return self.number(ROUND)

    @property
    def takes_over_only(self) -> bool:
        """Whether the coordinator wants no accuracy of this site."""
        return bool(self.config.get(TAKE_OVER, False))

    @property
    def ends_run(self) -> bool:
        """Whether the run ends well with the message's weights, so that the site answers from them from now on."""
        return bool(self.config.get(ENDS_RUN, False))

    @property
    def again(self) -> bool:
        """Whether the message's weights are those of an earlier run."""
        return bool(self.config.get(AGAIN, False))

    @property
    def tells_everything(self) -> bool:
        """Whether the site is a simulated one, whose replies hold every loss and accuracy."""
        return self.rule.leave is EvaluationLeave.FULL

    @property
    def held_out(self) -> OwnHeldOut | SharedHeldOut:
        """What the site's evaluations are about."""
        return held_out_of(self.folder.path, self.round_number)

    def tell_counts(self, count_right: Callable[[], int], round_id: str = "") -> dict[str, float | int]:
        """Return what the reply to an evaluation may hold of how many held-out test records are answered rightly.

        Nothing where the coordinator asks for nothing, or the site says no more; then nothing is counted either.
        """
        if self.takes_over_only or self.rule.leave is EvaluationLeave.OFF:
            return {}
        examples = self.store.records.count_used(Split.TEST)
        if examples < max(self.rule.fewest, 1):
            logger.info("%s: %d held-out records, fewer than %d: none counted", self.site, examples, self.rule.fewest)
            return {}
        if not spend_evaluation(self.folder, round_id):
            logger.info("%s: no more is said about held-out records for now", self.site)
            return {}
        return coarse_counts(count_right(), examples)

    @property
    def config(self) -> ConfigRecord:
        """What the coordinator says beside arrays."""
        return self.message.content.config_records.get(CONFIG, ConfigRecord())

    def number(self, name: str) -> int:
        """Return a whole number that the coordinator says; raises `InvalidSetting` where it says none."""
        try:
            return int(str(self.config[name]))
        except (KeyError, ValueError):
            raise InvalidSetting(f"the coordinator's message says no {name}; is it of another version?") from None

    def reply(
        self,
        metrics: Mapping[str, float | int] | None = None,
        arrays: ArrayRecord | None = None,
        **about: str | int,
    ) -> Message:
        """Return the reply: the site's name, and what else is given."""
        check_listed([CARD, *(metrics or {}), *(name.replace("_", "-") for name in about)])
        who = ConfigRecord({SITE: self.site, **({CARD: self.card} if self.card else {})})
        content = RecordDict({METRICS: MetricRecord(dict(metrics or {})), SITE: who})
        if about:
            content[CONFIG] = ConfigRecord({name.replace("_", "-"): value for name, value in about.items()})
        if arrays is not None:
            content["arrays"] = arrays
        return Message(content=content, reply_to=self.message)


def answer_message(message: Message, context: Context, act: Callable[[Turn], Message]) -> Message:
    """Catch up with deletions, then act; where that fails for a known reason, reply with an error that says why."""
    try:
        settings = Settings.parse(context.run_config)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        folder = SiteFolder.locate(context.node_config, settings)
        insecure = "site-dir" not in context.node_config or bool(context.node_config.get("insecure-orders"))
        identity = folder.find_identity()
        with faults_explained(), folder.open_to_hear(insecure=insecure) as store:
            with DeletionChannel(settings.deletion_service, identity=identity) as service:
                catch_up_patiently(store, service, patience=settings.deletion_patience)
            hit(Failpoint.TRAIN_CAUGHT_UP)
            check_promise(settings, store.description)
            card = check_round(folder, store, settings)
            _check_labels(store, settings)
            insecure_sums = bool(context.node_config.get("insecure-sums"))
            rule = EvaluationRule.of(context.node_config, store.description.guarantee)
            return act(Turn(message, Recipe.of(settings), folder, store, identity, insecure_sums, rule, card))
    except FedmunkeyError as error:
        logger.error("%s", error)
        code = CHANGED if isinstance(error, BankChanged) else FAILED
        return Message(Error(code=code, reason=printable(str(error))[:REASON_CHARACTERS]), reply_to=message)


def _check_labels(store: KeyStore, settings: Settings) -> None:
    largest = store.records.largest_label()
    if largest is not None and largest >= settings.num_classes:
        raise InvalidSetting(
            f"num-classes = {settings.num_classes}: this site has records of class {largest}; set it to {largest + 1}"
        )
