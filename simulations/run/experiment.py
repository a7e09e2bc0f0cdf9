"""What a simulation is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.run.baselines import Baseline

MOST_WHOLE = 20
"""Hospitals above which each is tested on a share, if nothing else is asked for."""


class HeldOutUse(StrEnum):
    """On which test records hospitals are tested: all on the whole, or each on a share, another one in each round."""

    AUTO = "auto"
    WHOLE = "whole"
    SHARES = "shares"


@dataclass(frozen=True)
class Experiment:
    """What a simulation is asked to do.

    Attributes
    ----------
    data : str
        `digits`, a path to a MedMNIST-layout .npz, or a name that the `medmnist` package knows.
    data_dir : Path or None
        Where downloaded data sets lie.
    alpha : float
        Concentration of the Dirichlet distribution that divides the labels, or the sizes.
    permanent : float or None
        Share of the records that are given for good, from 0 to 1. None leaves consents as the data have them.
    deletions : sequence of str
        The plan, such as `records:5%@3`.
    overrides : dict
        Settings that differ from the defaults.
    output : Path
        Folder of the run; must be absent or empty.
    cores : int
        Hospitals that train at the same time.
    held_out : HeldOutUse
        On which test records each hospital is tested.
    deletion_service : str
        Address of a running service; empty starts one.
    ray_address : str
        Of a Ray cluster that is there; empty starts Ray on this machine.
    storage : Path or None
        Where the hospitals' folders lie, if not in the output folder; every node of a cluster has it at this path.
    command : str
        As it was typed.
    divide_by : DivideBy
        What hospitals differ in.
    feature_shift : float
        How much their scanners differ, from 0 to 1.
    changes : sequence of str
        Which hospitals come and go and which records arrive, such as `join:3@2`.
    """

    data: str
    data_dir: Path | None
    hospitals: int
    alpha: float
    permanent: float | None
    deletions: Sequence[str]
    overrides: dict[str, ConfigValue]
    baselines: Sequence[Baseline]
    output: Path
    cores: int
    held_out: HeldOutUse = HeldOutUse.AUTO
    deletion_service: str = ""
    ray_address: str = ""
    storage: Path | None = None
    command: str = "munkey-sim run"
    divide_by: DivideBy = DivideBy.LABELS
    feature_shift: float = 0.0
    changes: Sequence[str] = ()

    @property
    def shared_folder(self) -> Path:
        """Where the hospitals' folders lie, and the held-out records that they share."""
        return self.storage or self.output

    @property
    def in_shares(self) -> bool:
        """Whether each hospital is tested on a share of the test records."""
        if self.held_out is HeldOutUse.AUTO:
            return self.hospitals > MOST_WHOLE
        return self.held_out is HeldOutUse.SHARES
