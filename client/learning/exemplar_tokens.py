"""Exemplar tokens that are a fixed function of their own record and the shared weights.

Under `exact` and `certified` no other record may move a token. Such a token is its class's label embedding after one
gradient step on its own record: with p the probabilities that the image path alone gives the record of class y,

    token = e_y - sum_c p_c e_c,

e being the label embeddings. What it says by itself (`Munkey.memory_logits`) is then proportional to y - p, the
negative gradient of the record's cross-entropy by its logits: what the shared weights do not know about the record. A
neighbour of something that the weights predict well is silent, and one that they are wrong about speaks up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedmunkey.client.key_store import Tokens
from fedmunkey.common.model.model import Munkey


@torch.inference_mode()
def own_tokens(
    model: Munkey, inputs: Tensor, *, together: int = 1, progress: Callable[[int], None] | None = None
) -> Tokens:
    """Compute the tokens of n entries: offsets from the label embeddings, -sum_c p_c e_c, and a zero optimiser state.

    A row has the same bits whatever stands beside it, because the model sees one record at a time, with one thread.
    With more `together` it is faster, and a row's last bits then depend on the others. `inputs` are what the image path
    reads, (n, *input_shape); `progress` is called with the number of entries finished since the last call.
    """
    tokens = Tokens.zeros(len(inputs), model.shape.exemplar_size)
    device = model.label_embedding.device
    with _one_thread():
        for rows in torch.arange(len(inputs)).split(together):
            probabilities = model.image_only(inputs[rows].to(device))
            tokens.offsets[rows] = -(probabilities @ model.label_embedding).cpu()
            if progress is not None:
                progress(len(rows))
    return tokens


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
