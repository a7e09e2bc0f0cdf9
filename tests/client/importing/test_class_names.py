from __future__ import annotations

import unicodedata

import pytest

from fedmunkey.client.importing.class_names import LabelSeen, choose_classes, class_index, count_labels
from fedmunkey.common.errors import InvalidDataset, InvalidInput


def seen(labels: list[str], subjects: list[str] | None = None) -> dict[str, LabelSeen]:
    """Count labels of rows from the second on, by default of two subjects that have some of each."""
    given = subjects or [f"subject-{row // 2 % 2}" for row in range(len(labels))]
    return count_labels((row, *both) for row, both in enumerate(zip(labels, given, strict=True), 2))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["benign", "malignant", "benign", "benign"], ("benign", "malignant")),
        (["2", "0", "2", "0", "0", "2"], ("0", "1", "2")),
        (["1", "malignant", "malignant", ""], ("1", "malignant")),
    ],
)
def test_labels_name_the_classes_where_nothing_else_does(labels: list[str], classes: tuple[str, ...]) -> None:
    assert choose_classes((), (), seen(labels), "scans.csv") == classes


@pytest.mark.parametrize("labels", [[f"patient-{n}" for n in range(10)], ["0", "1", "700"], [""], ["a", "b", "c"]])
def test_column_that_does_not_look_like_classes_is_refused_without_showing_it(labels: list[str]) -> None:
    with pytest.raises(InvalidDataset, match="does not look like classes") as fault:
        choose_classes((), (), seen(labels), "scans.csv")
    assert "patient" not in str(fault.value)


def test_classes_that_were_named_hold() -> None:
    assert choose_classes(("malignant", "benign"), (), seen(["benign"]), "scans.csv") == ("malignant", "benign")
    assert choose_classes((), ("malignant", "benign"), seen(["other"]), "scans.csv") == ("malignant", "benign")


def test_classes_may_be_added_and_not_renumbered() -> None:
    assert choose_classes(("a", "b", "c"), ("a", "b"), seen([]), "scans.csv") == ("a", "b", "c")
    for asked in (("b", "a"), ("a",), ("b", "a", "c")):
        with pytest.raises(InvalidInput, match="the site's classes are a, b"):
            choose_classes(asked, ("a", "b"), seen([]), "scans.csv")


@pytest.mark.parametrize("asked", [("a", "a"), ("a", "")])
def test_every_class_has_a_name_of_its_own(asked: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="every class needs its own"):
        choose_classes(asked, (), seen([]), "scans.csv")


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


@pytest.mark.parametrize("fraction", [".0", ",0", ".00", "."])
def test_numbers_with_a_fraction_of_zeros_are_numbers(fraction: str) -> None:
    labels = [f"{number}{fraction}" for number in (*range(11), *range(11), *range(11), *range(11))]

    assert choose_classes((), (), seen(labels), "scans.csv") == tuple(map(str, range(11)))
    assert class_index(f"10{fraction}", tuple(map(str, range(11)))) == 10


@pytest.mark.parametrize("labels", [["0", "1", "0.5", "0.5"], ["-1", "1", "-1", "1"], ["1e0", "0", "1e0", "0"]])
def test_measurements_are_no_classes(labels: list[str]) -> None:
    with pytest.raises(InvalidDataset, match=r"numbers that are not all 0, 1, 2 and so on, such as in row \d"):
        choose_classes((), (), seen(labels), "scans.csv")


def test_numbers_from_one_are_refused_where_they_would_be_off_by_one() -> None:
    with pytest.raises(InvalidDataset, match="numbers from 1 to 2, but classes are numbered from 0; number them"):
        choose_classes((), (), seen(["1", "2", "1", "2"]), "scans.csv")
    with pytest.raises(InvalidDataset, match="numbers from 1 to 2, but classes are numbered from 0 to 1"):
        choose_classes(("benign", "malignant"), (), seen(["1", "2", "1", "2"]), "scans.csv")
    assert choose_classes(("benign", "malignant"), (), seen(["1", "1"]), "scans.csv") == ("benign", "malignant")


@pytest.mark.parametrize("word", ["nan", "NA", "N/A", "", "unknown", "NULL", "#N/A", "?"])
def test_what_says_that_nothing_is_known_is_no_class(word: str) -> None:
    labels = ["0", "1", word, "0", "1", word]

    assert choose_classes((), (), seen(labels), "scans.csv") == ("0", "1")
    assert class_index(word, ("0", "1")) is None
    assert class_index("unknown", ("unknown", "known")) == 0


@pytest.mark.parametrize("pair", [("Benign", "benign"), ("in situ", "In  situ"), ("µm", "μm")])
def test_one_class_in_two_spellings_is_refused_by_its_rows(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidDataset, match="the labels of rows 2 and 4 differ in capitals or spaces only"):
        choose_classes((), (), seen([pair[0], "other", pair[1], "other", pair[0], "other", pair[1]]), "scans.csv")


def test_spellings_of_unicode_are_one_class() -> None:
    composed, apart = "Läsion", unicodedata.normalize("NFD", "Läsion")
    assert composed != apart
    assert choose_classes((), (), seen([composed, apart, "o", "o"]), "scans.csv") == (composed, "o")
    assert class_index(apart, (composed, "o")) == 0


def test_labels_of_one_subject_each_are_refused_without_showing_them() -> None:
    labels = [f"MRN100{row // 2}" for row in range(20)]

    with pytest.raises(InvalidDataset, match="each of them is that of one subject alone") as fault:
        choose_classes((), (), seen(labels, [f"patient-{row // 2}" for row in range(20)]), "scans.csv")
    assert "MRN" not in str(fault.value)


def test_many_words_with_few_rows_each_are_taken_for_ids() -> None:
    labels = [f"MRN100{row // 2}" for row in range(44)]

    with pytest.raises(InvalidDataset, match="does not look like classes"):
        choose_classes((), (), seen(labels, [f"exam-{row}" for row in range(44)]), "scans.csv")


@pytest.mark.parametrize("asked", [("Benign", "benign"), ("a", " ")])
def test_class_names_that_look_alike_are_refused(asked: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="every class needs its own"):
        choose_classes(asked, (), {}, "scans.csv")
