"""Steps of training with noise, as a site's account has them. `common.privacy.accounting` says what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class NoisySteps:
    """Some steps of DP-SGD (Abadi et al. 2016, algorithm 1), each on its own Poisson sample of the records.

    Each record takes part in a step with probability `sampling_rate`, in (0, 1], whatever the others do. The noise
    multiplier is the standard deviation of the Gaussian noise on the sum of the clipped gradients, in units of the norm
    that the gradient of each record is clipped to: 0 is no noise, and so no privacy. Values out of range raise
    `ValueError`.
    """

    steps: int
    sampling_rate: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be at least 0, not {self.steps}")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate must be above 0 and at most 1, not {self.sampling_rate}")
        if not 0 <= self.noise_multiplier < math.inf:
            raise ValueError(f"noise_multiplier must be at least 0 and finite, not {self.noise_multiplier}")
