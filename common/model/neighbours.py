"""Exact nearest neighbours of keys, in chunks that fit memory, and lists of them that are patched instead of rebuilt.

Keys have unit length, so similarity is a dot product. A similarity is a function of its two keys' bits alone: products
and sums in float64 in a fixed order, rounded to float32 once. Equal similarities are ordered by position, the earlier
first. So a list is a function of the query, the keys and their order, whatever is searched together with it, in blocks
of whatever size and on whatever device.

BLAS only chooses candidates, because its float32 scores depend on the shapes that it is given. Its error for vectors of
d numbers x and y is at most gamma_d |x| |y|, gamma_d = d u / (1 - d u) with u = 2^-24 (Higham, Accuracy and Stability
of Numerical Algorithms, 2002, section 3.1), in whatever order it adds. A key whose score lies below the L-th best by
more than twice that bound is therefore not among the L nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmunkey.common.model.reproducible_sums import sum_rows

NONE = -1
"""Marks a place in a list that no neighbour fills."""

_ROWS = 1024
_SPARE = 8
"""Candidates beyond L: how many keys may crowd at the end of a list before it is searched with float64 scores."""
_PAIRS = 128
"""Pairs whose products are held at once, so that they fit into a processor's cache."""
_PAIRS_ON_ACCELERATOR = 16384
_BYTES = 64
"""What a float64 score takes, with all that is made of it, where every pair is left open."""


