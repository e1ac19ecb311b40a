"""`bidtrie compress`."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidtrie.errors import BidtrieError, InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bidtrie.compress.calibration_text import CalibrationText
    from bidtrie.models.checkpoint import Checkpoint
    from bidtrie.models.group_format import GroupFormat


class MethodName(StrEnum):
    """How codes are chosen, as a flag."""

    RTN = "rtn"
    GPTQ = "gptq"


class FormatName(StrEnum):
    """A weight format but for its group size, as a flag."""

    INT8 = "int8"
    INT4 = "int4"
    INT4_MIN = "int4-min"
    INT4_TABLE = "int4-table"
    HALF = "2:4"
    QUARTER = "1:4"
    HALF_TABLE = "2:4-table"
    QUARTER_TABLE = "1:4-table"


_FIELDS: dict[FormatName, dict[str, Any]] = {
    FormatName.INT8: {"bits": 8},
    FormatName.INT4: {"bits": 4},
    FormatName.INT4_MIN: {"bits": 4, "minimum": True},
    FormatName.INT4_TABLE: {"bits": 4, "table": True},
    FormatName.HALF: {"bits": 4, "pattern": "2:4"},
    FormatName.QUARTER: {"bits": 4, "pattern": "1:4"},
    FormatName.HALF_TABLE: {"bits": 4, "table": True, "pattern": "2:4"},
    FormatName.QUARTER_TABLE: {"bits": 4, "table": True, "pattern": "1:4"},
}
#: Embedding and head stay dense unless they are asked not to: a sparse one loses rare words.
_DENSE = {
    FormatName.HALF: FormatName.INT4,
    FormatName.QUARTER: FormatName.INT4,
    FormatName.HALF_TABLE: FormatName.INT4_TABLE,
    FormatName.QUARTER_TABLE: FormatName.INT4_TABLE,
}


#: Tokens that formats are chosen on.
_ANALYSED_TOKENS = 4096
#: Bits a weight from which on rounding to the nearest loses next to nothing (docs/quality.md).
_KEPT_BY_ROUNDING = 8


def compress(
    model: Annotated[
        str, typer.Argument(help="A fetched model's name, a .gguf file or a Hugging Face directory.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write: new or empty.")],
    method: Annotated[
        MethodName | None,
        typer.Option(
            help="How codes are chosen; rtn: each weight is rounded to the nearest; gptq: those that change the "
            'outputs on ad text least (needs torch: pip install "bidtrie\\[compress]"). Without it, gptq with --data, '
            "--recover-steps or a budget, and else rtn."
        ),
    ] = None,
    format: Annotated[
        FormatName | None,
        typer.Option(
            help="Format of the layers' linears where no budget chooses them; default int4. int4-min adds a "
            "minimum to every group, int4-table has 16 values of unequal distance; 2:4 and 1:4 keep 2 or 1 weights of "
            "every four."
        ),
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(help="Columns that share a scale: 16, or a multiple of 32 up to 256; default 32."),
    ] = None,
    budget_bits: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            help="Bits a weight, on average over the layers' linears, scales and positions included: each linear gets "
            "the format that loses least within that.",
        ),
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="The same, with what the layers' linears take of a decoding step, as measured on this machine.",
        ),
    ] = None,
    ladder: Annotated[
        str | None,
        typer.Option(
            help="Several artefacts of one model, for serve --levels: quality, balanced, fast, or NAME=BITS, separated "
            "by commas. --out is the folder of their folders."
        ),
    ] = None,
    rotate: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Rotate the residual stream first, by a random matrix of this seed: the same function, weights that "
            "are easier to round.",
        ),
    ] = None,
    head_format: Annotated[
        FormatName | None,
        typer.Option(
            help="Format of the embedding and the output head; without it, that of --format, and its dense "
            "form where --format is sparse; with a budget, int8."
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text to calibrate on with gptq; give it several times for several files: .tsv of pages, .csv of "
            "products, .jsonl or .txt. Without it, the package's own."
        ),
    ] = None,
    sequences: Annotated[int, typer.Option(help="Sequences of text to calibrate on.")] = 128,
    sequence_tokens: Annotated[int, typer.Option(help="Tokens a sequence.")] = 256,
    recover_steps: Annotated[
        int,
        typer.Option(min=0, help="Steps of distillation from the dense model afterwards, 4 sequences each."),
    ] = 0,
    recover_rate: Annotated[
        float,
        typer.Option(help="How far a step of the distillation moves a weight, relative to its tensor's."),
    ] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of the text's draw: the same seed gives the same result.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Compress a model into a Hugging Face directory that bidtrie loads like any other model.

    Linears whose rows are not a multiple of 16 columns stay float32. The folder is written whole or not at all. A
    calibrated run (gptq) that is killed goes on when the same command is given again, and ends with the same result.

    Example: bidtrie compress smollm2-135m --budget-bits 3.5 --out smollm2-3.5

    Example: bidtrie compress smollm2-135m --method gptq --data ads.csv --format int4 --group-size 64 --out ads-int4
    """
    from bidtrie.cli.compress_rungs import read_rungs

    rungs = read_rungs(out, budget_bits, budget_ms, ladder)
    if rungs:
        for flag, value in (("--format", format), ("--group-size", group_size)):
            if value is not None:
                raise InvalidInput.of(
                    flag, "is given with a budget, expected one of them: the budget chooses formats"
                )
    layers, head, options = _formats(format, group_size, head_format, budget=bool(rungs))
    if method is None:
        method = MethodName.GPTQ if data or recover_steps or rungs else MethodName.RTN
    calibration = Calibration(data or [], sequences, sequence_tokens, recover_steps, recover_rate, seed)
    if method is MethodName.RTN and recover_steps:
        raise InvalidInput.of("--recover-steps", "is given with --method rtn, expected --method gptq")
    if method is MethodName.RTN and data and not rungs:
        raise InvalidInput.of("--data", "is given with --method rtn, expected --method gptq")

    from bidtrie.cli.compress_rungs import choose_within_budgets, is_written
    from bidtrie.cli.progress import progress_bar
    from bidtrie.compress.compressor import choose_formats
    from bidtrie.models.artefact_writer import check_writable
    from bidtrie.models.load import load_checkpoint

    checkpoint = load_checkpoint(model)
    if rotate is not None:
        from bidtrie.compress.rotation import rotate as rotated

        checkpoint = rotated(checkpoint, rotate)
        options["rotate"] = rotate
    rungs = [rung for rung in rungs if ladder is None or not is_written(rung, checkpoint.content_hash)]
    if ladder is None:
        check_writable(checkpoint, out)
    else:
        _make(out)
        for rung in rungs:
            check_writable(checkpoint, rung.out)
    summaries = []
    with progress_bar() as bar:
        task = bar.add_task("", total=None, visible=not as_json)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        text = None
        if method is MethodName.GPTQ or rungs:
            progress("reading text", 0, 1)
            text = calibration.read(checkpoint)
        run = Run(checkpoint, method, calibration, text, progress)
        if ladder is None and not rungs:
            formats, left_out = choose_formats(checkpoint.config, layers, head)
            summaries.append(run.write(out, formats, left_out, options, None))
        elif rungs and text is not None:
            chosen = choose_within_budgets(
                checkpoint,
                calibration.some(text),
                rungs,
                head,
                feedback=method is MethodName.GPTQ,
                seed=seed,
                progress=progress,
            )
            for rung, each in zip(rungs, chosen, strict=True):
                named = {**options, **rung.options}
                summaries.append(run.write(rung.out, each.formats, each.left_out, named, each.allocation))
    if as_json:
        print(json.dumps(summaries[0] if ladder is None else {"rungs": summaries}))
        return
    for summary in summaries:
        _print(summary)
    if ladder is not None:
        names = [rung.out for rung in read_rungs(out, None, None, ladder)]
        print(f"bidtrie serve --model {names[0]} --levels {','.join(map(str, names[1:]))}")


