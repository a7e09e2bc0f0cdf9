"""Settings as people write them: words of a command line, addresses, and what is said where something is wrong."""

from __future__ import annotations

import difflib
import tomllib
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import ErrorDetails

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.settings.addresses import known_address

ConfigValue = bool | int | float | str


def kebab(name: str) -> str:
    """Return a field's name as users write it."""
    return name.replace("_", "-")


Address = Annotated[str, AfterValidator(known_address)]
"""`host:port`, with a port that is known before a process takes it."""

OptionalAddress = Annotated[str, AfterValidator(lambda value: value and known_address(value))]
"""An address, or nothing."""


_GONE = {
    "trained-weights": "what is trained follows from guarantee and depth; leave it out",
    "fewest-permanent": "under exact records of any consent teach; learns-from = permanent keeps to those of permanent",
    "linear-learning-rate": "exact weights are solved for in one round; leave it out",
    "empirical-sampling-rate": "empirical training takes every record in each epoch; leave it out",
}
"""Settings of earlier versions, and what to do without them."""


def explain(error: ErrorDetails, known: list[str]) -> str:
    """Turn a pydantic error into one line: the key, the value and what is allowed."""
    key = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, known, n=1)
        if key in _GONE:
            return f"{key} is no setting any more: {_GONE[key]}"
        hint = f"did you mean {close[0]}?" if close else "see docs/settings.md for all settings"
        words = f"unknown setting {key}: {hint}"
    else:
        message = error["msg"].removeprefix("Value error, ")
        words = f"{key} = {error['input']}: {message.removeprefix('Input ')}" if key else message
    return " ".join(words.split())


def parse_assignments(assignments: list[str]) -> dict[str, ConfigValue]:
    """Read `key=value` words as a command line gives them; values are TOML booleans, numbers or strings, or plain text.

    Raises `InvalidSetting` if a word has no `=`, or nothing before it.
    """
    config: dict[str, ConfigValue] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise InvalidSetting(f"{assignment!r} is not of the form key=value")
        config[key.strip()] = _value(text)
    return config


def given_settings(assignments: list[str] | None, **shorthands: ConfigValue | None) -> dict[str, ConfigValue]:
    """Return the settings that a command was given, as `--set key=value` or by an option that is short for it.

    Shorthands have underscores in their names, and are None where they were not given. Raises `InvalidSetting`.
    """
    given = {kebab(name): value for name, value in shorthands.items() if value is not None}
    return parse_assignments(assignments or []) | given


def _value(text: str) -> ConfigValue:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = read.pop("value")
    # A folder may be named like a TOML date, and a second line would be a second key.
    return value if isinstance(value, bool | int | float | str) and not read else text
