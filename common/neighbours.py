"""Exact nearest neighbours of keys, in chunks that fit memory, and lists of them that are patched instead of rebuilt.

Keys have unit length, so similarity is a dot product. Equal similarities are ordered by position, the earlier first, so
that a list is a function of the keys and their order alone, but for rounding: the matrix product may take another path
for a single row, and a similarity then differs in its last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NONE = -1
"""Marks a place in a list that no neighbour fills."""

_ROWS = 1024


@dataclass(frozen=True)
class NeighbourLists:
    """The nearest entries of each of n rows, nearest first.

    Attributes
    ----------
    indices : Tensor
        (n, L) int64; `NONE` fills the end of a list with fewer than L neighbours.
    similarities : Tensor
        (n, L) float32; minus infinity where there is no neighbour.
    """

    indices: Tensor
    similarities: Tensor

    def __post_init__(self) -> None:
        """Check that both tensors have one shape."""
        if self.indices.ndim != 2 or self.indices.shape != self.similarities.shape:
            raise ValueError(f"indices {tuple(self.indices.shape)} and similarities must be one (n, L) shape")

    @classmethod
    def empty(cls, rows: int, length: int) -> NeighbourLists:
        """Return lists without any neighbour."""
        return cls(torch.full((rows, length), NONE), torch.full((rows, length), -torch.inf))

    @property
    def lengths(self) -> Tensor:
        """(n,) how many neighbours each list holds."""
        return (self.indices != NONE).sum(1)


def nearest(
    queries: Tensor,
    keys: Tensor,
    length: int,
    *,
    own: Tensor | None = None,
    memory: int = 256 * 2**20,
    progress: Callable[[int], None] | None = None,
) -> NeighbourLists:
    """Find each query's nearest keys by dot product.

    Parameters
    ----------
    queries : Tensor
        (q, d) float32.
    keys : Tensor
        (n, d) float32 on the same device.
    length : int
        L: how many neighbours to keep for each query.
    own : Tensor, optional
        (q,) the position of each query's own key, which is left out; `NONE` where it has none.
    memory : int
        Bytes for the block of similarities that is held at once.
    progress : callable, optional
        Called with the number of queries finished since the last call.

    Returns
    -------
    NeighbourLists
        (q, L); positions in `keys`.

    Raises
    ------
    ValueError
        If queries and keys do not have the same number of columns.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)} must be (q, d) and (n, d)")
    if length < 1 or not len(keys) or not len(queries):
        return NeighbourLists.empty(len(queries), max(length, 1))
    rows = min(_ROWS, len(queries))
    columns = min(len(keys), max(length + 1, memory // (4 * rows)))
    block = torch.empty(rows * columns, device=keys.device)
    found = []
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        best = NeighbourLists.empty(len(part), length)
        for first in range(0, len(keys), columns):
            some = keys[first : first + columns]
            scores = _dot_products(part, some, block)
            if own is not None:
                _leave_out(scores, own[start : start + rows].to(scores.device) - first)
            best = _merge(best, _top(scores, length, first), length)
        found.append(best)
        if progress is not None:
            progress(len(part))
    return NeighbourLists(torch.cat([f.indices for f in found]), torch.cat([f.similarities for f in found]))


def patch_arrivals(lists: NeighbourLists, arrivals: NeighbourLists, known: Tensor) -> NeighbourLists:
    """Put newly arrived keys into existing lists.

    A list that deletions have shortened is still a true beginning of the ranking. Arrivals are placed in it only as far
    as it reaches; what lies below its last neighbour is unknown, so nothing is appended there.

    Parameters
    ----------
    lists : NeighbourLists
        (n, L) lists over the keys known so far.
    arrivals : NeighbourLists
        (n, L) nearest of the new keys for the same rows; their positions are larger than all known ones.
    known : Tensor
        (n,) how many known keys each row could have in its list; a list of that length is complete.

    Returns
    -------
    NeighbourLists
        (n, L); a row may be shorter than L, and is again a true beginning of the ranking.
    """
    length = lists.indices.shape[1]
    lengths = lists.lengths
    last = lists.similarities.gather(1, (lengths - 1).clamp_min(0)[:, None]).squeeze(1)
    reach = last.masked_fill(lengths == 0, torch.inf).masked_fill(lengths >= known, -torch.inf)[:, None]
    within = (arrivals.similarities > reach) & (arrivals.indices != NONE)
    placed = NeighbourLists(
        torch.where(within, arrivals.indices, NONE), torch.where(within, arrivals.similarities, -torch.inf)
    )
    return _merge(lists, placed, length)


def _dot_products(queries: Tensor, keys: Tensor, block: Tensor) -> Tensor:
    out = block[: len(queries) * len(keys)].view(len(queries), len(keys))
    if queries.device.type == "cpu":
        # NumPy's OpenBLAS multiplies these shapes a fifth faster than the MKL in torch on AMD processors.
        np.matmul(queries.numpy(), keys.numpy().T, out=out.numpy())
    else:
        torch.mm(queries, keys.T, out=out)
    return out


def _leave_out(scores: Tensor, columns: Tensor) -> None:
    rows = ((columns >= 0) & (columns < scores.shape[1])).nonzero().squeeze(1)
    scores[rows, columns[rows]] = -torch.inf


def _top(scores: Tensor, length: int, first: int) -> NeighbourLists:
    """Take the best `length` of each row; a tie at the end of the list goes to the earlier position."""
    count = min(length, scores.shape[1])
    values, positions = scores.topk(min(count + 1, scores.shape[1]))
    if values.shape[1] > count:
        tied = (values[:, count - 1] == values[:, count]).nonzero().squeeze(1)
        if len(tied):
            stable_values, stable_positions = scores[tied].sort(dim=1, descending=True, stable=True)
            values[tied, :count] = stable_values[:, :count]
            positions[tied, :count] = stable_positions[:, :count]
        values, positions = values[:, :count], positions[:, :count]
    indices = torch.where(values == -torch.inf, NONE, positions + first)
    return NeighbourLists(indices.cpu(), values.cpu())


def _merge(left: NeighbourLists, right: NeighbourLists, length: int) -> NeighbourLists:
    """Merge two lists of each row, keeping the best `length`; equal similarities go by position."""
    indices = torch.cat([left.indices, right.indices], dim=1)
    similarities = torch.cat([left.similarities, right.similarities], dim=1)
    indices, order = indices.sort(dim=1, stable=True)
    similarities, ranking = similarities.gather(1, order).sort(dim=1, descending=True, stable=True)
    return NeighbourLists(indices.gather(1, ranking)[:, :length], similarities[:, :length])
