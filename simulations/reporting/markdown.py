"""A report as Markdown, for a README or a page of documentation.

Times and the machine stand in a section of their own: all before it is the same whenever the same command is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from simulations.reporting import run_tables
from simulations.reporting.best import best_methods
from simulations.reporting.charts.tradeoff import GAP
from simulations.reporting.numerals import UNKNOWN, decimals, figure, interval, plain, seconds, share, size, times
from simulations.reporting.plain_words import epsilon_words, guarantee_words, identical_words

_Blocks = Callable[[Mapping[str, Any]], list[str]]
_SECONDS = "s"
"""Unit of the columns that are times."""


def render_markdown(document: Mapping[str, Any]) -> str:
    """Return a valid document as Markdown; the same document gives the same text."""
    body, times = _KINDS[document["kind"]]
    blocks = [
        *body(document),
        "## What this does not show",
        _bullets(document["limits"]),
        "## Make it again",
        _fenced(document["command"]),
        "## Times",
        *times(document),
        f"Measured {document['written']} on: {_machine(document)}.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _run(run: Mapping[str, Any]) -> list[str]:
    hospitals, final, guarantee = run["hospitals"], run["final"], run["guarantee"]
    setting = (
        f"{_text(run['data'])}, {_count(hospitals, 'hospital')} (alpha = {plain(run['alpha'] or 'inf')}), "
        f"{_count(run['rounds'], 'round')}, seed {run['seed']}, guarantee {guarantee['name']}, "
        f"{share(guarantee['permanent'])} of the records given for good."
    )
    gap = final["average_gap"]
    deletions = [
        "## Deletions",
        _columns(run_tables.DELETIONS, _flat(run), (0, 1, 2, 5, 6, 7, 8, 9)),
        "" if gap is None else f"Average Gap to the oracle at the end: {decimals(gap)} points.",
    ]
    return [
        f"# {_count(hospitals, 'hospital')} that learn together and forget",
        _text(run["headline"]["sentence"]),
        setting,
        "## Test accuracy, mean over hospitals",
        _columns(run_tables.ACCURACY, run_tables.accuracy_rows(run), (0, 1, 2)),
        *(deletions if run["deletions"] else ()),
        "## Hospitals",
        _columns(run_tables.HOSPITALS, run_tables.hospital_rows(run), range(6)),
    ]


def _run_times(run: Mapping[str, Any]) -> list[str]:
    took = _columns(run_tables.DELETIONS, _flat(run)[: 2 * len(run["deletions"])], (0, 3, 4))
    training = _columns(run_tables.ACCURACY, run_tables.accuracy_rows(run), (0, 3))
    return [training, took if run["deletions"] else ""]


def _flat(run: Mapping[str, Any]) -> list[run_tables.Row]:
    return [row for rows in run_tables.deletion_rows(run) for row in rows]


def _columns(headings: Sequence[str], rows: Sequence[run_tables.Row], chosen: Iterable[int]) -> str:
    """Return some columns of a table."""
    places = list(chosen)
    cells = [[_text(row[place]) for place in places] for row in rows]
    return _table([headings[place] for place in places], cells)


def _audit(audit: Mapping[str, Any]) -> list[str]:
    question, guarantee = audit["question"], audit["guarantee"]
    setting = (
        f"{_text(audit['data']['name'])}, {question['hospitals']} hospitals (alpha = {_text(question['alpha'])}), "
        f"{figure(question['forgotten'])} records forgotten ({share(question['forget'])}, "
        f"{_text(question['forget_set']['title'])}), method {_text(question['method'])}, "
        f"guarantee {guarantee['name']}, {_count(question['seeds'], 'seed')}."
    )
    meaning = " ".join(
        (guarantee_words(guarantee["name"]), epsilon_words(guarantee), identical_words(guarantee["identical"]))
    )
    verdicts = [(_text(one["title"]), _verdict(one["passed"]), _text(one["sentence"])) for one in audit["verdicts"]]
    states = ("before", "after", "oracle", "other_oracle", "gap", "chance")
    measures = [(_text(_unit(one)), *(interval(one.get(state)) for state in states)) for one in audit["measures"]]
    return [
        "# Audit of forgetting",
        _headline(audit["headline"]),
        setting,
        "## The guarantee",
        f"{' '.join(meaning.split())} What remains of a deleted record: {_text(guarantee['remains'])}.",
        "## Verdicts",
        _table(("checked", "verdict", "found"), verdicts, numbers=False),
        "## Beside the oracle",
        _table(("", "before", "after", "oracle", "second oracle", "gap", "by chance"), measures),
        "## Attacks",
        _table(_ATTACK_HEADINGS, [_attack(one) for one in audit["attacks"]]),
    ]


_ATTACK_HEADINGS = (
    "attack",
    *(f"AUROC {state}" for state in ("before", "after", "oracle")),
    *(f"found at 1% FPR, {state} (%)" for state in ("before", "after", "oracle")),
)


def _attack(attack: Mapping[str, Any]) -> tuple[str, ...]:
    states = [attack["states"].get(name) for name in ("before", "after", "oracle")]
    aurocs = [UNKNOWN if state is None else interval(state["auroc"], 3) for state in states]
    found = [UNKNOWN if state is None else interval(state["true_positives"], 1, 100) for state in states]
    return (_text(attack["title"]), *aurocs, *found)


def _audit_times(audit: Mapping[str, Any]) -> list[str]:
    cost = audit["cost"]
    means = [cost[name]["mean"] for name in ("forget_seconds", "retrain_seconds")]
    rows = [
        ("forgetting", seconds(means[0]), size(cost["forget_bytes"])),
        ("retraining", seconds(means[1]), size(cost["retrain_bytes"])),
    ]
    ratio = f"Retraining takes {times(means[1] / means[0])} as long." if means[0] and means[1] else ""
    return [_table(("", "time", "sent"), rows), ratio]


def _comparison(comparison: Mapping[str, Any]) -> list[str]:
    question = comparison["question"]
    setting = (
        f"{question['hospitals']} hospitals (alpha = {_text(question['alpha'])}), {share(question['forget'])} of the "
        f"training records forgotten ({_text(question['forget_set']['title'])}), {share(question['permanent'])} given "
        f"for good, {figure(question['canaries'])} canaries, {_count(question['seeds'], 'seed')}; mean ± 95% interval. "
        f"Bold: the smallest {GAP} among methods that do not retrain."
    )
    finished, total = comparison["finished"], comparison["total"]
    missing = f"Not complete: {figure(finished)} of {figure(total)} trials." if finished < total else ""
    tables = [block for data in comparison["sets"] for block in _data_table(comparison, data["name"])]
    wins = ["## Wins and losses", _bullets(comparison["findings"])] if comparison["findings"] else []
    return ["# Ways to forget", _headline(comparison["headline"]), setting, missing, *tables, *wins]


def _data_table(comparison: Mapping[str, Any], data: str) -> list[str]:
    columns = [column for column in comparison["columns"] if column["unit"] != _SECONDS]
    found = {result["method"]: result["figures"] for result in comparison["results"] if result["data"] == data}
    best = {column["name"]: best_methods(comparison, data, column) for column in columns if column["name"] == GAP}
    rows = []
    for method in comparison["methods"]:
        if method["name"] in found:
            figures = found[method["name"]]
            shown = [(column["name"], interval(figures.get(column["name"]), column["digits"])) for column in columns]
            cells = [f"**{text}**" if method["name"] in best.get(name, ()) else text for name, text in shown]
            rows.append((_text(method["title"]), *cells))
    return [f"## {_text(data)}", _table(("method", *(_text(_unit(column)) for column in columns)), rows)]


def _comparison_times(comparison: Mapping[str, Any]) -> list[str]:
    names = [data["name"] for data in comparison["sets"]]
    figures = {(result["data"], result["method"]): result["figures"] for result in comparison["results"]}
    blocks = []
    for column in (column for column in comparison["columns"] if column["unit"] == _SECONDS):
        rows = [
            (
                _text(method["title"]),
                *(
                    interval(figures.get((name, method["name"]), {}).get(column["name"]), column["digits"])
                    for name in names
                ),
            )
            for method in comparison["methods"]
        ]
        blocks.append(_table((_text(_unit(column)), *map(_text, names)), rows))
    return blocks


def _headline(headline: Mapping[str, Any]) -> str:
    return f"**{_verdict(headline['passed']).capitalize()}.** {_text(headline['sentence'])}"


def _verdict(passed: bool) -> str:
    return "passed" if passed else "flagged"


def _unit(item: Mapping[str, Any]) -> str:
    return f"{item['name']} ({item['unit']})" if item["unit"] else str(item["name"])


def _count(things: Sequence[Any], word: str) -> str:
    return f"{len(things)} {word}{'s' * (len(things) != 1)}"


def _machine(document: Mapping[str, Any]) -> str:
    return _text(", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in document["machine"].items()))


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_text(sentence)}" for sentence in sentences)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    rule = ["---", *["---:" if numbers else "---"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def _text(words: str) -> str:
    """Return words on one line, such that nothing in them is taken for Markdown or HTML."""
    return re.sub(r"([\\|<>*`\[\]])", r"\\\1", " ".join(words.split()))


def _fenced(command: str) -> str:
    """Return a block of code, with a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{command}\n{fence}"


_KINDS: dict[str, tuple[_Blocks, _Blocks]] = {
    "run": (_run, _run_times),
    "audit": (_audit, _audit_times),
    "comparison": (_comparison, _comparison_times),
}
"""How each kind of report is written, and its times."""
