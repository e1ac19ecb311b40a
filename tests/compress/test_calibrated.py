"""Whole calibrated runs on tiny models: less loss than rounding, recovery, kills, bad input."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bidtrie.compress import recover, sequential
from bidtrie.compress.calibrated import Calibrated, compress_calibrated
from bidtrie.compress.calibration_text import CalibrationText
from bidtrie.compress.compressor import choose_formats
from bidtrie.compress.llama import Llama, torch_weights
from bidtrie.compress.recover import Recoverer, Recovery
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.compress.sequential import Solver, solve_model
from bidtrie.errors import BidtrieError, InvalidInput, ModelError
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_tensor import GroupFormat, GroupTensor
from reference.tiny_models import random_checkpoint

INT4, QUARTER = GroupFormat(4, 32), GroupFormat(4, 32, pattern="1:4")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def text(seed: int = 0, count: int = 24, length: int = 64) -> CalibrationText:
    """Tokens of very unequal frequency, so that inputs are not all alike."""
    rng = np.random.default_rng(seed)
    shares = np.exp(1.5 * np.random.default_rng(99).standard_normal(300))
    return CalibrationText(rng.choice(300, (count, length), p=shares / shares.sum()), count, ("random",))


def divergence(
    checkpoint: Checkpoint,
    tensors: dict[str, GroupTensor],
    tokens: np.ndarray,
    norms: Checkpoint | None = None,
) -> float:
    """Mean KL of the compressed model's predictions from the dense one's, nats a token; its norms are `norms`'s."""
    weights = torch_weights(norms or checkpoint)
    weights.update({f"{name}.weight": torch.from_numpy(each.dequantize()) for name, each in tensors.items()})
    with torch.inference_mode():
        exact, ours = (
            torch.log_softmax(model.forward(torch.from_numpy(tokens)).double(), dim=-1)
            for model in (Llama(checkpoint), Llama(checkpoint, weights))
        )
    return float((exact.exp() * (exact - ours)).sum(dim=-1).mean())


NO_RECOVERY = Recovery()


def run(
    checkpoint: Checkpoint, format: GroupFormat, out: Path, recovery: Recovery = NO_RECOVERY
) -> Calibrated:
    formats, _ = choose_formats(checkpoint.config, format, GroupFormat(8, 32))
    return compress_calibrated(checkpoint, formats, text(), Solver(), recovery, out)[0]


def tensors_of(done: Calibrated) -> dict[str, GroupTensor]:
    return {linear.name: linear.tensor for linear in done.linears}


def test_less_divergence_than_rounding() -> None:
    """On text that the run did not see; and the correction of earlier errors is worth something."""
    checkpoint = random_checkpoint(1)
    formats, _ = choose_formats(checkpoint.config, INT4, GroupFormat(8, 32))
    unseen = text(seed=1).sequences
    nearest = {
        name: quantize(checkpoint.tensors[f"{name}.weight"].dequantize(), format)
        for name, format in formats.items()
    }
    found = {}
    for correction in (0.0, 0.5):
        solved = list(solve_model(checkpoint, formats, text().sequences, Solver(correction=correction)))
        assert {each.name for each in solved} == set(formats)
        found[correction] = divergence(checkpoint, {each.name: each.tensor for each in solved}, unseen)
    assert found[0.5] < found[0.0] < 0.8 * divergence(checkpoint, nearest, unseen)


def test_inputs_are_those_of_what_is_compressed_already() -> None:
    """A linear's codes change when an earlier one's format does, a later one's do not."""
    checkpoint = random_checkpoint()
    names = ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"]

    def solve(first: GroupFormat, second: GroupFormat) -> list[GroupTensor]:
        formats = dict(zip(names, (first, second), strict=True))
        solved = solve_model(checkpoint, formats, text().sequences, Solver(correction=0))
        return [each.tensor for each in solved]

    plain, before, after = solve(INT4, INT4), solve(QUARTER, INT4), solve(INT4, QUARTER)
    assert not np.array_equal(plain[1].codes, before[1].codes)
    np.testing.assert_array_equal(plain[0].codes, after[0].codes)


def test_records(tmp_path: Path) -> None:
    checkpoint = random_checkpoint()
    done = run(checkpoint, INT4, tmp_path / "out")
    assert [linear.name for linear in done.linears][:1] == ["model.embed_tokens"]
    for linear in done.linears:
        assert linear.record.format == str(linear.tensor.format)
        assert linear.record.proxy_loss is not None
        assert linear.record.proxy_loss > 0
        assert 0 < linear.record.relative_error < 0.3
    assert done.losses == []
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(done.checkpoint.tensors[name].dequantize(), tensor.dequantize())


