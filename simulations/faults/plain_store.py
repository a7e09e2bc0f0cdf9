"""A key store that never had what a site has deleted: what the site's state must be equal to, byte for byte."""

from __future__ import annotations

import secrets
from pathlib import Path
from tempfile import TemporaryDirectory

from fedmunkey.client.key_store import KeyStore, Tokens
from fedmunkey.client.key_store.on_disk.record_ciphers import KEY_BYTES
from fedmunkey.client.learning.exact_state import read_shared_model, refresh_tokens
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.learning.state_digest import state_digest
from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.faults.federation import SETTINGS, Federation, Site, batch

_MASTER_KEY = secrets.token_bytes(KEY_BYTES)


def state_and_plain(federation: Federation, site: Site) -> tuple[str, str]:
    """Return the digests of a site's state, and of a store in which only what its model holds was ever enrolled.

    Tokens are computed anew in both from the site's shared weights, as under `exact`: how they were trained together
    with the weights is another matter. Nothing may use the store meanwhile.
    """
    numbers = [number for number in site.numbers if number in federation.model.sites[site.name].labels]
    model = read_shared_model(site.folder)
    digests = []
    with (
        site.folder.open() as store,
        TemporaryDirectory(dir=federation.folder) as aside,
        KeyStore.create(Path(aside) / "plain.sqlite", store.description, master_key=_MASTER_KEY) as plain,
    ):
        if numbers:
            plain.records.enrol(*batch(federation, numbers), federation.secret)
        for each in (store, plain):
            list_arrivals(each)
            if model is None:
                entries, _ = each.records.read_entries(Split.TRAIN)
                tokens = Tokens.zeros(len(entries), each.description.exemplar_size)
                each.records.write_tokens(each.generation, entries, tokens)
            else:
                refresh_tokens(each, model)
            digests.append(state_digest(each, SETTINGS.neighbours))
    return digests[0], digests[1]
