from __future__ import annotations

import tomllib
from pathlib import Path

from fedmunkey.common.settings.settings import Settings

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_flower_configuration_is_the_default_settings() -> None:
    flower = tomllib.loads(PROJECT.read_text())["tool"]["flwr"]

    assert flower["app"]["config"] == Settings().to_config()
