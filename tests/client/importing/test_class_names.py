from __future__ import annotations

import pytest

from fedmunkey.client.importing.class_names import choose_classes, class_index
from fedmunkey.common.errors import InvalidDataset, InvalidInput


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["benign", "malignant", "benign", "benign"], ("benign", "malignant")),
        (["2", "0", "2", "0", "0", "2"], ("0", "1", "2")),
        (["1", "malignant", "malignant", ""], ("1", "malignant")),
    ],
)
def test_labels_name_the_classes_where_nothing_else_does(labels: list[str], classes: tuple[str, ...]) -> None:
    assert choose_classes((), (), labels, "scans.csv") == classes


@pytest.mark.parametrize("labels", [[f"patient-{n}" for n in range(10)], ["0", "1", "700"], [""], ["a", "b", "c"]])
def test_column_that_does_not_look_like_classes_is_refused_without_showing_it(labels: list[str]) -> None:
    with pytest.raises(InvalidDataset, match="does not look like classes") as fault:
        choose_classes((), (), labels, "scans.csv")
    assert "patient" not in str(fault.value)


def test_classes_that_were_named_hold() -> None:
    assert choose_classes(("malignant", "benign"), (), ["benign"], "scans.csv") == ("malignant", "benign")
    assert choose_classes((), ("malignant", "benign"), ["other"], "scans.csv") == ("malignant", "benign")


def test_classes_may_be_added_and_not_renumbered() -> None:
    assert choose_classes(("a", "b", "c"), ("a", "b"), [], "scans.csv") == ("a", "b", "c")
    for asked in (("b", "a"), ("a",), ("b", "a", "c")):
        with pytest.raises(InvalidInput, match="the site's classes are a, b"):
            choose_classes(asked, ("a", "b"), [], "scans.csv")


@pytest.mark.parametrize("asked", [("a", "a"), ("a", "")])
def test_every_class_has_a_name_of_its_own(asked: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="every class needs its own"):
        choose_classes(asked, (), [], "scans.csv")


@pytest.mark.parametrize(
    ("label", "classes", "index"),
    [
        ("b", ("a", "b"), 1),
        ("1", ("a", "b"), 1),
        ("01", ("a", "b"), 1),
        ("1", ("1", "0"), 0),
        ("2", ("a", "b"), None),
        ("-1", ("a", "b"), None),
        ("B", ("a", "b"), None),
        ("٣", tuple("abcd"), None),
    ],
)
def test_label_is_a_name_or_else_a_number(label: str, classes: tuple[str, ...], index: int | None) -> None:
    assert class_index(label, classes) == index
