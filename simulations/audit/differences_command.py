"""`munkey-sim differences`: what two releases of `exact` that differ by some records tell of who has left."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fedmunkey.client.learning.contribution import NumberedRecords
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.metrics import membership_auroc
from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import EncoderOption, JsonOption, SettingOption, WeightsOption
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import given_settings
from fedmunkey.simulations.attacks.asking import label_confidence
from fedmunkey.simulations.attacks.two_releases import (
    features_by_totals,
    features_by_weights,
    likeness,
    score_by_totals,
    score_by_weights,
)
from fedmunkey.simulations.federation.encoded_set import EncodedSet, load_encoded
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.solved_federation import SolvedFederation, SolvedPlace, solve_federation
from fedmunkey.simulations.programs.json_values import finite_only
from fedmunkey.simulations.programs.machine import torch_threads
from fedmunkey.simulations.programs.options import DataDirOption
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.reporting.intervals import Interval, interval_document
from fedmunkey.simulations.reporting.preamble import preamble

ASKING, WEIGHTS, TOTALS = "asks the weights", "keeps both weights", "keeps both totals"
"""What whoever wants to know who has left can do: the last one only the coordinator."""

GUESSES = "guesses"
"""What another record of the same kind has in common with the one that left."""

_CHANGED = (1, 10, 50)
_PLACE = "all hospitals"


def differences(
    data: Annotated[
        list[str], typer.Option(help="digits, a MedMNIST-layout .npz by path, or a MedMNIST name. Repeatable.")
    ],
    changed: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Records by which two releases differ, as fewest-changed. Repeatable; 1, 10 and 50."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often records are drawn that leave.")] = 20,
    setting: SettingOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    data_dir: DataDirOption = None,
    output: Annotated[Path | None, typer.Option(help="File for the figures, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well the difference of two releases under exact tells who left from who stayed.

    Random records leave between the two. Whoever has both, and the images of the candidates, scores each candidate: by
    asking for its class before and after, by the weights, or, as the coordinator can, by the totals that these are
    solved from. AUROC is 50% where nothing is told. How records are divided among hospitals changes neither.

    Example: munkey-sim differences --data cells.npz --encoder squeezenet1_0 --weights squeezenet1_0.pth
    """
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise InvalidSetting(f"--output {output}: must be a file in a folder that is there")
    overrides = given_settings(setting, encoder=encoder, encoder_weights=weights)
    if overrides.get("guarantee", Guarantee.EXACT.value) != Guarantee.EXACT.value:
        raise InvalidSetting(f"guarantee = {overrides['guarantee']}: only exact releases what is solved for")
    counts = tuple(changed or _CHANGED)
    results: list[dict[str, Any]] = []
    reconstructed: list[dict[str, Any]] = []
    with Progress.quiet() if as_json else Progress(Console(stderr=True)) as progress:
        sets = [load_encoded(name, overrides, data_dir, progress) for name in data]
        for encoded in sets:
            _check(encoded, counts)
        for encoded in sets:
            with progress.counting(f"releases of {encoded.name}", (len(counts) + 1) * seeds) as count, torch_threads(1):
                releases = Releases(encoded.images, encoded.settings)
                for number in counts:
                    found = []
                    for seed in range(seeds):
                        found.append(releases.compare(number, encoded.settings.seed + seed))
                        count(1)
                    results.append({"data": encoded.name, "changed": number, "auroc": _summary(found)})
                likenesses = []
                for seed in range(seeds):
                    likenesses.append(releases.reconstruct(encoded.settings.seed + seed))
                    count(1)
                reconstructed.append({"data": encoded.name, "likeness": _summary(likenesses)})
    document = finite_only(
        {
            **preamble("differences", command_line.typed(), sets[0].settings),
            "question": {"changed": list(counts), "seeds": seeds},
            "sets": [one.describe() for one in sets],
            "results": results,
            "reconstructed": reconstructed,
        }
    )
    if output is not None:
        output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        command_line.print_json(document)
        return
    command_line.print_table(_table(results, seeds))
    sys.stdout.write("AUROC in percent of telling who left from who stayed; 50 is chance, 100 is always.\n")
    command_line.print_table(_reconstructed_table(reconstructed))
    sys.stdout.write("Cosine in percent, without what records have in common; 100 are the record's own features.\n")


