"""What a site holds and has carried out, in counts and names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedmunkey.client.deletions.lineage.exported_models import count_states
from fedmunkey.client.deletions.proof_status import describe_proofs
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions import status_words
from fedmunkey.common.deletions.words import Acknowledgement
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs import command_line
from fedmunkey.common.proofs.governance.instructions import InstructionKind


@dataclass(frozen=True)
class Holdings:
    """Facts by name, JSON-ready, and the orders that were answered: nothing here stands for a patient."""

    facts: dict[str, Any]
    orders: list[Acknowledgement]

    @classmethod
    def of(cls, store: KeyStore, card: str | None) -> Holdings:
        """Count what a store holds; `card` says which federation card the site has, if any."""
        held = store.description
        records = {split.value: store.records.count(split) for split in Split}
        restored = store.is_restored
        readable = store.instructions.is_whole()
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
            "federation_card": card,
            # None where the list cannot be read: everybody counts as opted out then.
            "opted_out": sum(store.records.count_opted_out(split) for split in Split) if readable else None,
            "holds": len(store.instructions.standing().in_force(InstructionKind.HOLD)) if readable else None,
            "exported_models": count_states(SiteFolder(store.path.parent), store),
            "bytes": store.path.stat().st_size,
            **describe_proofs(store),
        }
        return cls(facts, store.orders.read_answers())
