"""Logits and the best of wanted tokens only."""

import torch

from bidtrie.cuda.library import check, library
from bidtrie.cuda.tensors import FLOATS, expect, expect_aligned, stream
from bidtrie.errors import EngineError


def candidate_head(
    head: torch.Tensor,
    hidden: torch.Tensor,
    offsets: torch.Tensor,
    ids: torch.Tensor,
    max_candidates: int,
    top_k: int = 0,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Row r of `hidden` [rows, cols] wants the tokens ids[offsets[r] … offsets[r + 1]] of `head` [vocabulary, cols].

    Returns their logits, float32 [ids], and for top_k > 0 which of a row's candidates are best, int32 [rows, top_k],
    with their natural log-probabilities among the row's candidates, float32 [rows, top_k]; -1 where a row has no more.
    An id outside the vocabulary has a logit of -infinity. `max_candidates`: no row has more. Raises EngineError naming
    an argument that does not fit.
    """
    device = hidden.device
    expect("hidden", hidden, (None, None), tuple(FLOATS), device)
    rows, cols = hidden.shape
    if cols % 8:
        raise EngineError(f"hidden has {cols} columns, expected a multiple of 8")
    expect("head", head, (None, cols), (hidden.dtype,), device)
    expect_aligned("hidden", hidden, hidden.stride(0))
    expect_aligned("head", head)
    if not head.is_contiguous():
        raise EngineError("head must be contiguous")
    expect("offsets", offsets, (rows + 1,), (torch.int32,), device)
    expect("ids", ids, (None,), (torch.int32,), device)
    logits = torch.empty(ids.shape[0], dtype=torch.float32, device=device)
    best = torch.empty(rows, top_k, dtype=torch.int32, device=device) if top_k else None
    log_probability = torch.empty(rows, top_k, dtype=torch.float32, device=device) if top_k else None
    if rows == 0:
        return logits, best, log_probability
    code = library().bidtrie_candidate_head(
        FLOATS[hidden.dtype],
        head.data_ptr(),
        head.shape[0],
        cols,
        hidden.data_ptr(),
        hidden.stride(0),
        rows,
        max_candidates,
        offsets.data_ptr(),
        ids.data_ptr(),
        logits.data_ptr(),
        top_k,
        None if best is None else best.data_ptr(),
        None if log_probability is None else log_probability.data_ptr(),
        stream(device),
    )
    check(code, "candidate head")
    return logits, best, log_probability