def test_recovery() -> None:
    """Distillation lowers the divergence of a sparse model on text that it did not see."""
    checkpoint, seen = random_checkpoint(1), text(count=96).sequences
    formats, _ = choose_formats(checkpoint.config, QUARTER, GroupFormat(8, 32))
    solved = {each.name: each.tensor for each in solve_model(checkpoint, formats, seen, Solver())}
    recoverer = Recoverer(checkpoint, solved, seen, Recovery(steps=30, rate=0.03))
    assert len(list(recoverer.run())) == 30
    assert not recoverer.given_up
    assert all(each.problem() is None for each in recoverer.tensors().values())
    unseen = text(seed=1).sequences
    after = divergence(checkpoint, recoverer.tensors(), unseen, recoverer.checkpoint())
    assert after < 0.95 * divergence(checkpoint, solved, unseen)
    norm = "model.norm.weight"
    trained = recoverer.checkpoint().tensors[norm].dequantize()
    assert not np.array_equal(trained, checkpoint.tensors[norm].dequantize())


@pytest.mark.parametrize(
    "format", [INT4, QUARTER, GroupFormat(4, 32, table=True), GroupFormat(8, 32)], ids=str
)
def test_steps_go_downhill(format: GroupFormat) -> None:
    """On one batch that comes again and again, whatever the format."""
    checkpoint = random_checkpoint(1)
    formats, _ = choose_formats(checkpoint.config, format, GroupFormat(8, 32))
    # Rounded to nearest, so that there is something to be made good.
    rounded = {
        name: quantize(checkpoint.tensors[f"{name}.weight"].dequantize(), each)
        for name, each in formats.items()
    }
    recoverer = Recoverer(checkpoint, rounded, text(count=5).sequences, Recovery(steps=15, rate=1e-3))
    losses = list(recoverer.run())
    assert losses[-1] < 0.97 * losses[0]


def test_what_does_not_help_is_given_up() -> None:
    checkpoint = random_checkpoint(1)
    formats, _ = choose_formats(checkpoint.config, INT4, GroupFormat(8, 32))
    solved = {each.name: each.tensor for each in solve_model(checkpoint, formats, text().sequences, Solver())}
    recoverer = Recoverer(checkpoint, solved, text().sequences, Recovery(steps=3, rate=1.0))
    list(recoverer.run())
    assert recoverer.after > recoverer.before
    assert recoverer.tensors() == solved
    assert recoverer.checkpoint() is checkpoint


