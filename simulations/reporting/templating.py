"""What the templates of pages and of Markdown can call."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from fedmunkey.simulations.reporting import best, numerals, plain_words, run_tables

_TEMPLATES = Path(__file__).with_name("templates")


def environment() -> Environment:
    """Return an environment of the templates; in a page nothing in a text is taken for HTML."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {name: getattr(numerals, name) for name in ("decimals", "figure", "share", "seconds", "size", "plain")}
    made.filters |= {**formats, "spread": numerals.interval}
    made.globals |= {
        "guarantee_words": plain_words.guarantee_words,
        "division_words": plain_words.division_words,
        "epsilon_words": plain_words.epsilon_words,
        "identical_words": plain_words.identical_words,
        "times": numerals.times,
        "best_methods": best.best_methods,
        "score": best.score,
        "tables": run_tables,
    }
    return made