@dataclass(frozen=True)
class NeighbourLists:
    """The nearest entries of each of n rows, nearest first.

    `indices` (n, L) int64 and `similarities` (n, L) float32 end in `NONE` and minus infinity where there are fewer than
    L.
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
    """Find each query's L nearest keys by dot product; returns their positions, (q, L).

    Raises `ValueError` if queries and keys do not have the same number of columns.

    Parameters
    ----------
    queries, keys : Tensor
        (q, d) and (n, d) float32 on the same device, finite.
    own : Tensor, optional
        (q,) the position of each query's own key, which is left out; `NONE` where it has none.
    memory : int
        Bytes for the block of scores that is held at once.
    progress : callable, optional
        Called with the number of queries finished since the last call.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)} must be (q, d) and (n, d)")
    if length < 1 or not len(keys) or not len(queries):
        return NeighbourLists.empty(len(queries), max(length, 1))
    longest = float(_lengths(keys).max())
    rows = min(_ROWS, len(queries))
    columns = min(len(keys), max(length + 1, memory // (4 * rows)))
    block = torch.empty(rows * columns, device=keys.device)
    found = []
    own = torch.full((len(queries),), NONE) if own is None else own.cpu()
    for start in range(0, len(queries), rows):
        part, without = queries[start : start + rows], own[start : start + rows]
        margin = 2 * _score_error(part, longest)
        candidates = _candidates(part, keys, length + _SPARE, without, block)
        best, crowded = _settle(part, keys, candidates, length, margin)
        if len(crowded):
            least = candidates.similarities[crowded, length - 1].double() - margin[crowded]
            again = _search_in_double(part[crowded], keys, length, without[crowded], least, longest, memory)
            best.indices[crowded], best.similarities[crowded] = again.indices, again.similarities
        found.append(best)
        if progress is not None:
            progress(len(part))
    # Adding zero leaves one zero only: which of the two a sum has would depend on its order.
    return NeighbourLists(torch.cat([f.indices for f in found]), torch.cat([f.similarities for f in found]) + 0.0)


def patch_arrivals(lists: NeighbourLists, arrivals: NeighbourLists, known: Tensor) -> NeighbourLists:
    """Put newly arrived keys into existing (n, L) lists.

    A list that deletions have shortened is still a true beginning of the ranking. Arrivals are placed in it only as far
    as it reaches; what lies below its last neighbour is unknown, so nothing is appended there, and the result is a true
    beginning again.

    Parameters
    ----------
    arrivals : NeighbourLists
        (n, L) nearest of the new keys for the same rows; their positions are larger than all known ones.
    known : Tensor
        (n,) how many known keys each row could have in its list; a list of that length is complete.
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


def _lengths(vectors: Tensor) -> Tensor:
    """Return (n,) upper bounds of Euclidean lengths, in float64 on the CPU."""
    size = vectors.shape[1]
    # What is added makes up for squares too small for float32.
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1).double().cpu()
    return lengths * (1 + size * 2.0**-23) + size * 2.0**-62


def _score_error(queries: Tensor, longest: float) -> Tensor:
    """Return (q,) how far a float32 score can lie from the similarity that it stands for."""
    size = queries.shape[1]
    # The scores' own error, and those of the similarity: its last rounding, and what float64 adds in all.
    relative = _gamma(size + 2, 2.0**-24)
    if queries.device.type != "cpu" and torch.get_float32_matmul_precision() != "highest":
        # Factors are then cut to as few as eight bits, and sums are not rounded to the nearest number.
        relative = 2.0**-6 + 2 * relative
    return relative * longest * _lengths(queries) + size * 2.0**-125


def _gamma(operations: int, unit: float) -> float:
    return operations * unit / (1 - operations * unit)


def _candidates(queries: Tensor, keys: Tensor, count: int, own: Tensor, block: Tensor) -> NeighbourLists:
    """Return the `count` keys with the best scores of each query, best first, with these scores."""
    best = NeighbourLists.empty(len(queries), count)
    columns = min(len(keys), len(block) // len(queries))
    for first in range(0, len(keys), columns):
        some = keys[first : first + columns]
        scores = block[: len(queries) * len(some)].view(len(queries), len(some))
        _multiply(queries, some, scores)
        _leave_out(scores, own - first)
        values, positions = scores.topk(min(count, len(some)))
        indices = torch.where(values == -torch.inf, NONE, positions + first)
        best = _merge(best, NeighbourLists(indices.cpu(), values.cpu()), count)
    return best


def _settle(
    queries: Tensor, keys: Tensor, candidates: NeighbourLists, length: int, margin: Tensor
) -> tuple[NeighbourLists, Tensor]:
    """Rank candidates by their similarities; also return the rows whose candidates may not be all that there are."""
    scores = candidates.similarities.double()
    possible = (scores >= (scores[:, length - 1] - margin)[:, None]) & (candidates.indices != NONE)
    rows, places = possible.nonzero(as_tuple=True)
    indices = torch.where(possible, candidates.indices, NONE)
    similarities = torch.full(indices.shape, -torch.inf)
    similarities[rows, places] = _similarities(queries, keys, rows, indices[rows, places])
    # A last place that is empty, or too low, has nothing below it that could be nearer.
    return _rank(indices, similarities, length), possible[:, -1].nonzero().squeeze(1)


def _search_in_double(
    queries: Tensor, keys: Tensor, length: int, own: Tensor, least: Tensor, longest: float, memory: int
) -> NeighbourLists:
    """Search all keys by similarities, where too many lie close to each other for float32 scores to tell them apart.

    A float64 score gives the similarity itself, unless it lies so close to the middle between two float32 numbers that
    its own error could take it to the other side. Only such pairs, from `least` upwards, are computed one by one.
    """
    best = NeighbourLists.empty(len(queries), length)
    size = queries.shape[1]
    columns = min(len(keys), max(length + 1, memory // (_BYTES * len(queries) + 8 * size)))
    error = (2 * _gamma(size, 2.0**-53) * longest * _lengths(queries)).to(queries.device)[:, None]
    least = least.to(queries.device)[:, None]
    doubled = queries.double()
    for first in range(0, len(keys), columns):
        some = keys[first : first + columns]
        scores = torch.empty(len(queries), len(some), dtype=torch.float64, device=keys.device)
        _multiply(doubled, some.double(), scores)
        similarities = (scores + error).float()
        open_pairs = ((scores - error).float() != similarities) & (similarities >= least)
        rows, places = open_pairs.nonzero(as_tuple=True)
        similarities[rows, places] = _similarities(queries, some, rows.cpu(), places.cpu()).to(keys.device)
        _leave_out(similarities, own - first)
        best = _merge(best, _top(similarities, length, first), length)
    return best


def _similarities(queries: Tensor, keys: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Return the (p,) similarities of pairs, given by their p rows in the queries and p places in the keys."""
    found = torch.empty(len(rows))
    step = _PAIRS if queries.device.type == "cpu" else _PAIRS_ON_ACCELERATOR
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        # Products of two float32 numbers are exact in float64.
        if queries.device.type == "cpu":
            products = keys.numpy()[places[part].numpy()].astype(np.float64)
            products *= queries.numpy()[rows[part].numpy()]
            found.numpy()[part] = sum_rows(products)
        else:
            found[part] = sum_rows(keys[places[part]].double() * queries[rows[part]].double()).float().cpu()
    return found


def _multiply(queries: Tensor, keys: Tensor, out: Tensor) -> None:
    """Write all dot products of queries and keys to (q, n) `out`."""
    if queries.device.type == "cpu":
        # NumPy's OpenBLAS multiplies these shapes a fifth faster than the MKL in torch on AMD processors.
        np.matmul(queries.numpy(), keys.numpy().T, out=out.numpy())
    else:
        torch.mm(queries, keys.T, out=out)


def _leave_out(scores: Tensor, columns: Tensor) -> None:
    rows = ((columns >= 0) & (columns < scores.shape[1])).nonzero().squeeze(1)
    scores[rows.to(scores.device), columns[rows].to(scores.device)] = -torch.inf


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
    return _rank(indices, torch.cat([left.similarities, right.similarities], dim=1), length)


def _rank(indices: Tensor, similarities: Tensor, length: int) -> NeighbourLists:
    """Order each row by falling similarity, and equal ones by position, and keep the best `length`."""
    indices, order = indices.sort(dim=1, stable=True)
    similarities, ranking = similarities.gather(1, order).sort(dim=1, descending=True, stable=True)
    return NeighbourLists(indices.gather(1, ranking)[:, :length], similarities[:, :length])
