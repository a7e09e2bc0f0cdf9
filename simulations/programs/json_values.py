"""Values as JSON can hold them: it has no word for infinity or for what is not a number."""

from __future__ import annotations

import math
from typing import Any

from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue


def finite_only(value: Any) -> Any:
    """Replace every number that is not finite by None, in dicts, lists and tuples of any depth."""
    if isinstance(value, dict):
        return {name: finite_only(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_only(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def settings_values(settings: Settings) -> dict[str, ConfigValue]:
    """Return settings such that `Settings.parse` reads the same ones back: an infinite number as the text `inf`."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in settings.to_config().items()
    }
