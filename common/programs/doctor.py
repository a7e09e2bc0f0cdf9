"""What is wrong with a machine, found before it matters: each finding in one line, with the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fedmunkey.common.errors import EXIT_CODE, FedmunkeyError, count_of
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.folder_lock import holder
from fedmunkey.common.settings.addresses import can_listen

EXPIRES_SOON = timedelta(days=30)
"""How long before its end a certificate is said to expire."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what to do about it.

    `stops` says that the machine's programs cannot start, or would do nothing of use, until it is put right.
    """

    what: str
    way_out: str
    stops: bool = True

    @classmethod
    def of(cls, error: FedmunkeyError) -> Finding:
        """Return an error as a finding: what stands after its last semicolon is the way out."""
        what, _, way_out = str(error).rpartition("; ")
        return cls(what, way_out) if what else cls(str(error), "")


Check = Callable[[], Iterable[Finding]]
"""Looks at one thing; a `FedmunkeyError` that it raises is a finding as well."""


def examine(checks: Iterable[Check]) -> list[Finding]:
    """Return what checks find, each whatever the ones before have found."""
    findings: dict[str, Finding] = {}
    for check in checks:
        try:
            for finding in check():
                findings.setdefault(finding.what, finding)
        except FedmunkeyError as error:
            findings.setdefault(str(error).rpartition("; ")[0], Finding.of(error))
    return list(findings.values())


def show_findings(file: Path, findings: list[Finding], sound: str, *, only_stopping: bool, as_json: bool) -> int:
    """Print what was found about a file's machine, or that it is sound; return the exit code.

    It is 0 if nothing was found, or with `only_stopping` nothing that keeps programs from starting.
    """
    bad = [finding for finding in findings if finding.stops or not only_stopping]
    document = {"file": str(file), "sound": not bad, "findings": [asdict(finding) for finding in findings]}
    rows = ([finding.what, finding.way_out] for finding in findings)
    table = command_line.filled_table(["found", "what to do"], [], rows)
    command_line.show(document, as_json, *([table] if findings else []), *([] if bad else [sound]))
    return EXIT_CODE if bad else 0


def expiring(identity: Identity, way_out: str, now: datetime) -> Iterator[Finding]:
    """Find a certificate that ends within `EXPIRES_SOON`."""
    left = identity.not_after - now
    if left < EXPIRES_SOON:
        who = f"the certificate of {identity.role} {identity.name}"
        yield Finding(
            f"{who} expires in {count_of(left.days, 'day')}, on {identity.not_after:%Y-%m-%d}", way_out, stops=False
        )


def taken_ports(folder: Path, addresses: Iterable[tuple[str, str, str]]) -> Iterator[Finding]:
    """Find addresses that another process listens at: each with its setting and the program that is to have it."""
    for setting, address, program in addresses:
        if holder(folder, program) is None and (fault := can_listen(address)):
            yield Finding(f"{setting} = {address} cannot be listened on: {fault}", "choose another port")


def missing(path: Path, what: str, way_out: str, *, stops: bool = True) -> Iterator[Finding]:
    """Find that a file is not there."""
    if not path.exists():
        yield Finding(f"{what} {path} is missing", way_out, stops)
