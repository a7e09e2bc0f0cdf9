"""The reference of the two files of settings, `docs/files.md`, rendered from their classes.

`munkey-sim files-reference` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedmunkey.common.settings.settings_text import kebab

_INTRODUCTION = """\
# Files of settings

`coordinator.toml` and `site.toml`, from which `up` starts everything, and in which other commands look up what was not
typed. Paths are meant from the file's own folder. A line that is not here, or a value that cannot be used, is refused
with one line that says so; `doctor` looks for what else is wrong. `deploy/` has an example of each.

This file is generated from the code by `make docs`.
"""
_HEADER = "| line | default | allowed | meaning |\n| --- | --- | --- | --- |"
_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_KINDS: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
    Path: "path",
    tuple[str, ...]: "list of texts",
}


def files_reference(files: Mapping[str, type[BaseModel]]) -> str:
    """Return the text of `docs/files.md`: a part for each file, and one for each section that has lines of its own."""
    return "\n".join([_INTRODUCTION, *(line for name, kind in files.items() for line in _part(name, kind))])


def _part(title: str, kind: type[BaseModel], level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {title}\n\n{_HEADER}"
    sections = []
    for name, info in kind.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            sections.append((name, info.annotation))
        yield f"| `{kebab(name)}` | {_default(info)} | {_allowed(info)} | {info.description} |"
    yield ""
    for name, section in sections:
        yield from _part(f"[{kebab(name)}]", section, level + 1)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value:g}`"
    return f'`"{value}"`' if isinstance(value, str) and value else ""


def _allowed(info: FieldInfo) -> str:
    kind = info.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Literal:
        return ", ".join(f'`"{word}"`' for word in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f'`"{member.value}"`' for member in kind)
    if kind is str:
        # Only addresses are checked by a function.
        return "`host:port`" if any(hasattr(checked, "func") for checked in info.metadata) else "text"
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in info.metadata
        for name, sign in _LIMITS.items()
        if hasattr(limit, name)
    ]
    return f"{_KINDS.get(kind, 'section')} {' and '.join(limits)}".strip()
