"""A whole calibrated compression: linears solved on text, sparsity in stages, recovery between and after them.

A model that is to keep one weight of every four is first compressed to two, recovered, and compressed on from there:
what is left over of each four has then learned to stand for the rest. Without recovery there is nothing to gain from
stages, and the linears are solved once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bidtrie.compress.calibration_text import CalibrationText
from bidtrie.compress.compressor import CompressedLinear, relative_error
from bidtrie.compress.recover import Recoverer, Recovery
from bidtrie.compress.sequential import Solver, solve_model
from bidtrie.compress.work_folder import WorkFolder
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.compression_record import LinearRecord
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.group_tensor import GroupTensor
from bidtrie.models.tensor import Tensor

#: Told what is going on, and how much of it is done.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What came out.

    checkpoint: the reference, but for norms and biases where these were trained.
    linears: what `write_compressed` takes.
    losses: the recovery's loss on held-out text before and after, nats a token, a stage; empty without recovery.
    """

    checkpoint: Checkpoint
    linears: list[CompressedLinear]
    losses: list[tuple[float, float]]


def compress_calibrated(
    checkpoint: Checkpoint,
    formats: Mapping[str, GroupFormat],
    text: CalibrationText,
    solver: Solver,
    recovery: Recovery,
    out: Path,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Calibrated, WorkFolder]:
    """Compress the linears that `formats` names on calibration text.

    What is done is kept beside `out` (see `WorkFolder`), for a run that is killed to go on from; remove the folder once
    the artefact is written. The same inputs give the same bytes on the same machine with the same number of threads.
    Raises ModelError naming a tensor that cannot be compressed, and BidtrieError for a folder of another run.
    """
    work = WorkFolder(out, _identity(checkpoint, formats, text, solver, recovery))
    stages = _stages(formats, recovery)
    shares = [
        recovery.steps * (i + 1) // len(stages) - recovery.steps * i // len(stages)
        for i in range(len(stages))
    ]
    current = checkpoint
    tensors: dict[str, GroupTensor] = {}
    losses: list[tuple[float, float]] = []
    proxies: dict[str, float] = {}
    for i, stage in enumerate(stages):
        note = "" if len(stages) == 1 else f", stage {i + 1} of {len(stages)}"
        for done, solved in enumerate(
            solve_model(current, stage, text.sequences, solver, work, f"solved{i}"), start=1
        ):
            tensors[solved.name] = solved.tensor
            proxies[solved.name] = solved.proxy_loss
            progress(f"solving linears{note}", done, len(stage))
        if shares[i]:
            recoverer = Recoverer(
                current,
                tensors,
                text.sequences,
                replace(recovery, steps=shares[i]),
                work,
                f"recovered{i}",
                checkpoint,
            )
            for value in recoverer.run():
                progress(f"recovering{note}, {value:.3f} nats a token", recoverer.step, shares[i])
            losses.append((recoverer.before, recoverer.after))
            tensors = recoverer.tensors()
            current = recoverer.checkpoint()
        if i + 1 < len(stages):
            current = replace(
                current,
                tensors={
                    **current.tensors,
                    **{
                        f"{n}.weight": Tensor("float32", each.shape, each.dequantize())
                        for n, each in tensors.items()
                    },
                },
            )
    linears = [
        CompressedLinear(name, tensors[name], _record(checkpoint, name, tensors[name], proxies[name]))
        for name in formats
    ]
    kept = {name: current.tensors[name] for name, each in checkpoint.tensors.items() if len(each.shape) == 1}
    return Calibrated(replace(checkpoint, tensors={**checkpoint.tensors, **kept}), linears, losses), work


def _stages(formats: Mapping[str, GroupFormat], recovery: Recovery) -> list[Mapping[str, GroupFormat]]:
    quarters = [name for name, format in formats.items() if format.pattern == "1:4"]
    if not quarters or recovery.steps < 2:
        return [formats]
    return [{**formats, **{name: replace(formats[name], pattern="2:4") for name in quarters}}, formats]


def _record(checkpoint: Checkpoint, name: str, tensor: GroupTensor, proxy_loss: float) -> LinearRecord:
    weight = checkpoint.tensors[f"{name}.weight"].dequantize()
    return LinearRecord(
        format=tensor.format.name,
        bits_per_weight=tensor.bits_per_weight,
        relative_error=relative_error(weight, tensor.dequantize()),
        proxy_loss=proxy_loss,
    )


def _identity(
    checkpoint: Checkpoint,
    formats: Mapping[str, GroupFormat],
    text: CalibrationText,
    solver: Solver,
    recovery: Recovery,
) -> str:
    settings = {
        "model": checkpoint.content_hash,
        "formats": {name: format.to_json() for name, format in formats.items()},
        "solver": solver.to_json(),
        "recovery": asdict(recovery),
        "shape": text.sequences.shape,
    }
    whole = hashlib.sha256(json.dumps(settings).encode())
    whole.update(text.sequences.tobytes())
    return whole.hexdigest()
