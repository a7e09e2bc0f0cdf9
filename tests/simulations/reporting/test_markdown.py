"""Markdown has the same figures, and is the same for the same findings."""

from __future__ import annotations

import copy
from typing import Any

from fedmunkey.simulations.reporting.markdown import render_markdown


def table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, its first row being the headings of its columns."""
    lines = text.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return [rows[0], *rows[2:]]


def value(mean: float | None, half: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "half": half, "values": []}


def test_comparison_has_a_table_for_each_data_set(comparison: dict[str, Any]) -> None:
    text = render_markdown(comparison)

    headings, *rows = table(text, "bccd")
    assert headings == ["method", "TA (%)", "RA (%)", "FA (%)", "MIA (%)", "Average Gap", "by chance"]
    assert [row[0] for row in rows] == [method["title"] for method in comparison["methods"]]


def test_best_average_gap_without_retraining_is_bold(comparison: dict[str, Any]) -> None:
    gaps = {"munkey": value(0.904, 0.1), "scrub": value(0.896, 0.2), "retrained": value(0.1), "nothing": value(None)}
    for result in comparison["results"]:
        if result["data"] == "bccd":
            result["figures"]["Average Gap"] = gaps.get(result["method"], value(5.0))

    rows = {row[0]: row[5] for row in table(render_markdown(comparison), "bccd")[1:]}

    assert rows["MUNKEY, key deletion"] == "**0.90 ± 0.10**"
    assert rows["SCRUB"] == "**0.90 ± 0.20**"
    assert rows["plain ViT retrained"] == "0.10"
    assert rows["plain ViT, nothing done"] == "–"
    assert sum(cell.startswith("**") for cell in rows.values()) == 2


def test_searched_settings_are_shown_with_what_the_paper_has_and_are_left_out_where_nothing_was_searched(
    comparison: dict[str, Any],
) -> None:
    _, *rows = table(render_markdown(comparison), "Settings searched")

    assert rows == [
        ["bccd", "SCRUB", "2", "rate = 1", "88.8", "86.0"],
        ["bccd", "plain ViT, how it learns", "2", "as published", "92.0", "92.0"],
    ]
    del comparison["searched"]
    assert "Settings searched" not in render_markdown(comparison)


def test_audit_has_measures_attacks_and_verdicts(audit: dict[str, Any]) -> None:
    audit["measures"][0]["after"] = value(83.44, 0.91)
    audit["attacks"][0]["states"]["after"]["true_positives"] = value(0.0126, 0.004)
    del audit["attacks"][0]["states"]["oracle"]

    text = render_markdown(audit)

    assert text.startswith("# Audit of forgetting\n\n**Flagged.** Six of seven checks passed")
    assert table(text, "Verdicts")[-1][:2] == ["Canaries are forgotten", "flagged"]
    assert table(text, "Beside the oracle")[1][:3:2] == ["TA (%)", "83.4 ± 0.9"]
    assert table(text, "Beside the oracle")[-1][:5] == ["Average Gap", "–", "–", "–", "–"]
    assert table(text, "Attacks")[1][5:] == ["1.3 ± 0.4", "–"]
    assert table(text, "Times")[1][0] == "forgetting"


def test_run_has_accuracies_deletions_and_hospitals(run: dict[str, Any]) -> None:
    text = render_markdown(run)

    assert table(text, "Test accuracy, mean over hospitals")[1] == ["MUNKEY, federated", "95.2", "96.5", "95.0"]
    each = table(text, "Test accuracy at each hospital")
    assert each[0] == [
        "hospital",
        "federated, TA %",
        "federated, own mix %",
        "neighbours, TA %",
        "neighbours, own mix %",
    ]
    assert each[1:3] == [["hospital-1", "95.5", "96.5", "92.5", "97.5"], ["hospital-2", "–", "–", "94.5", "98.5"]]
    deletions = table(text, "Deletions")
    assert deletions[1] == ["records:5%@3", "certified", "67", "before", "95.0", "97.0", "99.0", "68.0"]
    assert deletions[-1][3:] == ["oracle", "96.0", "97.5", "94.5", "50.0"]
    assert [row[0] for row in table(text, "Hospitals")[1:]] == ["hospital-1", "hospital-2", "hospital-3"]
    assert table(text, "Times")[1] == ["MUNKEY, federated", "20.0"]


def test_limits_findings_and_command_are_there(document: dict[str, Any]) -> None:
    text = render_markdown(document)

    for sentence in [*document["limits"], *document.get("findings", [])]:
        assert f"- {sentence}\n" in text
    assert f"```\n{document['command']}\n```" in text


def test_only_the_section_of_times_differs_from_run_to_run(document: dict[str, Any]) -> None:
    later = copy.deepcopy(document)
    later |= {"written": "2031-01-01T00:00:00Z", "machine": {"processor": "another"}}
    if "cost" in later:
        later["cost"]["forget_seconds"] = value(7.5)
    for done in later.get("deletions", []):
        done["seconds"]["site"] = 7.5
    for result in later.get("results", []):
        result["figures"]["time"] = value(7.5)

    first, second = (render_markdown(each).split("## Times") for each in (document, later))

    assert first[0] == second[0]
    assert first[1] != second[1]


def test_nothing_in_a_name_is_taken_for_markdown_or_html(audit: dict[str, Any]) -> None:
    audit["data"]["name"] = "<script>alert(1)</script>"
    audit["verdicts"][0]["title"] = "a | b\n# *c*"
    audit["command"] = "echo ```"

    text = render_markdown(audit)

    assert "<script>" not in text.replace("\\<", "")
    assert "| a \\| b # \\*c\\* | passed |" in text
    assert "````\necho ```\n````" in text
