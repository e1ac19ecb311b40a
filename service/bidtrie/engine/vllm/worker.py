"""What the engine calls in each of vLLM's workers: one process a GPU, or the engine's own process."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.forward_context import set_forward_context

from bidtrie._native import instruction_sets
from bidtrie.engine.tree_batch import Float32
from bidtrie.engine.vllm import ops, plugin
from bidtrie.engine.vllm.attention import TreeStep, use_tree_attention
from bidtrie.engine.vllm.step_input import StepInput

# A worker imports this module before it loads its model, entry point or not.
plugin.register()


class TreeWorker:
    """Mixed into vLLM's worker class (`worker_extension_cls`): names must not clash with that one's."""

    bidtrie_step_of: TreeStep

    def bidtrie_prepare(self, slots: int, threads: int) -> str:
        """Make the caches; returns what computes: "cpu-avx2", "cuda-NVIDIA-H100"."""
        runner = self.model_runner  # type: ignore[attr-defined]
        ops.use_threads(threads)
        with torch.inference_mode():
            self.bidtrie_step_of = use_tree_attention(
                runner.model, slots, runner.model_config.dtype, runner.device
            )
        if runner.device.type == "cpu":
            return f"cpu-{instruction_sets()[0]}"
        name = torch.cuda.get_device_name(runner.device) if runner.device.type == "cuda" else "unknown"
        return f"{runner.device.type}-{name.replace(' ', '-')}"

    def bidtrie_step(self, step: StepInput) -> tuple[Float32, Float32] | None:
        """Compute a step: the wanted logits, row by row, and float32 [R] log-sum-exps; None from all but one worker."""
        runner = self.model_runner  # type: ignore[attr-defined]
        device = runner.device

        def tensor(array: NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        with (
            torch.inference_mode(),
            set_forward_context(None, runner.vllm_config, num_tokens=len(step.tokens)),
        ):
            state = self.bidtrie_step_of
            state.slots = tensor(step.slots).long()
            state.view = ops.TreeView(*(tensor(part) for part in step.view))
            hidden = runner.model(tensor(step.tokens), tensor(step.positions).long())
            if not len(step.rows):
                return np.empty(0, np.float32), np.empty(0, np.float32)
            answer = _head(runner.model, hidden[tensor(step.rows).long()], step)
            return answer if self.rank == 0 else None  # type: ignore[attr-defined]


def _head(model: Any, hidden: torch.Tensor, step: StepInput) -> tuple[Float32, Float32] | None:
    """The head's logits for the wanted rows [R, hidden]."""
    rows, vocabulary = len(step.rows), model.config.vocab_size
    sums = np.full(rows, np.nan, np.float32)
    sizes = np.diff(step.candidate_offsets)
    whole = step.logsumexp | (sizes == 0)
    if model.lm_head.tp_size > 1:
        # A candidate lies on one GPU of several: all logits are gathered first.
        whole = np.ones_like(whole)
    device = hidden.device
    some = _candidates(model, hidden, step, ~whole)
    full: torch.Tensor | None = None
    if whole.any():
        full = model.compute_logits(hidden[torch.from_numpy(np.flatnonzero(whole)).to(device)])
        if full is None:
            return None
        full = full.float()
        places = np.flatnonzero(step.logsumexp[whole])
        wanted = torch.from_numpy(places).to(device)
        sums[step.logsumexp] = full[wanted].logsumexp(-1).cpu().numpy()
    return _joined(step, whole, vocabulary, full, some), sums


def _candidates(model: Any, hidden: torch.Tensor, step: StepInput, chosen: NDArray[np.bool_]) -> Float32:
    """Logits of the candidates of some rows, one row after the other."""
    if not chosen.any():
        return np.empty(0, np.float32)
    sizes = np.diff(step.candidate_offsets)
    ids = step.candidate_ids[np.repeat(chosen, sizes)]
    offsets = np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int32)
    device = hidden.device
    x = hidden[torch.from_numpy(np.flatnonzero(chosen)).to(device)]
    arguments = (x, torch.from_numpy(offsets).to(device), torch.from_numpy(ids).to(device))
    head = model.lm_head
    if hasattr(head, "parts"):
        out = head.parts[0].candidates(*arguments)
    else:
        out = torch.ops.bidtrie.candidate_head(*arguments, head.weight)
    return out.float().cpu().numpy()  # type: ignore[no-any-return]


def _joined(
    step: StepInput, whole: NDArray[np.bool_], vocabulary: int, full: torch.Tensor | None, some: Float32
) -> Float32:
    """Rows of the whole vocabulary and rows of candidates, in the order of the step."""
    sizes = np.diff(step.candidate_offsets)
    lengths = np.where(sizes == 0, vocabulary, sizes)
    out = np.empty(int(lengths.sum()), np.float32)
    out[np.repeat(~whole, lengths)] = some
    if full is not None:
        logits = full.cpu().numpy()
        row = np.repeat(np.cumsum(whole) - 1, lengths)
        column = np.arange(len(out)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        with_ids = np.repeat(sizes > 0, lengths)
        column[with_ids] = step.candidate_ids
        taken = np.repeat(whole, lengths)
        out[taken] = logits[row[taken], column[taken]]
    return out
