"""Options that several commands of `munkey-client` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from common.errors import InvalidInput
from common.guarantees import Guarantee
from common.settings import Settings
from common.settings_text import ConfigValue, parse_assignments

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

# Of the two commands that take in records.
SiteNameOption = Annotated[str, typer.Option("--site", help="The site's name, as the coordinator knows it.")]
FirstSecretOption = Annotated[
    Path | None,
    typer.Option("--secret", help="The federation secret; needed the first time, the site's folder keeps a copy."),
]
NewConsentOption = Annotated[
    Path | None,
    typer.Option(
        "--new-consent", help="Record ids, one a line, that were deleted and for which consent was given anew."
    ),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="A setting of the federation as key=value, see docs/settings.md. Repeatable."),
]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="Short for --set encoder=NAME.")]
GuaranteeOption = Annotated[
    Guarantee | None,
    typer.Option(
        "--guarantee", help="What the site promises its patients a deletion means; short for --set guarantee=NAME."
    ),
]
EpsilonOption = Annotated[
    float | None, typer.Option("--epsilon", help="With certified, the promised budget; short for --set epsilon=NUMBER.")
]
DeltaOption = Annotated[
    float | None, typer.Option("--delta", help="With certified, how often it may fail; short for --set delta=NUMBER.")
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="Short for --set encoder-weights=FILE.")]

DEFAULT_SERVICE: str = Settings.model_fields["deletion_service"].default
DEFAULT_PATIENCE: float = Settings.model_fields["deletion_patience"].default


def read_ids(path: Path) -> list[str]:
    """Read ids from a text file, one a line; empty lines and spaces around an id do not count.

    Raises
    ------
    InvalidInput
        If the file cannot be read as text, or holds no id.
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


def given_settings(assignments: Sequence[str] | None, shorthands: Mapping[str, object]) -> dict[str, ConfigValue]:
    """Return the settings that a person gave, as `key=value` words or as options of their own.

    Parameters
    ----------
    assignments : sequence of str, optional
        The words after `--set`.
    shorthands : mapping
        Options by the name of their setting; None where an option was left out.

    Raises
    ------
    InvalidSetting
        If a word is not of the form key=value.
    """
    given = parse_assignments(list(assignments or []))
    for name, value in shorthands.items():
        if value is not None:
            given[name] = value if isinstance(value, int | float) else str(value)
    return given
