"""`munkey-client status`: what a site holds and which orders it has carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer

from fedmunkey.client.commands.display import order_document, orders_table
from fedmunkey.client.commands.options import JsonOption, SiteDirOption
from fedmunkey.client.deletions.proof_status import describe_proofs
from fedmunkey.client.importing.array_records import picture_pattern, subject_name
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.membership.site_card import MemberCards
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.words import Acknowledgement
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line


@faults_explained()
def status(site_dir: SiteDirOption, as_json: JsonOption = False) -> None:
    """Show what a site holds and which orders it has carried out.

    Example: munkey-client status --site-dir hospital-1
    """
    folder = SiteFolder(site_dir)
    with folder.open() as store:
        holdings = _Holdings.of(store, folder)
        site = store.description.site
    if as_json:
        orders = [order_document(answer) for answer in holdings.orders]
        command_line.print_json({**holdings.facts, "orders": orders})
        return
    table = command_line.plain_table("", "")
    table.show_header = False
    for name, value in holdings.facts.items():
        if name == "alarms":
            continue
        table.add_row(name.replace("_", " "), _words(value))
    command_line.print_table(table)
    typer.echo(
        f"to delete, type ids as they were enrolled; where an array file gave none, munkey-client ids --data FILE "
        f"--site-dir {site_dir} shows them: {picture_pattern(site)}, and for subject number 7 "
        f"{subject_name(site, 'subject-7')}"
    )
    for fault in holdings.facts["alarms"]:
        typer.echo(f"ALARM: {fault}")
    if holdings.orders:
        command_line.print_table(orders_table(holdings.orders))


@dataclass(frozen=True)
class _Holdings:
    """Counts and names only: nothing here stands for a patient."""

    facts: dict[str, Any]
    orders: list[Acknowledgement]

    @classmethod
    def of(cls, store: KeyStore, folder: SiteFolder) -> _Holdings:
        """Count what a store holds."""
        held = store.description
        records = {split.value: store.records.count(split) for split in Split}
        restored = store.is_restored
        certified = held.guarantee is Guarantee.CERTIFIED
        facts = {
            "site": held.site,
            "records": records,
            "entries": records[Split.TRAIN.value],
            "consents": {consent.value: count for consent, count in sorted(store.records.count_consents().items())},
            "guarantee": held.guarantee.value,
            "budget": {"epsilon": command_line.finite(held.epsilon), "delta": held.delta} if certified else None,
            # Where training is allowed to go without noise, what was spent on noise bounds nothing.
            "spent": status_words.loss_document(store.privacy.loss()) if certified else None,
            "noisy_rounds": len(store.privacy.spent()),
            "influences": {
                influence.value: count for influence, count in sorted(store.records.count_influences().items())
            },
            "classes": {str(label): count for label, count in sorted(store.records.count_labels().items())},
            # A restored store cannot be read before it has caught up.
            "trained_tokens": None if restored else store.records.count_trained(),
            "exemplar_size": held.exemplar_size,
            "neighbours_listed": held.list_length,
            "last_order": store.orders.last,
            "unanswered_orders": len(store.orders.unacknowledged()),
            "restored": restored,
            "last_backup": store.last_backup(),
            "encryption": {
                "cipher": "AES-256-GCM",
                "master_key": str(store.master_key),
                "record_keys": len(store.ciphers.held()),
                "destroyed": store.ciphers.destroyed,
            },
            "generation": store.generation,
            "encoder": held.encoder,
            "image_path": held.image_path.value,
            "input_shape": "x".join(str(size) for size in held.input_shape),
            "federation_card": None if (card := MemberCards.of(folder).read().current) is None else card.words,
            "bytes": store.path.stat().st_size,
            **describe_proofs(store),
        }
        return cls(facts, store.orders.read_answers())


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(number)}" for name, number in value.items()) or "none"
    return "none" if value is None else str(value)


def _number(number: float | None) -> str:
    return "unbounded" if number is None else f"{number:g}" if isinstance(number, float) else str(number)
