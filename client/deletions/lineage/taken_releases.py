"""Which released weights a site has taken over, and what of its own was in them: so that none comes back by mistake."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.private_files import replace_file

_FILE = "releases.json"
_MOST = 1000
"""Releases that are remembered; of an older one, the worst is believed."""


def note_taken(folder: SiteFolder, store: KeyStore, digest: str, contributed: int) -> None:
    """Note that weights are taken over which hold what the site erased after an order, but not what it erased before.

    Weights that have the same bytes again hold what the later ones do.
    """
    taken = _read(folder)
    taken.pop(digest, None)
    taken[digest] = (contributed, _request_of(store, contributed))
    content = json.dumps(dict(list(taken.items())[-_MOST:]))
    replace_file(folder.path / _FILE, f"{content}\n".encode(), 0o600)


def contributed_to(folder: SiteFolder, store: KeyStore, digest: str) -> int:
    """Return the order before which a site had contributed to weights of an earlier run, by their digest.

    Raises `InvalidWeights` if it has erased records since then; where the site does not know of the weights, or its
    orders have other numbers since, if it has ever erased any.
    """
    order, request = _read(folder).get(digest, (-1, ""))
    known = order >= 0 and request == _request_of(store, order)
    erased = [answer for answer in store.orders.read_answers() if answer.entries]
    gone = [answer.request_id for answer in erased if not known or answer.number > order]
    if not gone:
        return order if known else store.orders.last
    if not known:
        raise InvalidWeights(
            "the site does not know these weights of an earlier run, and they may hold what it has erased; it keeps "
            "those that it has"
        )
    raise InvalidWeights(
        f"these weights of an earlier run hold what request {', '.join(dict.fromkeys(gone))} erased; the site keeps "
        "those that it has"
    )


def holding(folder: SiteFolder, number: int) -> list[str]:
    """Return the digests of the weights that a site has taken over and that hold what an order erased, oldest first.

    Which of them were made before the records came is not known; the worst is believed.
    """
    return [digest for digest, (order, _) in _read(folder).items() if order < number]


@dataclass(frozen=True)
class TakenRelease:
    """Released weights that a site has taken over.

    Attributes
    ----------
    digest : str
        SHA-256 of the weights, hexadecimal.
    order : int
        The order up to which what the site erased is not in them.
    requests : tuple of str
        The requests, by id, that have erased something of the site since.
    in_use : bool
        Whether the site answers from them.
    """

    digest: str
    order: int
    requests: tuple[str, ...]
    in_use: bool


def read_taken(folder: SiteFolder, store: KeyStore) -> tuple[TakenRelease, ...]:
    """Return the releases that a site remembers, oldest first; of one whose orders were renumbered, the worst."""
    current = current_release(folder)
    found = []
    for digest, (order, request) in _read(folder).items():
        known = request == _request_of(store, order)
        requests = tuple(store.orders.erasing(order if known else 0))
        found.append(TakenRelease(digest, order, requests, digest == current))
    return tuple(found)


def current_release(folder: SiteFolder) -> str:
    """Return the digest of the weights that a site answers from; empty where there are none."""
    try:
        said = json.loads(folder.shared_weights.with_suffix(".json").read_text(encoding="utf-8"))
        return str(said["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def count_taken(folder: SiteFolder) -> int:
    """Return how many releases a site remembers that it has taken over."""
    return len(_read(folder))


def is_later(folder: SiteFolder, release: str, other: str) -> bool:
    """Return whether a site has taken weights over after some others, by their digests."""
    taken = list(_read(folder))
    return release in taken and other in taken and taken.index(release) > taken.index(other)


def _request_of(store: KeyStore, order: int) -> str:
    """Return what an order was for: a ledger that was restored may have another under its number."""
    return (store.orders.request_of(order) or b"").hex() if order else ""


def _read(folder: SiteFolder) -> dict[str, tuple[int, str]]:
    try:
        said = json.loads((folder.path / _FILE).read_text(encoding="utf-8"))
        return {str(digest): (int(order), str(request)) for digest, (order, request) in said.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
