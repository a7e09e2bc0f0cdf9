"""What a site's status says of keys, receipts and the coordinator's log."""

from __future__ import annotations

from typing import Any

from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidIdentity, count_of
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys


def describe_proofs(store: KeyStore) -> dict[str, Any]:
    """Return facts for `munkey-client status`; `alarms` are faults of the log that were seen at any time."""
    folder, book = SiteFolder(store.path.parent), ReceiptBook(store.journal)
    signed, included = book.count()
    facts: dict[str, Any] = {
        "identity": _describe_identity(folder),
        "unsigned_orders": "carried out with --insecure-orders only: there is no trust.json (development)",
        "signing_key": None,
        "receipts": {"signed": signed, "in_the_log": included},
        "log": None,
        "alarms": [f"{alarm.fault} (seen {alarm.first_seen} to {alarm.last_seen})" for alarm in book.alarms()],
    }
    if folder.identity.exists():
        facts["unsigned_orders"] = "refused, and signed ones as well: trust.json is missing"
    if folder.trust.exists():
        trust = TrustedKeys.read(folder.trust)
        facts["unsigned_orders"] = "refused"
        facts["log"] = "not witnessed: trust.json has no key of the log" if not trust.of(Role.LOG) else "not seen yet"
    if folder.signing_key.exists():
        facts["signing_key"] = SigningKey.read(folder.signing_key).public.key_id
    if store.journal.has_seen_log() is None:
        facts["log"] = "what the site had seen of it is lost, so orders wait: see munkey-client catch-up --accept-log"
    if head := book.head():
        facts["log"] = f"{count_of(head.size, 'leaf', 'leaves')}, root {head.root.hex()}"
    return facts


def _describe_identity(folder: SiteFolder) -> str | None:
    """Return until when the site's certificate is good, or what is wrong with it; None without an identity."""
    try:
        identity = folder.find_identity()
    except InvalidIdentity as error:
        return str(error)
    return None if identity is None else f"{identity.role} {identity.name}, good until {identity.not_after:%Y-%m-%d}"
