"""Which class a label of a manifest means: labels are names of classes or their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedmunkey.client.importing.identifiers import is_missing, is_number, plain_id, plain_label
from fedmunkey.common.errors import InvalidDataset, InvalidInput
from fedmunkey.common.settings.likeness import check_class_names, likeness

_MOST_FOUND = 100
"""Classes that labels alone may name; with more, the column is likely to hold something else."""

_SOME, _SOME_ROWS = 10, 3
"""With more words than these, labels are taken for ids if there are not so many rows of each."""

_FEW = 2
"""Labels so few that each may well be that of a single subject."""


@dataclass
class LabelSeen:
    """How many rows have a label, the first of them, and whether they are all about one subject, named by a hash."""

    rows: int
    first: int
    subject: int
    one_subject: bool = True


def count_labels(rows: Iterable[tuple[int, str, str]]) -> dict[str, LabelSeen]:
    """Count plain labels, given each row's number, label and subject; what says that there is none is left out."""
    seen: dict[str, LabelSeen] = {}
    for number, text, subject in rows:
        label = plain_label(text)
        found = seen.get(label)
        if found is None:
            seen[label] = LabelSeen(1, number, hash(subject))
        else:
            found.rows += 1
            found.one_subject &= found.subject == hash(subject)
    return seen


def choose_classes(
    asked: tuple[str, ...], held: tuple[str, ...], labels: Mapping[str, LabelSeen], manifest: str
) -> tuple[str, ...]:
    """Return the names of all classes, in the order of their numbers.

    A person has asked for none or all of them, the site has held none before its first import. Where nothing else names
    the classes, the labels of the manifest do: numbers stand for themselves, words are taken in alphabetical order.

    Raises `InvalidInput` if names come twice, or would give a number that the site has another meaning, and
    `InvalidDataset` if the labels alone do not say what the classes are.
    """
    check_class_names(asked, "--class gives")
    if asked and asked[: len(held)] != held:
        raise InvalidInput(
            f"the site's classes are {', '.join(held)}; name these first and in this order, or leave --class out"
        )
    classes = asked or held
    if classes:
        _check_first_number(labels, classes, manifest)
        return classes
    return _found({label: seen for label, seen in labels.items() if not is_missing(label)}, manifest)


def class_index(label: str, classes: tuple[str, ...]) -> int | None:
    """Return the number of the class that a label means, by its name or else its number; None if there is none."""
    for name in (label, plain_id(label)):
        if name in classes:
            return classes.index(name)
    number = _number(plain_label(label))
    return number if number is not None and number < len(classes) else None


def _check_first_number(labels: Mapping[str, LabelSeen], classes: tuple[str, ...], manifest: str) -> None:
    """Refuse numbers from 1 to the number of classes: each but the last would be taken for the class after it."""
    numbers = [_number(label) for label in labels if not is_missing(label) and label not in classes]
    found = [number for number in numbers if number is not None]
    if found and min(found) == 1 and max(found) == len(classes):
        raise InvalidDataset(
            f"{manifest}: the labels are numbers from 1 to {len(classes)}, but classes are numbered from 0 to "
            f"{len(classes) - 1}; write the classes' names, or number them from 0"
        )


def _found(labels: Mapping[str, LabelSeen], manifest: str) -> tuple[str, ...]:
    rows = sum(seen.rows for seen in labels.values())
    fault = f"{manifest}: the column label has {len(labels)} values in {rows} rows, which does not look like classes"
    way_out = "name every class with --class, or another column with --column label=HEADER"
    names = sorted(labels)
    numbers = [number for number in map(_number, names) if number is not None]
    if names and len(numbers) == len(names):
        if 0 not in numbers:
            raise InvalidDataset(
                f"{manifest}: the labels are numbers from {min(numbers)} to {max(numbers)}, but classes are numbered "
                "from 0; number them so, or name every class with --class"
            )
        names = [str(number) for number in range(max(numbers) + 1)]
    elif names and all(map(is_number, names)):
        raise InvalidDataset(
            f"{manifest}: the column label holds numbers that are not all 0, 1, 2 and so on, such as in row "
            f"{min(labels[name].first for name in names if _number(name) is None)}; number the classes from 0"
        )
    # A column of ids would make a class of every patient, and keep the ids.
    worded = len(names) > _SOME and not numbers and rows < _SOME_ROWS * len(labels)
    if worded or not names or len(names) > min(_MOST_FOUND, max(2, rows // 2)):
        raise InvalidDataset(f"{fault}; {way_out}")
    if len(labels) > _FEW and all(seen.one_subject for seen in labels.values()):
        raise InvalidDataset(f"{fault}: each of them is that of one subject alone; {way_out}")
    _check_alike(labels, manifest)
    return tuple(names)


def _check_alike(labels: Mapping[str, LabelSeen], manifest: str) -> None:
    alike: dict[str, int] = {}
    for label, seen in labels.items():
        first = alike.setdefault(likeness(label), seen.first)
        if first != seen.first:
            raise InvalidDataset(
                f"{manifest}: the labels of rows {min(first, seen.first)} and {max(first, seen.first)} differ in "
                "capitals or spaces only; write one class in one way, or name every class with --class"
            )


def _number(label: str) -> int | None:
    return int(label) if label.isascii() and label.isdecimal() and len(label) < 6 else None
