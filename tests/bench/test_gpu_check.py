"""What `make gpu-check` checks of the vLLM engine's ops, run on the CPU: the script itself must not be what fails."""

from collections.abc import Iterator

import pytest
import torch

from bench.gpu import correctness
from bench.gpu_check import check


def nothing(device: torch.device, seed: int) -> Iterator[correctness.Case]:
    """Kernels that only a GPU has."""
    yield from ()


def test_ops_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("linears", "invariance", "attentions", "heads", "controls"):
        monkeypatch.setattr(correctness, part, nothing)
    found = check(torch.device("cpu"), 0, quick=False)
    errors = found["error_of_bound"]
    # Products of codes round their inputs to 8 bits on a CPU, which the bounds of a GPU do not allow.
    rounded = {"op linear", "op candidate_linear"}
    assert errors.keys() - rounded == {"op embedding", "op candidate_head", "op tree_attention"}
    assert max(error for kernel, error in errors.items() if kernel not in rounded) <= 1
    assert found["failed"]
    assert all(failure.startswith(tuple(rounded)) for failure in found["failed"])