def test_masks_of_the_last_stage_come_from_those_of_the_first(tmp_path: Path) -> None:
    """From two of every four to one of these two, but where making errors good revives another."""
    checkpoint = random_checkpoint(1)
    kept: list[dict[str, np.ndarray]] = []
    original = sequential.solve_linear

    def spy(weight: np.ndarray, *args: object, **options: object) -> GroupTensor:
        tensor = original(weight, *args, **options)  # type: ignore[arg-type]
        name = str(options["name"])
        if len(kept) == 0 or name in kept[-1]:
            kept.append({})
        kept[-1][name] = tensor.dequantize() != 0
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential, "solve_linear", spy)
        assert len(run(checkpoint, QUARTER, tmp_path / "out", Recovery(steps=2)).losses) == 2
    first, last = kept
    inside = [(last[name] & ~first[name]).sum() / last[name].sum() for name in last if "layers" in name]
    assert np.mean(inside) < 0.15, "chosen by chance it would be a half"
    assert np.mean([first[name].mean() for name in last if "layers" in name]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([last[name].mean() for name in last if "layers" in name]) == pytest.approx(0.25, abs=0.03)


def test_stored_is_what_was_trained(tmp_path: Path) -> None:
    """What the student computes with is what the written tensors stand for."""
    checkpoint = random_checkpoint(2)
    for format in (
        INT4,
        QUARTER,
        GroupFormat(4, 64, minimum=True),
        GroupFormat(4, 32, table=True),
        GroupFormat(8, 16),
    ):
        formats, _ = choose_formats(checkpoint.config, format, GroupFormat(8, 32))
        solved = {
            each.name: each.tensor for each in solve_model(checkpoint, formats, text().sequences, Solver())
        }
        recoverer = Recoverer(checkpoint, solved, text().sequences, Recovery(steps=3, rate=0.01))
        for name, linear in recoverer._linears.items():
            np.testing.assert_array_equal(
                linear.tensor().dequantize(), solved[name].dequantize(), "it begins there"
            )
        assert len(list(recoverer.run())) == 3
        for linear in recoverer._linears.values():
            np.testing.assert_allclose(
                linear.tensor().dequantize(), linear.weight().detach().numpy(), rtol=0, atol=1e-6
            )


def go_on(out: Path) -> bytes:
    """The bytes of a run's result."""
    checkpoint = random_checkpoint(3)
    done = run(checkpoint, QUARTER, out, Recovery(steps=12, rate=0.01))
    return b"".join(
        [linear.tensor.codes.tobytes() + linear.tensor.scales.tobytes() for linear in done.linears]
        + [each.dequantize().tobytes() for each in done.checkpoint.tensors.values()]
    )


@pytest.mark.parametrize("when", ["solving", "recovering"])
def test_killed_and_resumed(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends at any place goes on when it is begun again, and ends with the same bytes."""
    monkeypatch.setattr(recover, "_STORE_EVERY", 2)
    whole = go_on(tmp_path / "whole")

    class Killed(BaseException):
        pass

    solve, count = sequential.solve_linear, 0

    def dying(*args: object, **options: object) -> GroupTensor:
        nonlocal count
        count += 1
        if when == "solving" and count in (4, 12, 25):
            raise Killed
        return solve(*args, **options)  # type: ignore[arg-type]

    step, steps = Recoverer._loss, 0

    def dying_step(self: Recoverer, tokens: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if when == "recovering" and steps in (4, 9, 14):
            raise Killed
        return step(self, tokens)

    monkeypatch.setattr(sequential, "solve_linear", dying)
    monkeypatch.setattr(Recoverer, "_loss", dying_step)
    kills = 0
    while True:
        try:
            parts = go_on(tmp_path / "parts")
            break
        except Killed:
            kills += 1
    assert kills == 3
    assert parts == whole


def test_killed_by_the_system(tmp_path: Path) -> None:
    """SIGKILL in the midst of it: what was being written is not taken for something whole."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; "
        "from bidtrie.compress import recover; recover._STORE_EVERY = 1; import torch; torch.set_num_threads(1); "
        "from compress.test_calibrated import go_on; go_on(Path(sys.argv[1]))"
    )
    tests = str(Path(__file__).parents[1])
    whole = go_on(tmp_path / "whole")
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed"), tests])
    work = tmp_path / ".killed.compressing"
    deadline = time.monotonic() + 60
    while not (work / "recovered0.pt").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was still running"
    assert (work / "recovered0.pt").exists()
    assert go_on(tmp_path / "killed") == whole


def test_work_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(3)
    run(checkpoint, INT4, tmp_path / "out")
    with pytest.raises(BidtrieError, match="is of a run with another model, text or settings; remove it"):
        run(checkpoint, QUARTER, tmp_path / "out")
    with pytest.raises(BidtrieError, match="is of a run with another model"):
        run(random_checkpoint(4), INT4, tmp_path / "out")


def test_damaged_work_is_said_to_be(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(3)
    run(checkpoint, INT4, tmp_path / "out", Recovery(steps=1))
    work = tmp_path / ".out.compressing"
    (work / "recovered0.pt").write_bytes(b"x")
    with pytest.raises(BidtrieError, match=r"recovered0\.pt: is damaged"):
        run(checkpoint, INT4, tmp_path / "out", Recovery(steps=1))
    next(work.glob("solved0.*.safetensors")).write_bytes(b"x")
    with pytest.raises(BidtrieError, match=r"solved0\..*: is damaged"):
        run(checkpoint, INT4, tmp_path / "out", Recovery(steps=1))


def test_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--correction"):
        Solver(correction=1.5)
    checkpoint = random_checkpoint()
    name = "model.layers.0.mlp.up_proj.weight"
    broken = checkpoint.tensors[name].dequantize().copy()
    broken[3, 4] = np.nan
    tensors = {**checkpoint.tensors, name: replace(checkpoint.tensors[name], data=broken)}  # type: ignore[type-var]
    with pytest.raises(ModelError, match=f"tensor {name} holds values that are not finite"):
        run(replace(checkpoint, tensors=tensors), INT4, tmp_path / "out")
