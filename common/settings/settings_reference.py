"""The reference of all settings, `docs/settings.md`, rendered from `Settings`.

`python -m fedmunkey.common.settings.settings_reference` prints it.
"""

from __future__ import annotations

import sys
from enum import StrEnum

from pydantic.fields import FieldInfo

from fedmunkey.common.settings.settings import ImageShape, Settings

_SECTIONS = {
    "seed": "Run",
    "strategy": "Averaging over sites",
    "num-classes": "Images and classes",
    "encoder": "Encoder and image path",
    "patch-size": "Transformer",
    "neighbours": "Retrieval and aggregation",
    "local-steps": "Local training",
    "guarantee": "Guarantee",
    "device": "Machines, folders and addresses",
}
"""Title of each section, by the setting that it begins with."""

_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
"""How a constraint of pydantic is written, by the name of its attribute."""

_INTRODUCTION = """\
# Settings

Everything that a federation agrees on before it trains. Defaults stand in `[tool.flwr.app.config]` of `pyproject.toml`;
a run changes them with `--run-config "num-rounds=5 encoder='vit_b_16'"`. A key that is not here, or a value of the
wrong type or out of range, stops the run with one line that says so.

This file is generated from `common/settings/settings.py` by `make docs`.
"""

_HEADER = "| setting | default | allowed | meaning |\n| --- | --- | --- | --- |"


def settings_reference() -> str:
    """Return the text of `docs/settings.md`: one table for each section, one row for each setting."""
    defaults = Settings().to_config()
    lines = [_INTRODUCTION.rstrip()]
    for key, info in zip(Settings.keys(), Settings.model_fields.values(), strict=True):
        if key in _SECTIONS:
            lines.append(f"\n## {_SECTIONS[key]}\n\n{_HEADER}")
        lines.append(f"| `{key}` | {_literal(defaults[key])} | {_allowed(info)} | {info.description} |")
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    """Write a default as TOML does."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _allowed(info: FieldInfo) -> str:
    """Say which values a setting takes: names, a range, or what kind of text."""
    kind = info.annotation
    if kind is bool:
        return "`true`, `false`"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{member.value}`" for member in kind)
    if kind is ImageShape:
        return "`CxHxW`, C being 1 or 3"
    if kind is str:
        return "`host:port`" if info.metadata else "text"
    words = {int: "whole number", float: "number"}
    limits = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in info.metadata
        for name, sign in _LIMITS.items()
        if hasattr(constraint, name)
    ]
    return f"{words[kind]} {' and '.join(limits)}".strip() if kind in words else "text"


if __name__ == "__main__":
    sys.stdout.write(settings_reference())
