"""Which released weights a site has taken over, and what of its own was in them: so that none comes back by mistake."""

from __future__ import annotations

import json

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.private_files import replace_file

_FILE = "releases.json"
_MOST = 1000
"""Releases that are remembered; of an older one, the worst is believed."""


def note_taken(folder: SiteFolder, digest: str, contributed: int) -> None:
    """Note that weights are taken over which hold what the site erased after an order, but not what it erased before.

    Weights that have the same bytes again hold what the later ones do.
    """
    taken = _read(folder)
    taken.pop(digest, None)
    taken[digest] = contributed
    content = json.dumps(dict(list(taken.items())[-_MOST:]))
    replace_file(folder.path / _FILE, f"{content}\n".encode(), 0o600)


def contributed_to(folder: SiteFolder, store: KeyStore, digest: str) -> int:
    """Return the order before which a site had contributed to weights of an earlier run, by their digest.

    Raises `InvalidWeights` if it has erased records since then; where the site does not know of the weights, if it has
    ever erased any.
    """
    contributed = _read(folder).get(digest)
    gone = [
        answer.request_id
        for answer in store.orders.read_answers()
        if answer.entries and answer.number > (0 if contributed is None else contributed)
    ]
    if not gone:
        return store.orders.last if contributed is None else contributed
    if contributed is None:
        raise InvalidWeights(
            "the site does not know these weights of an earlier run, and they may hold what it has erased; it keeps "
            "those that it has"
        )
    raise InvalidWeights(
        f"these weights of an earlier run hold what request {', '.join(dict.fromkeys(gone))} erased; the site keeps "
        "those that it has"
    )


def _read(folder: SiteFolder) -> dict[str, int]:
    try:
        said = json.loads((folder.path / _FILE).read_text(encoding="utf-8"))
        return {str(digest): int(order) for digest, order in said.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