def _make(folder: Path) -> None:
    """The folder that a ladder's rungs are written to."""
    from bidtrie.errors import ModelError

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}") from None


def _formats(
    format: FormatName | None, group_size: int | None, head_format: FormatName | None, *, budget: bool
) -> "tuple[GroupFormat, GroupFormat, dict[str, Any]]":
    """The format of the layers (without a budget), that of embedding and head, and both for the record."""
    from bidtrie.models.group_format import GROUP_SIZES, GroupFormat

    if budget:
        head_format = head_format or FormatName.INT8
        head = GroupFormat(group_size=64, **_FIELDS[head_format])
        return head, head, {"head_format": head_format.value}
    format, group_size = format or FormatName.INT4, 32 if group_size is None else group_size
    if group_size not in GROUP_SIZES:
        raise InvalidInput.of("--group-size", f"{group_size}, expected 16 or a multiple of 32 up to 256")
    head_format = head_format or _DENSE.get(format, format)
    layers, head = (GroupFormat(group_size=group_size, **_FIELDS[each]) for each in (format, head_format))
    return (
        layers,
        head,
        {"format": format.value, "group_size": group_size, "head_format": head_format.value},
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """The flags of a calibrated run."""

    data: list[Path]
    sequences: int
    sequence_tokens: int
    recover_steps: int
    recover_rate: float
    seed: int

    def read(self, checkpoint: "Checkpoint") -> "CalibrationText":
        """The text."""
        from bidtrie.compress.calibration_text import read_calibration_text

        return read_calibration_text(
            self.data, checkpoint.tokenizer, self.sequences, self.sequence_tokens, self.seed
        )

    def some(self, text: "CalibrationText") -> "NDArray[np.int64]":
        """The part that formats are chosen on: gradients cost more than they gain from all of it."""
        return text.sequences[: max(1, _ANALYSED_TOKENS // text.sequences.shape[1])]


@dataclass(frozen=True, slots=True)
class Run:
    """Writes artefacts of one checkpoint."""

    checkpoint: "Checkpoint"
    method: MethodName
    calibration: Calibration
    text: "CalibrationText | None"
    progress: Callable[[str, int, int], None]

    def write(
        self,
        out: Path,
        formats: "Mapping[str, GroupFormat]",
        left_out: list[str],
        options: Mapping[str, Any],
        allocation: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Compress the linears that `formats` names, write the artefact, and summarise it."""
        from bidtrie.models.describe import describe

        begun = time.monotonic()
        artefact = (
            self._rounded(out, formats, options, allocation)
            if self.method is MethodName.RTN
            else self._calibrated(out, formats, options, allocation)
        )
        described = describe(artefact)
        return {
            "path": str(out.resolve()),
            "content_hash": artefact.content_hash,
            "method": self.method.value,
            **described["compression"]["options"],
            "layers_bits_per_weight": described["compression"]["layers_bits_per_weight"],
            "head_bits_per_weight": described["compression"]["head_bits_per_weight"],
            "size_bytes": described["size_bytes"],
            "reference_size_bytes": describe(self.checkpoint)["size_bytes"],
            "float32_linears": left_out,
            "seconds": round(time.monotonic() - begun, 2),
        }

    def _rounded(
        self,
        out: Path,
        formats: "Mapping[str, GroupFormat]",
        options: Mapping[str, Any],
        allocation: Mapping[str, Any] | None,
    ) -> "Checkpoint":
        from bidtrie.compress.compressor import compress as compress_linears
        from bidtrie.compress.compressor import write_compressed

        linears = []
        for done, linear in enumerate(compress_linears(self.checkpoint, formats), start=1):
            linears.append(linear)
            self.progress("compressing linears", done, len(formats))
        return write_compressed(out, self.checkpoint, linears, self.method.value, options, allocation)

    def _calibrated(
        self,
        out: Path,
        formats: "Mapping[str, GroupFormat]",
        options: Mapping[str, Any],
        allocation: Mapping[str, Any] | None,
    ) -> "Checkpoint":
        try:
            from bidtrie.compress.calibrated import compress_calibrated
            from bidtrie.compress.recover import Recovery
            from bidtrie.compress.sequential import Solver
        except ImportError as error:
            raise BidtrieError(f'--method gptq needs: pip install "bidtrie[compress]" ({error})') from None
        from bidtrie.compress.compressor import write_compressed

        flags, text, solver = self.calibration, self.text, Solver()
        assert text is not None, "read for this method"
        recovery = Recovery(flags.recover_steps, flags.recover_rate, seed=flags.seed)
        done, work = compress_calibrated(self.checkpoint, formats, text, solver, recovery, out, self.progress)
        self.progress("writing", 0, 1)
        options = {
            **options,
            "data": list(text.sources),
            "documents": text.documents,
            "sequences": text.sequences.shape[0],
            "sequence_tokens": text.sequences.shape[1],
            "seed": flags.seed,
            **solver.to_json(),
            "recover_steps": flags.recover_steps,
            "recover_rate": flags.recover_rate,
            "recover_losses": [list(each) for each in done.losses],
        }
        artefact = write_compressed(
            out, done.checkpoint, done.linears, self.method.value, options, allocation
        )
        work.remove()
        return artefact


def _print(summary: dict[str, Any]) -> None:
    left_out = summary["float32_linears"]
    print(
        f"layers' linears: {summary['layers_bits_per_weight']:g} bits a weight; "
        f"embedding and head: {summary['head_bits_per_weight']:g}"
    )
    if left_out:
        print(
            f"left in float32, since their rows are not a multiple of 16: {len(left_out)} linears, "
            f"for example {left_out[0]}"
        )
    print(
        f"{summary['size_bytes'] / 1e6:.1f} MB (from {summary['reference_size_bytes'] / 1e6:.1f} MB) "
        f"in {summary['seconds']:.1f} s, at {summary['path']}"
    )
    if summary["method"] == MethodName.RTN.value and summary["layers_bits_per_weight"] < _KEPT_BY_ROUNDING:
        print(
            "Rounded to the nearest with so few bits, a model answers noticeably worse: --method gptq loses much less "
            "in as many, --format int8 next to nothing."
        )
