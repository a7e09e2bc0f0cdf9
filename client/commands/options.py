"""Options that several commands of `munkey-client` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.programs.options import EncoderOption, JsonOption, ServiceOption, SettingOption, WeightsOption
from fedmunkey.common.proofs.signed_requests import MAXIMUM_DAYS
from fedmunkey.common.settings.settings import Settings

__all__ = [
    "DEFAULT_PATIENCE",
    "DEFAULT_SERVICE",
    "EncoderOption",
    "IdentityOption",
    "JsonOption",
    "MetricsOption",
    "ServiceOption",
    "SettingOption",
    "SiteDirOption",
    "ValidDaysOption",
    "WeightsOption",
]

SiteDirOption = Annotated[
    Path, typer.Option("--site-dir", help="The site's folder: its key store and its copy of the federation secret.")
]
IdentityOption = Annotated[
    Path | None,
    typer.Option("--identity", help="Folder of the identity to show to the service; munkey-client join makes one."),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="Where to serve Prometheus metrics: a port of this machine, or host:port; not served if left out.",
    ),
]
ValidDaysOption = Annotated[
    float,
    typer.Option(min=0.01, max=MAXIMUM_DAYS, help="Days for which a signed request may be carried out."),
]


DEFAULT_SERVICE: str = Settings.model_fields["deletion_service"].default
DEFAULT_PATIENCE: float = Settings.model_fields["deletion_patience"].default
