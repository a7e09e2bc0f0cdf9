"""A file of settings in TOML: what it says of one machine's processes, checked before any of them starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.log_format import LogFormat
from fedmunkey.common.settings import explain


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("must be host:port, such as 127.0.0.1:9440")
    return value


def _address_or_none(value: str) -> str:
    return value if not value else _address(value)


Address = Annotated[str, AfterValidator(_address)]
"""`host:port`, with a port that is known before a process takes it."""

OptionalAddress = Annotated[str, AfterValidator(_address_or_none)]
"""An address, or nothing."""


class SettingsFile(BaseModel):
    """Base of the settings of one machine.

    Relative paths are meant from the file's own folder, so that it does not matter where a command is typed.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )

    log_format: LogFormat = LogFormat.TEXT
    start_seconds: float = 120.0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file.

        Raises
        ------
        InvalidSetting
            If it cannot be read, is not TOML, or a key is unknown, missing or has a value that cannot be used. The
            message names the file, the key and the value.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidSetting(f"{path} cannot be read as TOML: {error}") from None
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Self:
        """Check what a file at some path says; as `read`."""
        known = [name.replace("_", "-") for name in cls.model_fields]
        try:
            checked = cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "missing":
                raise InvalidSetting(f"{path}: {first['loc'][0]} is missing; write it into the file") from None
            raise InvalidSetting(f"{path}: {explain(first, known)}") from None
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}: {error}") from None
        folder = path.absolute().parent
        paths = {name: folder / value for name, value in checked if isinstance(value, Path)}
        return checked.model_copy(update=paths)
