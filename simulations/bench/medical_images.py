"""Federations on medical images: hospitals on the frozen path, in one process, computed as Flower's run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.dataset import Dataset, Split
from client.evaluation import evaluate
from common.guarantees import Guarantee
from common.model import ModelShape
from common.model_choice import choose_encoder, choose_shape
from common.recipe import Recipe
from common.settings import Settings
from simulations.baselines import Comparison
from simulations.bench.figure import Bench
from simulations.federated_loop import learn
from simulations.hospitals import Encoded, encode_all, give, held_out_of
from simulations.partition import partition
from simulations.sources import load_dataset

_ENCODER = "squeezenet1_0"


@dataclass(frozen=True)
class Study:
    """A data set, encoded, and the settings that fit it."""

    images: Encoded
    settings: Settings

    @property
    def shape(self) -> ModelShape:
        """Shape of the federation's model."""
        return choose_shape(self.settings)

    def comparison(self, hospitals: int, alpha: float, seed: int) -> Comparison:
        """Divide the records among hospitals that forget nothing."""
        parts = partition(self.images.records, hospitals, alpha=alpha, seed=seed)
        # These hospitals have no key stores, so no folder is made.
        given = give(self.images, parts, Path())
        nothing = {hospital.name: np.empty(0, dtype=np.int64) for hospital in given}
        return Comparison(given, nothing, self.settings.replace(seed=seed), self.shape)


@dataclass(frozen=True)
class Federated:
    """Test accuracy of a federation's hospitals, each with its own bank, and the mean macro-F1, all in percent."""

    per_hospital: dict[str, float]
    macro_f1: float

    @property
    def accuracy(self) -> float:
        """Mean over hospitals."""
        return float(np.mean(list(self.per_hospital.values())))


def obstacle(file: str) -> Callable[[Bench], str]:
    """Return what says why figures on a file of images cannot be measured.

    It raises `InvalidDataset` or `InvalidWeights` if what was given for them cannot be used.
    """

    def why(bench: Bench) -> str:
        if bench.data_folder is None or bench.weights is None:
            return "give --data-folder and --weights"
        if not (bench.data_folder / file).is_file():
            return f"{bench.data_folder} has no {file}"
        choose_encoder(_read(bench, file)[1])
        return ""

    return why


def prepare(bench: Bench, file: str, num_rounds: int) -> Study:
    """Read and encode a data set of the bench's folder."""
    dataset, settings = _read(bench, file)
    settings = settings.replace(num_rounds=1 if bench.quick else num_rounds)
    with bench.progress.counting(f"encoding {Path(file).stem}", len(dataset)) as count:
        return Study(encode_all(choose_encoder(settings), dataset, count), settings)


def train_federation(comparison: Comparison, trained: Callable[[int], None]) -> Federated:
    """Train hospitals together and evaluate each with its bank.

    Parameters
    ----------
    comparison : Comparison
        The hospitals and their settings.
    trained : callable
        Called with 1 after each hospital's local training.
    """
    settings, shape = comparison.settings, comparison.shape
    reading = Recipe.of(settings).reading
    train = {hospital.name: comparison.train_records(hospital) for hospital in comparison.hospitals}
    learned = learn(train, settings, shape, trained=trained)
    found = {}
    for hospital in comparison.hospitals:
        held_out = held_out_of(hospital.given.split(Split.TEST), train[hospital.name], settings, shape)
        found[hospital.name] = evaluate(learned.model, learned.banks[hospital.name], held_out, reading)
    return Federated(
        {name: 100 * one.accuracy for name, one in found.items()},
        100 * float(np.mean([one.macro_f1 for one in found.values()])),
    )


def _read(bench: Bench, file: str) -> tuple[Dataset, Settings]:
    dataset = load_dataset(str((bench.data_folder or Path()) / file), data_dir=None, seed=0)
    settings = Settings(
        guarantee=Guarantee.EMPIRICAL,
        num_classes=dataset.num_classes,
        image_shape=str(dataset.image_shape),
        encoder=_ENCODER,
        encoder_weights=str(bench.weights),
    )
    return dataset, settings
