"""Budgets of `bidtrie compress`: what is to be written, and which formats each of it gets."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidtrie.errors import BidtrieError, InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bidtrie.compress.allocation import Budget
    from bidtrie.models.checkpoint import Checkpoint
    from bidtrie.models.group_format import GroupFormat

#: Bits a weight of the rungs that a ladder may name without saying theirs.
RUNGS = {"quality": 4.5, "balanced": 3.5, "fast": 2.5}


@dataclass(frozen=True, slots=True)
class Rung:
    """An artefact to be written to `out`, within a budget."""

    out: Path
    budget: "Budget"

    @property
    def options(self) -> dict[str, Any]:
        """For the record, as the flag has it."""
        return {f"budget_{self.budget.unit}": self.budget.limit}


@dataclass(frozen=True, slots=True)
class Formats:
    """What a rung's linears get, and the evidence for the record."""

    formats: "dict[str, GroupFormat]"
    left_out: list[str]
    allocation: Mapping[str, Any]


def read_rungs(out: Path, bits: float | None, ms: float | None, ladder: str | None) -> list[Rung]:
    """The rungs that flags ask for: none, one in `out`, or those of a ladder, each in a folder of `out` by its name.

    Raises InvalidInput where flags do not go together, or a ladder's text is wrong.
    """
    from bidtrie.compress.allocation import Budget

    given = [
        name
        for name, value in (("--budget-bits", bits), ("--budget-ms", ms), ("--ladder", ladder))
        if value is not None
    ]
    if len(given) > 1:
        raise InvalidInput.of(given[1], f"is given with {given[0]}, expected one of them")
    if bits is not None:
        return [Rung(out, Budget(bits, "bits"))]
    if ms is not None:
        return [Rung(out, Budget(ms, "ms"))]
    if ladder is None:
        return []
    rungs = {}
    for part in ladder.split(","):
        name, equals, limit = part.strip().partition("=")
        try:
            value = float(limit) if equals else RUNGS[name]
        except (ValueError, KeyError):
            value = 0.0
        if not name.isidentifier() or name in rungs or not value > 0:
            raise InvalidInput.of(
                "--ladder",
                f"{part.strip()!r:.60}, expected different names, each {', '.join(RUNGS)} or NAME=BITS, "
                "separated by commas",
            )
        rungs[name] = Rung(out / name, Budget(value, "bits"))
    return list(rungs.values())


def choose_within_budgets(
    checkpoint: "Checkpoint",
    sequences: "NDArray[np.int64]",
    rungs: Sequence[Rung],
    head: "GroupFormat",
    *,
    feedback: bool,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> list[Formats]:
    """Analyse the model once, and allocate for every rung: impossible budgets are known before anything is written."""
    try:
        from bidtrie.compress.budget import FORMATS, analyse, formats_of
    except ImportError as error:
        raise BidtrieError(f'a budget needs: pip install "bidtrie[compress]" ({error})') from None
    from bidtrie.compress.cost_table import cost_table

    costs = cost_table(
        checkpoint.config,
        FORMATS,
        len(os.sched_getaffinity(0)),
        lambda done, total: progress("timing formats", done, total),
    )
    analysis = analyse(checkpoint, sequences, costs, feedback=feedback, seed=seed, progress=progress)
    chosen = []
    for rung in rungs:
        allocation = analysis.allocate(rung.budget)
        formats = formats_of(allocation, checkpoint, head)
        chosen.append(Formats(formats, list(analysis.left_out), analysis.record(rung.budget, allocation)))
    return chosen


def is_written(rung: Rung, reference_hash: str) -> bool:
    """Whether a rung of a ladder is there from a run before that was ended early."""
    try:
        record = json.loads((rung.out / "compression.json").read_text(encoding="utf-8"))
        same = all(record["options"][key] == value for key, value in rung.options.items())
        return bool(same and record["reference"]["content_hash"] == reference_hash)
    except (OSError, ValueError, KeyError, TypeError):
        return False
