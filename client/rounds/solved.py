"""Rounds in which shared weights are solved for: a site adds its masked sums, counts, and takes the solution over."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from numpy.typing import NDArray

from fedmunkey.client.deletions.lineage.taken_releases import contributed_to, note_taken
from fedmunkey.client.deletions.promised_renewal import CONTRIBUTED, INSTRUCTED, RENEW_WITHIN
from fedmunkey.client.learning.contribution import sum_records, tally_records
from fedmunkey.client.learning.last_round import LastRound
from fedmunkey.client.learning.own_memory import count_right_held_out, evaluate_held_out
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.rounds.turn import Turn
from fedmunkey.client.site import model_shape
from fedmunkey.common.clock import utc_now
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import check_weights
from fedmunkey.common.closed_form.masks import FEWEST_PARTICIPANTS, Participants
from fedmunkey.common.closed_form.release import Release, write_release
from fedmunkey.common.closed_form.solving import RIDGES
from fedmunkey.common.errors import InvalidProof, InvalidSetting, InvalidWeights, KeyStoreError
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.identities.identity import certificate_pem, read_certificate
from fedmunkey.common.identities.member_keys import read_key
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.round_messages import (
    ARRAYS,
    DIGEST,
    GENERATION,
    LAST_ENTRY,
    NUMBERS,
    PARTICIPANTS,
    RELEASE,
    ROUND_ID,
)
from fedmunkey.common.proofs.contributions import Contribution
from fedmunkey.common.proofs.signing.signing_key import SigningKey

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

SUMS, TALLIES = "sums", "tallies"
"""What masks are made for."""


def announce(turn: Turn) -> Message:
    """Say who this site is; whoever cannot take part replies with an error instead."""
    _feature_map(turn)
    return turn.reply(certificate=certificate_pem(turn.identity.certificate).decode() if turn.identity else "")


def contribute(turn: Turn) -> Message:
    """Send the sums over the site's active records, masked; nothing of them is kept."""
    read = _feature_map(turn)
    participants = _participants(turn)
    last_order = turn.store.orders.last
    note = LastRound.read(turn.folder)
    if participants is not None:
        note.check_next(participants.round_id)
    note = LastRound(str(turn.config.get(ROUND_ID, "")), last_order, instructed=turn.store.instructions.position())
    note.write(turn.folder)
    permanent_only = turn.recipe.route.permanent_only
    made = sum_records(turn.store, read, turn.settings.num_classes, permanent_only=permanent_only)
    replace(note, generation=made.generation, last_entry=made.last_entry).write(turn.folder)
    hit(Failpoint.CONTRIBUTE_SUMMED)
    numbers = _masked(turn, participants, SUMS, made.sums.to_numbers())
    hit(Failpoint.CONTRIBUTE_MASKED)
    logger.info("%s: round %d, sums over %d records", turn.site, turn.round_number, made.sums.records)
    return turn.reply(
        arrays=numbers,
        generation=made.generation,
        last_entry=made.last_entry,
        last_order=last_order,
        statement=_signed(turn, numbers, last_order),
    )


def tally_answers(turn: Turn) -> Message:
    """Send, masked, how many of the site's records each ridge's left-out weights answer rightly.

    Once in a round, and over the records whose sums the site has sent in it.
    """
    read = _feature_map(turn)
    left_out = _arrays(turn).get(NUMBERS, np.empty(0))
    expected = (len(RIDGES), FOLDS, read.size, turn.settings.num_classes)
    if left_out.shape != expected or left_out.dtype != np.int32:
        raise InvalidWeights(
            f"the coordinator sent {left_out.dtype} weights of shape {left_out.shape} to be counted, not int32 of "
            f"{expected}"
        )
    check_weights(left_out)
    generation, last_entry = turn.number(GENERATION), turn.number(LAST_ENTRY)
    asked = hashlib.sha256(str(turn.config.get(PARTICIPANTS, "")).encode() + left_out.tobytes()).hexdigest()
    note = LastRound.read(turn.folder)
    note.check_tally(str(turn.config.get(ROUND_ID, "")), (generation, last_entry), asked)
    replace(note, tallied=asked).write(turn.folder)
    tallies = tally_records(
        turn.store,
        read,
        left_out,
        generation=generation,
        last_entry=last_entry,
        permanent_only=turn.recipe.route.permanent_only,
    )
    hit(Failpoint.TALLY_COUNTED)
    return turn.reply(arrays=_masked(turn, _participants(turn), TALLIES, tallies.reshape(-1).view(np.uint64)))


