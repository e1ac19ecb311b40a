"""Next-token logits of transformers models, over token paths and over trees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@torch.inference_mode()
def path_logits(model: Any, tokens: Sequence[int]) -> Float32:
    """Logits [tokens, vocabulary] of one sequence."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()


@torch.inference_mode()
def last_logits(model: Any, paths: Sequence[Sequence[int]]) -> Float32:
    """Logits [paths, vocabulary] of the last tokens of paths of one length."""
    return model(torch.tensor(paths), use_cache=False).logits[:, -1].numpy()


@torch.inference_mode()
def tree_logits(model: Any, prefix: Sequence[int], tokens: Sequence[int], parent: Sequence[int]) -> Float32:
    """Logits [nodes, vocabulary] of a tree on a prefix, in one pass with a mask of four dimensions.

    Entries of `parent` are earlier nodes, or -1 for the prefix's end.
    """
    base, count = len(prefix), len(tokens)
    visible = np.tri(base + count, dtype=bool)
    visible[base:, base:] = False
    depth = np.zeros(count, np.int64)
    for i, above in enumerate(parent):
        if above >= 0:
            visible[base + i] = visible[base + above]
            depth[i] = depth[above] + 1
        visible[base + i, base + i] = True
    mask = torch.zeros(visible.shape).masked_fill_(~torch.from_numpy(visible), torch.finfo(torch.float32).min)
    positions = np.concatenate([np.arange(base), base + depth])
    output = model(
        torch.tensor([[*prefix, *tokens]]),
        attention_mask=mask[None, None],
        position_ids=torch.from_numpy(positions)[None],
        use_cache=False,
    )
    return output.logits[0, base:].numpy()
