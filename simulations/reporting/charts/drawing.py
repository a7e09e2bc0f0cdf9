"""What all charts share: matplotlib in the page's colours, as SVG inside of a page or as a picture in a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from xml.etree.ElementTree import Element, fromstring, tostring

import matplotlib
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

_P = ParamSpec("_P")
_R = TypeVar("_R")

_SHEET = Path(__file__).parents[1] / "templates" / "page.css"
COLOURS = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", _SHEET.read_text(encoding="utf-8").partition("}")[0]))
"""The page's colours in a light scheme, by name: in a page each is written as its name, and follows the scheme."""
_NAMES = {colour: name for name, colour in reversed(COLOURS.items())}
_COLOUR = re.compile("|".join(_NAMES))
_COLOURED = {
    "card": ("figure.facecolor",),
    "grid": ("grid.color",),
    "ink": ("text.color",),
    "quiet": ("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"),
    "rule": ("axes.edgecolor",),
}
_STYLE: dict[Any, Any] = {
    **matplotlib.rc_params_from_file(Path(__file__).with_name("page.mplstyle"), use_default_template=False),
    **{parameter: COLOURS[name] for name, parameters in _COLOURED.items() for parameter in parameters},
}
_WIDTH = 400
_INCH = 72
"""Units, which the style sheet scales to the page's width."""
_TIP, _RIMMED = "tip:", "rimmed"


@dataclass(frozen=True)
class Chart:
    """A figure with its title and a caption that says how to read it."""

    title: str
    caption: str
    figure: Figure

    def __post_init__(self) -> None:
        settle(self.figure)

    @property
    def svg(self) -> Markup:
        """The figure as an element of a page; the same figure gives the same text, and nothing in it is loaded."""
        drawn, title = StringIO(), Element("title")
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.title}):
            self.figure.savefig(drawn, format="svg", metadata={"Date": None})
        root, title.text = fromstring(drawn.getvalue()), self.title  # noqa: S314 (matplotlib's own)
        drawn_parts = [part for part in root if part.tag.endswith("}g") or part.find("{*}clipPath") is not None]
        root[:], root.attrib = [title, *drawn_parts], {"viewBox": root.attrib["viewBox"], "role": "img"}
        for element in root.iter():
            _adapt(element)
        # The serialiser has escaped every text in it.
        return Markup(tostring(root, encoding="unicode"))  # noqa: S704

    def save(self, path: Path) -> None:
        """Write the figure as a picture, in the format that the path's ending names."""
        labels = [text for text in self.figure.findobj(Text) if text.get_gid() == _RIMMED]
        with matplotlib.rc_context(_STYLE):
            # In a page the rim is the style sheet's, since effects would turn words into outlines.
            for text in labels:
                text.set_path_effects([withStroke(linewidth=4, foreground=COLOURS["card"])])
            self.figure.savefig(path, dpi=2 * _INCH)
            for text in labels:
                text.set_path_effects([])


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function draw in the page's style."""

    @wraps(draw)
    def drawn(*words: _P.args, **options: _P.kwargs) -> _R:
        with matplotlib.rc_context(_STYLE):
            return draw(*words, **options)

    return drawn


def new_figure(height: float) -> Figure:
    """Return an empty figure that is 400 units wide."""
    return Figure(figsize=(_WIDTH / _INCH, height / _INCH), dpi=_INCH, layout="constrained")


def settle(figure: Figure) -> None:
    """Give everything its place for good: laid out once more, it would move a little."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def tip(artist: Artist, words: str) -> None:
    """Show words when a shape is pointed at, in a page."""
    artist.set_gid(f"{_TIP}{words}")


def annotate(axes: Axes, words: str, at: tuple[float, float], away: tuple[float, float], **options: Any) -> None:
    """Write words so many units away from a place, with a rim of the page's colour that keeps them readable."""
    text = axes.annotate(words, at, away, textcoords="offset points", **options)
    text.set_in_layout(False)
    text.set_gid(_RIMMED)


def add_legend(figure: Figure, handles: Sequence[Artist], columns: int = 3) -> None:
    """Say below a figure what the labelled artists mean."""
    figure.legend(handles=handles, loc="outside lower left", ncols=columns)


def percent(value: float, _: float = 0) -> str:
    """Return the label of a tick that stands at so many percent."""
    return f"{value:g}%"


def share_axis(axes: Axes) -> None:
    """Make the lower axis one of shares, from 0 to 1."""
    quarters = (0, 0.25, 0.5, 0.75, 1)
    axes.set_xlim(0, 1)
    axes.set_xticks(quarters, [percent(100 * part) for part in quarters])


def _adapt(element: Element) -> None:
    """Take from an element what only a file of its own needs, and give it the page's colours."""
    given = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    element.tag, element.attrib = element.tag.rpartition("}")[2], given
    element.text, element.tail = (element.text or "").strip() or None, None
    # What matplotlib calls groups is the same in every figure; the names of what is referred to are made from content.
    name = given.pop("id", "") if element.tag == "g" else ""
    if name.startswith(_TIP):
        element.insert(0, Element("title"))
        element[0].text = name.removeprefix(_TIP)
    if name == _RIMMED:
        given["class"] = name
    if "style" in given:
        style = re.sub(r"font-family: [^;]*(; |$)", "", given["style"])
        given["style"] = _COLOUR.sub(lambda found: f"var(--{_NAMES[found[0]]})", style)
    if "d" in given:
        given["d"] = " ".join(given["d"].split())