def take_release(turn: Turn) -> Message:
    """Take released weights over; the reply holds accuracies of held-out records where they are asked for."""
    read = _feature_map(turn)
    arrays = _arrays(turn)
    # What the site has erased since it contributed is in the weights; one that did not contribute has nothing in them.
    note, round_id = LastRound.read(turn.folder), str(turn.config.get(ROUND_ID, ""))
    if round_id:
        note.check_release(round_id)
    contributed = note.last_order if note.round_id == round_id else turn.store.orders.last
    instructed = note.instructed if note.round_id == round_id else turn.store.instructions.position()
    if turn.again:
        instructed = 0
        contributed = contributed_to(turn.folder, turn.store, str(turn.config.get(DIGEST)))
    about = {
        "guarantee": Guarantee.EXACT.value,
        CONTRIBUTED: contributed,
        INSTRUCTED: instructed,
        RENEW_WITHIN: turn.settings.renew_within,
    }
    try:
        choice = json.loads(str(turn.config.get(RELEASE)))
    except ValueError:
        choice = None
    release = Release.of_arrays(arrays, choice, read, turn.settings.encoder, about)
    if release.classes != turn.settings.num_classes or release.folds != FOLDS:
        raise InvalidWeights(f"the released weights are of {release.classes} classes in {release.folds} folds")
    if release.digest() != turn.config.get(DIGEST):
        raise InvalidWeights("the released weights are not those of the digest that was announced; run another round")
    hit(Failpoint.RELEASE_RECEIVED)
    note_taken(turn.folder, turn.store, release.digest(), contributed)
    write_release(turn.folder.shared_weights, release)
    hit(Failpoint.RELEASE_WRITTEN)
    if not turn.tells_everything:
        # Weights of a round that the site has no sums in tell the coordinator of its own choice of weights.
        if not round_id or note.round_id != round_id:
            return turn.reply()
        return turn.reply(turn.tell_counts(lambda: count_right_held_out(turn.store, release, Split.TEST), round_id))
    if turn.takes_over_only:
        return turn.reply()
    found = evaluate_held_out(turn.store, release, turn.held_out, (Split.VAL, Split.TEST))
    metrics: dict[str, float | int] = {
        "entries": turn.store.records.count(Split.TRAIN),
        "num-examples": found[Split.TEST].examples,
    }
    for split, results in found.items():
        metrics |= {f"{split}-{name.replace('_', '-')}": value for name, value in asdict(results).items()}
    return turn.reply(metrics)


def _arrays(turn: Turn) -> dict[str, NDArray[Any]]:
    """Return the message's arrays by name; raises `InvalidWeights` where there are none that can be read."""
    try:
        return {name: array.numpy() for name, array in turn.message.content.array_records[ARRAYS].items()}
    except (KeyError, ValueError, TypeError, EOFError):
        raise InvalidWeights("the coordinator's message holds no weights that can be read; run another round") from None


def _feature_map(turn: Turn) -> FeatureMap:
    """Return what is read of a record; raises where the site cannot take part in what the coordinator asks for."""
    if not turn.recipe.route.solved:
        raise InvalidSetting(f"under guarantee = {turn.settings.guarantee} nobody sends sums; set guarantee = exact")
    if turn.store.description.guarantee is Guarantee.CERTIFIED:
        raise KeyStoreError(
            "the site has promised its patients guarantee = certified, and sums have no noise; train as promised, or "
            "ask the patients and enrol their records into a new store"
        )
    return FeatureMap.of(turn.recipe, model_shape(turn.settings, turn.store.description))


def _participants(turn: Turn) -> Participants | None:
    """Check who takes part; None at a site without an identity, which has joined no federation and masks nothing."""
    if turn.identity is None:
        return None
    try:
        announced = json.loads(str(turn.config[PARTICIPANTS]))
        certificates = {str(name): str(pem) for name, pem in announced.items()}
    except (KeyError, ValueError, AttributeError):
        raise InvalidProof(
            "the round does not say who takes part, so no masks can be made; ask its coordinator"
        ) from None
    fewest = 1 if turn.insecure_sums else FEWEST_PARTICIPANTS
    authority = read_certificate(turn.identity.ca_file)
    return Participants.check(str(turn.config.get(ROUND_ID, "")), certificates, authority, fewest=fewest)


def _masked(turn: Turn, who: Participants | None, purpose: str, numbers: NDArray[np.uint64]) -> ArrayRecord:
    if who is not None and turn.identity is not None:
        key, _ = read_key(turn.identity.key_file)
        numbers = numbers + who.mask(turn.identity.name, key, purpose, len(numbers))
    return ArrayRecord({NUMBERS: Array(numbers)})


def _signed(turn: Turn, numbers: ArrayRecord, last_order: int) -> str:
    """Return what the site signs about its contribution, canonical JSON; nothing without a key."""
    if not turn.folder.signing_key.exists():
        return ""
    digest = hashlib.sha256(numbers[NUMBERS].numpy().tobytes()).digest()
    round_id = str(turn.config.get(ROUND_ID, ""))
    said = Contribution(turn.site, round_id, last_order, digest, utc_now())
    return said.sign(SigningKey.read(turn.folder.signing_key)).to_bytes().decode()