class Releases:
    """A federation's release over all records, and those over all but some."""

    def __init__(self, images: Encoded, settings: Settings) -> None:
        self._records, self._settings = images.split(Split.TRAIN), settings
        others = images.split(Split.VAL)
        others = others if len(others.records) else images.split(Split.TEST)
        self._read = FeatureMap.of(Recipe.of(settings), choose_shape(settings))
        self._place = SolvedPlace.of(self._records, self._read)
        self._own = SolvedPlace.of(others, self._read).bank
        self._before = self._solve(self._place)

    def compare(self, count: int, seed: int) -> dict[str, float]:
        """Let some records leave, and return by what somebody can do how well that tells who left, in percent."""
        generator = np.random.default_rng(derive_seed(seed, "differences", count))
        left = np.zeros(len(self._place.record_ids), dtype=np.bool_)
        left[generator.choice(len(left), count, replace=False)] = True
        place = self._place.select(~left)
        after = self._solve(place)
        bank = self._place.bank
        scores = {
            ASKING: self._confidence(self._before) - self._confidence(after),
            WEIGHTS: score_by_weights(self._before.release, after.release, bank.numbers, bank.labels),
            TOTALS: score_by_totals(self._sums(bank), self._sums(place.bank), bank.numbers),
        }
        return {name: 100 * membership_auroc(score[left], score[~left]) for name, score in scores.items()}

    def reconstruct(self, seed: int) -> dict[str, float]:
        """Let one record leave, and return how like it is what somebody finds of it, in percent; it needs no image.

        Who keeps the weights has the data set's validation records to guess the federation's sums from.
        """
        generator = np.random.default_rng(derive_seed(seed, "reconstructed"))
        left = np.zeros(len(self._place.record_ids), dtype=np.bool_)
        left[generator.integers(len(left))] = True
        place, bank = self._place.select(~left), self._place.bank
        after = self._solve(place).release
        own = self._sums(self._own)
        mean, numbers = self._own.numbers.mean(0), bank.numbers[left][0]
        found = {
            WEIGHTS: features_by_weights(self._before.release, after, own),
            TOTALS: features_by_totals(self._sums(bank), self._sums(place.bank)),
            GUESSES: self._own.numbers[generator.integers(len(self._own.numbers))],
        }
        return {name: 100 * likeness(one, numbers, mean) for name, one in found.items()}

    def _solve(self, place: SolvedPlace) -> SolvedFederation:
        return solve_federation({_PLACE: place}, self._settings, self._read)

    def _confidence(self, federation: SolvedFederation) -> NDArray[np.float64]:
        return label_confidence(federation.weights_alone(_PLACE, self._records), self._records)

    def _sums(self, bank: NumberedRecords) -> Sums:
        sums = Sums.zeros(SumsShape(FOLDS, self._read.size, self._settings.num_classes))
        sums.add(bank.numbers, bank.labels, bank.folds)
        return sums


def _check(encoded: EncodedSet, counts: Sequence[int]) -> None:
    records = int((encoded.images.records.splits == Split.TRAIN.value).sum())
    if max(counts) >= records:
        raise InvalidSetting(f"--changed {max(counts)}: {encoded.name} has {records} training records; some must stay")


def _summary(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {name: interval_document(Interval.of([one[name] for one in found])) for name in found[0]}


def _table(results: Sequence[dict[str, Any]], seeds: int) -> Table:
    table = Table(title=f"Who left between two releases? Mean of {seeds} draws ± 95% interval", title_justify="left")
    table.add_column("data")
    for heading in ("records changed", ASKING, WEIGHTS, TOTALS):
        table.add_column(heading, justify="right")
    for one in results:
        table.add_row(one["data"], str(one["changed"]), *_shown(one["auroc"], (ASKING, WEIGHTS, TOTALS)))
    return table


def _reconstructed_table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="What is found of a single record that left, without its image?", title_justify="left")
    table.add_column("data")
    for heading in (WEIGHTS, TOTALS, GUESSES):
        table.add_column(heading, justify="right")
    for one in results:
        table.add_row(one["data"], *_shown(one["likeness"], (WEIGHTS, TOTALS, GUESSES)))
    return table


def _shown(figures: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [Interval(figures[name]["mean"], figures[name]["half"] or float("nan")).text(1) for name in names]
