"""Where labels go beside their points, such that they hide neither each other nor a point."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.transforms import Bbox

Point = tuple[float, float]
LETTER = 7.2
"""Width of an average letter, in units of a drawing."""
_HEIGHT = 14.0
_POINT = 5.0
_DISTANCES = (9, 17, 27, 39, 53, 69)
_DIRECTIONS = 16
_CROWD = 60.0


def place_labels(points: Sequence[Point], words: Sequence[str], within: Bbox) -> list[Bbox | None]:
    """Return where each point's label goes, nearest places first; where everything is taken, the one that hides least.

    Points in a crowd choose before others, since these find a place anywhere. None for a label that fits nowhere.
    """
    taken = [Bbox.from_extents(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    placed: list[Bbox | None] = [None] * len(points)
    crowd = [sum(math.dist(one, other) < _CROWD for other in points) for one in points]
    for number in sorted(range(len(points)), key=lambda number: -crowd[number]):
        boxes = [
            box
            for distance in _DISTANCES
            for turn in range(_DIRECTIONS)
            if overlap(box := _candidate(points[number], LETTER * len(words[number]), distance, turn), within)
            > 0.999 * box.width * box.height
        ]
        placed[number] = best = min(boxes, key=lambda box: sum(overlap(box, other) for other in taken), default=None)
        taken += [best] if best is not None else []
    return placed


def overlap(one: Bbox, other: Bbox) -> float:
    """Return the area that two rectangles share."""
    shared = Bbox.intersection(one, other)
    return float(shared.width * shared.height) if shared is not None else 0.0


def is_far(box: Bbox, point: Point) -> bool:
    """Return whether a line should lead from a point to its label."""
    near = min(max(point[0], box.x0), box.x1), min(max(point[1], box.y0), box.y1)
    return math.dist(point, near) > _DISTANCES[1]


def _candidate(point: Point, width: float, distance: float, turn: int) -> Bbox:
    angle = 2 * math.pi * turn / _DIRECTIONS
    x, y = math.cos(angle), math.sin(angle)
    # The box touches the circle of that radius with the side that faces the point.
    left, bottom = point[0] + x * distance - width * (1 - x) / 2, point[1] + y * distance - _HEIGHT * (1 - y) / 2
    return Bbox.from_bounds(left, bottom, width, _HEIGHT)
