"""A report as Markdown, for a README or a page of documentation.

Times and the machine stand in a section of their own: all before it is the same whenever the same command is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment

from fedmunkey.simulations.reporting.templating import environment


def render_markdown(document: Mapping[str, Any]) -> str:
    """Return a valid document as Markdown; the same document gives the same text."""
    text = _environment().get_template(f"{document['kind']}.md").render(report=document)
    # What has nothing to say leaves empty lines behind.
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _environment() -> Environment:
    made = environment()
    made.filters |= {"text": _text, "fenced": _fenced}
    return made


def _text(words: str) -> str:
    """Return words on one line, such that nothing in them is taken for Markdown or HTML."""
    return re.sub(r"([\\|<>*`\[\]])", r"\\\1", " ".join(words.split()))


def _fenced(command: str) -> str:
    """Return a block of code, with a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{command}\n{fence}"
