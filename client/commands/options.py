"""Options that several commands of `munkey-client` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import InvalidInput
from common.settings import Settings

SiteDirOption = Annotated[
    Path, typer.Option("--site-dir", help="The site's folder: its key store and its copy of the federation secret.")
]
ServiceOption = Annotated[str, typer.Option("--service", help="Address of the deletion service, host:port.")]
IdentityOption = Annotated[
    Path | None,
    typer.Option("--identity", help="Folder of the identity to show to the service; munkey-client join makes one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
ValidDaysOption = Annotated[
    float,
    typer.Option(min=0.01, max=3650, help="Days for which sites may carry the request out, where it is signed."),
]

SettingOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="A setting of the federation as key=value, see docs/settings.md. Repeatable."),
]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Short for --set encoder=NAME.")]
WeightsOption = Annotated[str | None, typer.Option("--weights", help="Short for --set encoder-weights=FILE.")]

DEFAULT_SERVICE: str = Settings.model_fields["deletion_service"].default
DEFAULT_PATIENCE: float = Settings.model_fields["deletion_patience"].default


def read_ids(path: Path) -> list[str]:
    """Read ids from a text file, one a line; empty lines and spaces around an id do not count.

    Raises `InvalidInput` if the file cannot be read as text, or holds no id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); name a text file with one id a line") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not a UTF-8 text file; write one id a line") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InvalidInput(f"{path} holds no id; write one a line")
    return ids
