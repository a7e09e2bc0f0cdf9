"""Which class a label of a manifest means: labels are names of classes or their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from fedmunkey.common.errors import InvalidDataset, InvalidInput

_MOST_FOUND = 100
"""Classes that labels alone may name; with more, the column is likely to hold something else."""


def choose_classes(
    asked: tuple[str, ...], held: tuple[str, ...], labels: Sequence[str], manifest: str
) -> tuple[str, ...]:
    """Return the names of all classes, in the order of their numbers.

    A person has asked for none or all of them, the site has held none before its first import. Where nothing else names
    the classes, the labels of the manifest do: numbers stand for themselves, words are taken in alphabetical order.

    Raises `InvalidInput` if names come twice, or would give a number that the site has another meaning, and
    `InvalidDataset` if the labels alone do not say what the classes are.
    """
    if len(set(asked)) != len(asked) or "" in asked:
        raise InvalidInput("--class gives a name twice, or an empty one; every class needs its own")
    if asked and asked[: len(held)] != held:
        raise InvalidInput(
            f"the site's classes are {', '.join(held)}; name these first and in this order, or leave --class out"
        )
    return asked or held or _found(labels, manifest)


def class_index(label: str, classes: tuple[str, ...]) -> int | None:
    """Return the number of the class that a label means, by its name or else its number; None if there is none."""
    if label in classes:
        return classes.index(label)
    number = _number(label)
    return number if number is not None and number < len(classes) else None


def _found(labels: Sequence[str], manifest: str) -> tuple[str, ...]:
    names = sorted(set(labels) - {""})
    numbers = [number for number in map(_number, names) if number is not None]
    if names and len(numbers) == len(names):
        names = [str(number) for number in range(max(numbers) + 1)]
    # A column of ids would make a class of every patient, and keep the ids.
    if not names or len(names) > min(_MOST_FOUND, max(2, len(labels) // 2)):
        raise InvalidDataset(
            f"{manifest}: the column label has {len(names)} values in {len(labels)} rows, which does not look like "
            "classes; name every class with --class, or another column with --column label=HEADER"
        )
    return tuple(names)


def _number(label: str) -> int | None:
    return int(label) if label.isascii() and label.isdecimal() and len(label) < 6 else None
