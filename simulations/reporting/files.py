"""The files of a report: the document itself, its page, and its Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmunkey.common.errors import InvalidInput
from fedmunkey.simulations.reporting.document import validate
from fedmunkey.simulations.reporting.html import render_html
from fedmunkey.simulations.reporting.markdown import render_markdown

JSON, HTML, MARKDOWN = "report.json", "report.html", "report.md"


def write_report(document: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Write a report into a folder, which is made if need be, and return the paths of `json`, `html` and `markdown`.

    Raises `InvalidInput` if the document does not follow the schema, or the folder cannot be written to; no file is
    written then.
    """
    validate(document)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _write({"json": (JSON, text), **_pages(document)}, folder)


def write_pages(document: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Write only what is made from a document, as `write_report` does: the paths of `html` and `markdown`."""
    validate(document)
    return _write(_pages(document), folder)


def _pages(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {"html": (HTML, render_html(document)), "markdown": (MARKDOWN, render_markdown(document))}


def _write(contents: Mapping[str, tuple[str, str]], folder: Path) -> dict[str, Path]:
    paths = {kind: folder / name for kind, (name, _) in contents.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, (_, text) in contents.items():
            paths[kind].write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written to ({error.strerror}); name a folder with --output") from None
    return paths
