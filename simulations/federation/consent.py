"""Which simulated patients have given their records for good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.randomness import derive_seed


def donate(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Make some subjects' consents permanent; all other consents stay as they are.

    Records that are permanent already count, and their subjects are not asked again.

    `share`, from 0 to 1, is of the records of each split that should be permanent. Whole subjects are drawn until there
    are as many, so that the share may be exceeded by part of one subject's records, or in later splits by those of
    subjects that were drawn in an earlier one. Raises `InvalidSetting` if the share is out of range.
    """
    if not 0 <= share <= 1:
        raise InvalidSetting(f"{100 * share:g}% of the records cannot be permanent; give from 0% to 100%")
    if not share:
        return dataset
    permanent = dataset.consents == Consent.PERMANENT.value
    decided = np.isin(dataset.subject_ids, dataset.subject_ids[permanent])
    for split in Split:
        in_split = dataset.splits == split.value
        undecided = in_split & ~decided
        wanted = round(share * int(in_split.sum())) - int((in_split & permanent).sum())
        generator = np.random.default_rng(derive_seed(seed, "consent", split.value))
        drawn = _draw_subjects(dataset.subject_ids[undecided], wanted, generator)
        # A subject has one consent, in whichever splits its records are.
        permanent |= np.isin(dataset.subject_ids, drawn)
        decided |= np.isin(dataset.subject_ids, dataset.subject_ids[undecided])
    return replace(dataset, consents=np.where(permanent, Consent.PERMANENT.value, dataset.consents))


def _draw_subjects(subject_ids: NDArray[np.str_], wanted: int, generator: np.random.Generator) -> NDArray[np.str_]:
    """Draw subjects until they have as many records as wanted."""
    subjects, sizes = np.unique(subject_ids, return_counts=True)
    order = generator.permutation(len(subjects))
    before = np.cumsum(sizes[order]) - sizes[order]
    drawn: NDArray[np.str_] = subjects[order[before < wanted]]
    return drawn


def parse_share(text: str) -> float:
    """Read a percentage such as `30%`, or a share such as `0.3`.

    Raises `InvalidSetting` if it is neither, or out of range.
    """
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        raise InvalidSetting(f"{text!r} is not a share; write for example 30%") from None
    if not 0 <= share <= 1:
        raise InvalidSetting(f"{text} is out of range; give from 0% to 100%")
    return share
