"""The transparency log as a console shows it: its head, checked with the trusted keys, and that it only grows."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.common.console.face import Visit
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.merkle import check_consistency
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys

_FIRST, _LAST = "first-head", "last-head"


def show_log(visit: Visit, keys: TrustedKeys | None) -> Response:
    """Show the log's head, and whether it extends the one that this session has seen before."""
    memory = visit.session.memory
    seen: LogHead | None = memory.get(_LAST)
    update = visit.service.log_update(seen.size if seen else 0)
    if update is None:
        return visit.draw("log.html", head=None)
    head = LogHead.of(update.head)
    signers, fault, extends = "", "", None
    try:
        if keys is not None:
            signers = ", ".join(key.name for key in keys.verify(update.head, Role.LOG, head.time))
        if seen is not None:
            check_consistency(seen.size, seen.root, head.size, head.root, update.consistency)
            extends = seen
        memory.setdefault(_FIRST, head)
        memory[_LAST] = head
    except InvalidProof as error:
        fault = str(error)
    return visit.draw(
        "log.html",
        head=head,
        signers=signers,
        fault=fault,
        extends=extends,
        first=memory.get(_FIRST, head),
        restored=[RestoredLog.of(said) for said in update.restored],
    )
