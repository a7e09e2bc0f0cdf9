"""A predictor that stays loaded, and whose every answer is from the site's state at that moment.

Encoder, weights and bank are read once and kept for as long as nothing has changed: no deletion, arrival or renewal, no
other weights and no other conventions. That is looked at before an answer is computed and again before it is given, as
training does before its weights leave the site.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from fedmunkey.client.importing.conventions import FILE as CONVENTIONS
from fedmunkey.client.importing.pictures import Choices
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.predicting.picture_answers import PictureAnswer, ReadPicture
from fedmunkey.client.predicting.prediction import CaseMix, HeldBank, Prediction, classify
from fedmunkey.client.predicting.predictor import Predictor, choose_predictor
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import BankChanged, FedmunkeyError
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue

_OF_THE_ENCODER = ("image_shape", "device")


@dataclass(frozen=True)
class Asked:
    """What a person asks for: settings, weights of a file instead of the site's, and whose case mix.

    `choose` changes the site's choices about files that hold more than one picture.
    """

    given: dict[str, ConfigValue]
    checkpoint: Path | None = None
    mix: CaseMix = CaseMix.OWN
    choose: Callable[[Choices], Choices] = lambda choices: choices


State = tuple[object, ...]
"""Whatever an answer depends on that may change; two that are equal give the same answers."""


@dataclass(frozen=True)
class _Loaded:
    state: State
    predictor: Predictor
    bank: HeldBank


class WarmPredictor:
    """Answers about pictures again and again; safe for threads, which take turns.

    `clock` says when a promise to renew is over.
    """

    def __init__(self, folder: SiteFolder, asked: Asked, *, clock: Callable[[], datetime] = lambda: utc_now()) -> None:
        self._folder = folder
        self._asked = asked
        self._clock = clock
        self._loaded: _Loaded | None = None
        self._encoder: tuple[State, Encoder] | None = None
        self._lock = threading.RLock()

    def weights(self) -> str:
        """Say in words which weights answers are from; raises as `answer`."""
        with self._lock, self._folder.open() as store:
            return self._current(store).predictor.weights

    def answer(self, files: Sequence[tuple[Path, str]]) -> list[PictureAnswer]:
        """Answer about some files, each with the name by which it is called; as many as may be in memory.

        Raises `InvalidWeights` where the promise to renew is over or weights cannot be used, `KeyStoreError` if the
        store is restored and has not caught up, or cannot be used.
        """
        with self._lock:
            while True:
                with self._folder.open() as store:
                    reading = self._current(store).predictor
                choices, shape = self._asked.choose(reading.choices), reading.recipe.settings.image_shape
                read = [ReadPicture.of(path, name, choices, shape) for path, name in files]
                found = self._classify(reading, [each for each in read if each.pixels is not None])
                if found is None:
                    continue
                answers = iter(found)
                return [
                    PictureAnswer(each.name, reading.classes, refused=each.refused)
                    if each.pixels is None
                    else PictureAnswer(each.name, reading.classes, next(answers), remarks=each.remarks)
                    for each in read
                ]

    def is_waiting(self) -> bool:
        """Return whether nothing is answered for now: the site has to catch up, or a promised renewal is late.

        What only shows when weights and bank are read is not looked for; an answer says it.
        """
        loaded = self._loaded
        try:
            with self._folder.open() as store:
                store.database.check_caught_up()
            if loaded is not None and loaded.predictor.owed is not None:
                loaded.predictor.owed.check(self._clock())
        except FedmunkeyError:
            return True
        return False

    def look(self) -> None:
        """Let go of what was read where the site's state is another, so that nothing of a deleted record stays here.

        Whatever keeps the store from being read, it raises nothing: an answer will say it.
        """
        with self._lock:
            try:
                with self._folder.open() as store:
                    same = self._loaded is not None and self._loaded.state == self._state(store)
            except Exception:  # what cannot be read is nothing to hold on to
                same = False
            if not same:
                self._let_go()

    def _classify(self, reading: Predictor, pictures: Sequence[ReadPicture]) -> list[Prediction] | None:
        """Classify pictures as they were read for a predictor; None if they have to be read for another one."""
        pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
        encoded = reading.encode(torch.from_numpy(np.stack(pixels))) if pixels else None
        while True:
            with self._folder.open() as store:
                loaded = self._current(store)
                if not _reads_alike(loaded.predictor, reading):
                    return None
                if encoded is None:
                    return []
                predictor = loaded.predictor
                try:
                    found = classify(
                        *(predictor.model, store, loaded.bank, *encoded, predictor.recipe),
                        mix=self._asked.mix,
                        answering=predictor.answering,
                    )
                except BankChanged:
                    continue
                # What was deleted while this was computed has no part in any answer.
                if self._state(store) == loaded.state:
                    return found

    def _current(self, store: KeyStore) -> _Loaded:
        """Return what answers come from now, read anew if the site's state is another."""
        store.database.check_caught_up()
        while True:
            state = self._state(store)
            if self._loaded is None or self._loaded.state != state:
                self._let_go()
                asked = self._asked
                predictor = choose_predictor(self._folder, store, asked.given, asked.checkpoint, self._encoder_for)
                loaded = _Loaded(state, predictor, HeldBank.read(store, predictor.model))
                if self._state(store) != state:
                    loaded.bank.erase()
                    continue
                self._loaded = loaded
            if self._loaded.predictor.owed is not None:
                self._loaded.predictor.owed.check(self._clock())
            return self._loaded

    def _state(self, store: KeyStore) -> State:
        weights = self._asked.checkpoint or self._folder.shared_weights
        beside = (self._folder.path / CONVENTIONS, self._folder.cards)
        return (
            store.generation,
            store.is_restored,
            store.orders.last,
            store.records.count(Split.TRAIN),
            store.records.last_entry(),
            *map(_mark_of, (weights, weights.with_suffix(".json"), *beside)),
            store.path.stat().st_ino,
        )

    def _encoder_for(self, settings: Settings) -> Encoder:
        """Return the encoder that settings ask for; the one that is loaded, if it is that."""
        names = [name for name in Settings.model_fields if name.startswith("encoder") or name in _OF_THE_ENCODER]
        wanted = tuple(str(getattr(settings, name)) for name in names)
        if self._encoder is None or self._encoder[0] != wanted:
            self._encoder = (wanted, choose_encoder(settings))
        return self._encoder[1]

    def _let_go(self) -> None:
        if self._loaded is not None:
            self._loaded.bank.erase()
        self._loaded = None


def _reads_alike(one: Predictor, other: Predictor) -> bool:
    """Return whether two predictors read a picture in the same way."""
    shapes = one.recipe.settings.image_shape == other.recipe.settings.image_shape
    return one.encoder is other.encoder and shapes and one.choices == other.choices and one.classes == other.classes


def _mark_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file, which is replaced and never written in place; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
