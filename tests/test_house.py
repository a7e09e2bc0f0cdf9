"""The house: rooms of each top folder, the levels on which they lie, and the imports between them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

Arrows = dict[str, set[str]]


@dataclass(frozen=True)
class Bounds:
    """What a top folder may have at most."""

    rooms: int
    levels: int
    arrows: int


BOUNDS = {
    # The console is a second way to what commands do, and shows the runs.
    "server": Bounds(rooms=12, levels=6, arrows=27),
    # What a round asks lies apart from what Flower calls: training and solving would not fit into one file of `app`.
    # The console is a second way to what commands do, beside them; rounds and imports hold what they see against the
    # federation card, which joining brings. The command line knows by which file of settings its commands go.
    "client": Bounds(rooms=14, levels=8, arrows=45),
    # What is solved for reads settings and model, and masks read certificates and the clock. The federation card is
    # signed by who signs certificates, and says what model and settings are. What consoles share stands on the service,
    # as programs do.
    "common": Bounds(rooms=15, levels=7, arrows=48),
    "simulations": Bounds(rooms=13, levels=7, arrows=35),
}


def arrows_between_rooms(folder: Path, within: str = "fedmunkey") -> Arrows:
    """Return the rooms of a folder, its sub-packages and modules, and which others each imports from."""
    rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    rooms.discard("__init__")
    arrows: Arrows = {room: set() for room in rooms}
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        if room in rooms:
            arrows[room] |= (imported_rooms(path, f"{within}.{folder.name}.") & rooms) - {room}
    return arrows


def imported_rooms(path: Path, prefix: str) -> set[str]:
    """Return the rooms that a file imports from, wherever in the file an import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)}


def levels_of(arrows: Arrows) -> list[set[str]]:
    """Return the rooms of each level from the ground up, each above all that it imports; rooms of a circle are left."""
    levels: list[set[str]] = []
    below: set[str] = set()
    while level := {room for room, imported in arrows.items() if room not in below and imported <= below}:
        levels.append(level)
        below |= level
    return levels


@pytest.mark.parametrize("folder", BOUNDS)
def test_rooms_are_few_and_lie_on_levels_without_a_circle(folder: str) -> None:
    arrows = arrows_between_rooms(ROOT / folder)
    levels = levels_of(arrows)

    assert set(arrows) - set().union(*levels) == set(), "these import each other in a circle"
    assert len(arrows) <= BOUNDS[folder].rooms
    assert len(levels) <= BOUNDS[folder].levels
    assert sum(map(len, arrows.values())) <= BOUNDS[folder].arrows


@pytest.mark.parametrize("folder", BOUNDS)
def test_files_of_a_room_and_rooms_within_it_import_each_other_in_no_circle(folder: str) -> None:
    for room in sorted(path.parent for path in (ROOT / folder).rglob("*/__init__.py")):
        arrows = arrows_between_rooms(room, ".".join(("fedmunkey", *room.relative_to(ROOT).parts[:-1])))

        assert set(arrows) - set().union(*levels_of(arrows)) == set(), f"a circle in {room.relative_to(ROOT)}"


def test_circle_is_found() -> None:
    arrows = {"app": {"model"}, "model": {"store"}, "store": {"model"}, "words": set()}

    assert levels_of(arrows) == [{"words"}]


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    for room in ("ledger", "members"):
        (tmp_path / "server" / room).mkdir(parents=True)
        (tmp_path / "server" / room / "__init__.py").write_text("")
    (tmp_path / "server" / "app.py").write_text("def run():\n    from fedmunkey.server.ledger.view import View\n")
    (tmp_path / "server" / "ledger" / "view.py").write_text("import fedmunkey.server.members.register\n")

    assert arrows_between_rooms(tmp_path / "server") == {"app": {"ledger"}, "ledger": {"members"}, "members": set()}
