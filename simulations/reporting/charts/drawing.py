"""SVG, element by element: shapes have classes, and the page's style sheet gives these their colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from fedmunkey.simulations.reporting.charts.scales import Scale

Point = tuple[float, float]


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the class of the shapes, and what they stand for."""

    style: str
    label: str


@dataclass(frozen=True)
class Chart:
    """A drawing with what stands around it on a page.

    Attributes
    ----------
    title, caption : str
        What is shown, and how to read it.
    svg : Markup
        The drawing, safe to put into a page.
    legend : tuple of Key
        What its colours mean.
    """

    title: str
    caption: str
    svg: Markup
    legend: tuple[Key, ...] = ()


class Drawing:
    """An SVG under construction; its size is in units that a style sheet scales to the page's width."""

    def __init__(self, label: str, width: float, height: float) -> None:
        box = f"0 0 {_place(width)} {_place(height)}"
        self._root = Element("svg", {"viewBox": box, "role": "img", "aria-label": label})

    def text(
        self, at: Point, words: str, style: str, *, anchor: str = "start", turned: bool = False, opaque: bool = False
    ) -> None:
        """Write words at a point; `turned` reads upwards, `opaque` has a rim of the page's colour."""
        x, y = map(_place, at)
        given = {"x": x, "y": y, "class": f"{style} rimmed" if opaque else style, "text-anchor": anchor}
        if turned:
            given["transform"] = f"rotate(-90 {x} {y})"
        SubElement(self._root, "text", given).text = words

    def line(self, start: Point, end: Point, style: str) -> None:
        """Draw a straight line."""
        (x1, y1), (x2, y2) = start, end
        ends = {"x1": _place(x1), "y1": _place(y1), "x2": _place(x2), "y2": _place(y2)}
        SubElement(self._root, "line", {**ends, "class": style})

    def path(self, points: Sequence[Point], style: str, *, closed: bool = False) -> None:
        """Draw a line through points, or an area that they enclose; points on the same place are drawn once."""
        places = [f"{_place(x)} {_place(y)}" for x, y in points]
        kept = [place for place, before in zip(places, [None, *places[:-1]], strict=True) if place != before]
        if len(kept) > 1:
            SubElement(self._root, "path", {"d": f"M{'L'.join(kept)}{'Z' * closed}", "class": style})

    def bar(self, corner: Point, width: float, height: float, style: str) -> None:
        """Draw a rectangle from its upper left corner."""
        place = {"x": _place(corner[0]), "y": _place(corner[1]), "width": _place(width), "height": _place(height)}
        SubElement(self._root, "rect", {**place, "class": style})

    def dot(self, at: Point, style: str, tip: str, *, radius: float = 4.5) -> None:
        """Draw a circle that says more when it is pointed at."""
        place = {"cx": _place(at[0]), "cy": _place(at[1]), "r": _place(radius)}
        SubElement(SubElement(self._root, "circle", {**place, "class": style}), "title").text = tip

    def diamond(self, at: Point, style: str, tip: str, *, radius: float = 6) -> None:
        """Draw a diamond that says more when it is pointed at."""
        corners = [(at[0], at[1] - radius), (at[0] + radius, at[1]), (at[0], at[1] + radius), (at[0] - radius, at[1])]
        outline = "L".join(f"{_place(x)} {_place(y)}" for x, y in corners)
        SubElement(SubElement(self._root, "path", {"d": f"M{outline}Z", "class": style}), "title").text = tip

    def markup(self) -> Markup:
        """Return the SVG; the serialiser has escaped every text in it."""
        return Markup(tostring(self._root, encoding="unicode"))  # noqa: S704


def draw_across(
    drawing: Drawing, scale: Scale, ticks: Iterable[tuple[float, str]], title: str, *, top: float, bottom: float
) -> None:
    """Draw a horizontal axis below its grid of vertical lines."""
    for value, words in ticks:
        drawing.line((scale(value), top), (scale(value), bottom), "grid")
        drawing.text((scale(value), bottom + 15), words, "tick", anchor="middle")
    drawing.text(((scale.start + scale.end) / 2, bottom + 33), title, "axis", anchor="middle")


def draw_up(
    drawing: Drawing, scale: Scale, ticks: Iterable[tuple[float, str]], title: str, *, left: float, right: float
) -> None:
    """Draw a vertical axis to the left of its grid of horizontal lines."""
    for value, words in ticks:
        drawing.line((left, scale(value)), (right, scale(value)), "grid")
        drawing.text((left - 6, scale(value) + 4), words, "tick", anchor="end")
    drawing.text((13, (scale.start + scale.end) / 2), title, "axis", anchor="middle", turned=True)


def _place(value: float) -> str:
    """Return a coordinate with a tenth of a unit, which is finer than any screen."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")
