"""What tests of several packages need."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from common.model import Munkey


@pytest.fixture(scope="session")
def opinionated() -> Callable[[Munkey], Munkey]:
    """Return a function that draws those weights of a model that are zero at first, so that it has an opinion."""

    def draw(model: Munkey) -> Munkey:
        draws = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.startswith(("linear.", "head.")):
                    weight.normal_(generator=draws)
        return model

    return draw
