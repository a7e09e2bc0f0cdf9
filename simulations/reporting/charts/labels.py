"""Where labels go beside their points, such that they hide neither each other nor a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedmunkey.simulations.reporting.charts.drawing import Point

LETTER = 6.6
"""Width of an average letter, in units of a drawing."""
_HEIGHT = 12.0
_POINT = 5.0
_DISTANCES = (9, 17, 27, 39, 53, 69)
_DIRECTIONS = 16


@dataclass(frozen=True)
class Box:
    """A rectangle on a drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the area that two rectangles share."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)


@dataclass(frozen=True)
class Label:
    """Words beside a point.

    Attributes
    ----------
    words : str
        What is written.
    box : Box
        Where.
    point, near : tuple of float
        What is labelled, and the place of the box that is nearest to it.
    """

    words: str
    box: Box
    point: Point
    near: Point

    @property
    def far(self) -> bool:
        """Whether a line should lead from the point to its label."""
        return math.dist(self.point, self.near) > _DISTANCES[1]


def place_labels(points: Sequence[tuple[Point, str]], within: Box) -> list[Label]:
    """Give each point a label, nearest places first; where everything is taken, the one that hides least.

    Points in a crowd choose before others, since these find a place anywhere.
    """
    taken = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for (x, y), _ in points]
    placed: dict[int, Label] = {}
    crowd = [sum(math.dist(one, other) < 60 for other, _ in points) for one, _ in points]
    for number in sorted(range(len(points)), key=lambda number: (-crowd[number], number)):
        point, words = points[number]
        candidates = [
            label
            for distance in _DISTANCES
            for turn in range(_DIRECTIONS)
            if _inside((label := _candidate(point, words, distance, turn)).box, within)
        ]
        best = min(candidates, key=lambda label: sum(label.box.overlap(box) for box in taken), default=None)
        if best is not None:
            placed[number] = best
            taken.append(best.box)
    return [placed[number] for number in sorted(placed)]


def _candidate(point: Point, words: str, distance: float, turn: int) -> Label:
    angle = 2 * math.pi * turn / _DIRECTIONS
    away = math.cos(angle), math.sin(angle)
    width = LETTER * len(words)
    # The box touches the circle of that radius with the side that faces the point.
    left = point[0] + away[0] * distance - width * (1 - away[0]) / 2
    top = point[1] + away[1] * distance - _HEIGHT * (1 - away[1]) / 2
    box = Box(left, top, left + width, top + _HEIGHT)
    near = min(max(point[0], box.left), box.right), min(max(point[1], box.top), box.bottom)
    return Label(words, box, point, near)


def _inside(box: Box, within: Box) -> bool:
    across = within.left <= box.left and box.right <= within.right
    return across and within.top <= box.top and box.bottom <= within.bottom
