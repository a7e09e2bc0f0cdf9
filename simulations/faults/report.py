"""What a run under faults has found, as a table, as one line and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from fedmunkey.common.failpoints import Failpoint
from fedmunkey.simulations.faults.driver import FaultOutcome
from fedmunkey.simulations.faults.running_federation import RANDOM_TIME, ProcessRole
from fedmunkey.simulations.programs.machine import describe_machine, describe_versions

_PACKAGES = ("fedmunkey", "grpcio", "sqlalchemy", "torch")


def document(outcome: FaultOutcome, command: str) -> dict[str, Any]:
    """Return everything as JSON holds it, beside the command line that made it."""
    findings, wanted = outcome.findings, outcome.wanted
    return {
        "command": command,
        "deletions": wanted.deletions,
        "sites": wanted.sites,
        "ledger": "postgresql, two services" if wanted.database else "sqlite, one service",
        "seed": wanted.seed,
        "clean": findings.clean,
        **findings.counts(),
        "broken": findings.broken,
        "requests": dict(sorted(findings.states.items())),
        "kills": {"carried_out": outcome.kills.total(), **dict(sorted(outcome.kills.items()))},
        "failpoints_that_never_killed": _never(outcome),
        "injected": dict(sorted(outcome.injections.items())),
        "submissions": dict(sorted(outcome.submissions.items())),
        "rounds": outcome.rounds,
        "skipped": outcome.skipped,
        "seconds": round(outcome.seconds, 1),
        "machine": describe_machine(),
        "versions": describe_versions(_PACKAGES),
    }


def table(outcome: FaultOutcome) -> Table:
    """Return what a person wants to know first."""
    findings = outcome.findings
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True, justify="right")
    for name, value in (
        ("requests lost", findings.lost),
        ("orders skipped", findings.orders_skipped),
        ("requests and orders refused wrongly", findings.refused_wrongly),
        ("orders applied twice", findings.applied_twice),
        ("records resurrected", findings.resurrected),
        ("tombstones missing", findings.tombstones_missing),
        ("sites whose digest differs", findings.digests_that_differ),
        ("bytes of residue", findings.residue_bytes),
        ("other promises broken", len(findings.broken)),
        *((f"requests {state}", count) for state, count in sorted(findings.states.items())),
        *((f"requests {what}", count) for what, count in sorted(outcome.submissions.items())),
        ("kills at a random time", outcome.kills[RANDOM_TIME]),
        ("kills at a failpoint", outcome.kills.total() - outcome.kills[RANDOM_TIME]),
        ("failpoints that killed", f"{len(_reached()) - len(_never(outcome))} of {len(_reached())}"),
        *((f"injected: {kind.replace('_', ' ')}", count) for kind, count in sorted(outcome.injections.items())),
        ("rounds of training held", outcome.rounds),
        ("seconds", round(outcome.seconds)),
    ):
        shown.add_row(name, str(value))
    return shown


def _never(outcome: FaultOutcome) -> list[str]:
    """Return the failpoints at which no process was killed."""
    return [point.value for point in _reached() if not outcome.kills[point]]


def _reached() -> list[Failpoint]:
    """Return the failpoints that processes of a run come by."""
    return [point for role in ProcessRole for point in role.failpoints]


def closing_line(outcome: FaultOutcome) -> str:
    """Return the lines that say whether every promise was kept, what was broken and what was skipped."""
    findings = outcome.findings
    requests = findings.states.total()
    lines = [f"skipped: {what.replace('_', ' ')}: {why}" for what, why in outcome.skipped.items()]
    lines += [f"broken: {what}" for what in findings.broken]
    if findings.clean:
        lines.append(f"every promise was kept: {requests} requests, {outcome.kills.total()} kills")
    else:
        lines.append("a promise was BROKEN; ledger, key stores and logs are kept beside the report")
    return "\n".join(lines)
