"""A file of settings in TOML: what it says of one machine's processes, checked before any of them starts."""

from __future__ import annotations

import tomllib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities.identity import IDENTITY_FOLDER
from fedmunkey.common.programs.log_format import LogFormat
from fedmunkey.common.programs.supervision import START_SECONDS
from fedmunkey.common.settings.addresses import is_loopback, split_address
from fedmunkey.common.settings.settings_text import explain, kebab


def on_this_machine(danger: str) -> AfterValidator:
    """Return what refuses an address that others can reach; `danger` says what they could do there."""

    def check(value: str) -> str:
        host, port = split_address(value)
        if not is_loopback(host):
            raise ValueError(
                f"whoever reaches it can {danger}; give it an address of this machine only, such as 127.0.0.1:{port}"
            )
        return value

    return AfterValidator(check)


class SettingsFile(BaseModel):
    """Base of the settings of one machine.

    Relative paths are meant from the file's own folder, so that it does not matter where a command is typed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=kebab, populate_by_name=True)

    log_format: LogFormat = Field(
        LogFormat.TEXT, description="How log lines are written: for people, or a JSON object each."
    )
    start_seconds: float = Field(
        START_SECONDS, gt=0, allow_inf_nan=False, description="Seconds that each program may take until it serves."
    )

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where everything that the machine keeps lies."""

    @property
    def identity(self) -> Path:
        """The folder of the member's identity."""
        return self.folder / IDENTITY_FOLDER

    @property
    def flower_home(self) -> Path:
        """Where Flower keeps what it writes."""
        return self.folder / "flower"

    @property
    @abstractmethod
    def listening(self) -> Mapping[str, str]:
        """The addresses at which the machine's programs listen, by their settings; an empty one is not used."""

    def _check_ports(self, path: Path) -> None:
        """Check that no port is given twice; raises `InvalidSetting`. Hosts do not matter."""
        known: dict[int, str] = {}
        for setting, address in self.listening.items():
            if not address:
                continue
            port = split_address(address)[1]
            if port in known:
                raise InvalidSetting(f"{path}: {known[port]} and {setting} both have port {port}; give each its own")
            known[port] = setting

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file.

        Raises `InvalidSetting`, which names the file, the key and the value, if it cannot be read, is not TOML, or a
        key is unknown, missing or has a value that cannot be used.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidSetting(f"{path} cannot be read as TOML: {error}") from None
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Self:
        """Check what a file at some path says; as `read`."""
        known = [kebab(name) for name in cls.model_fields]
        try:
            checked = cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "missing":
                raise InvalidSetting(f"{path}: {first['loc'][0]} is missing; write it into the file") from None
            raise InvalidSetting(f"{path}: {explain(first, known)}") from None
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}: {error}") from None
        checked._check_ports(path)
        folder = path.absolute().parent
        paths = {name: folder / value for name, value in checked if isinstance(value, Path)}
        return checked.model_copy(update=paths)
