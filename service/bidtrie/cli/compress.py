"""`bidtrie compress`."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidtrie.errors import BidtrieError, InvalidInput

if TYPE_CHECKING:
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


def compress(
    model: Annotated[
        str, typer.Argument(help="A fetched model's name, a .gguf file or a Hugging Face directory.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write: new or empty.")],
    method: Annotated[
        MethodName,
        typer.Option(
            help="How codes are chosen; rtn: each weight is rounded to the nearest; gptq: those that change the "
            'outputs on ad text least (needs torch: pip install "bidtrie\\[compress]").'
        ),
    ] = MethodName.RTN,
    format: Annotated[
        FormatName,
        typer.Option(
            help="Format of the layers' linears. int4-min adds a minimum to every group, int4-table has 16 "
            "values of unequal distance; 2:4 and 1:4 keep 2 or 1 weights of every four."
        ),
    ] = FormatName.INT4,
    group_size: Annotated[
        int, typer.Option(help="Columns that share a scale: 16, or a multiple of 32 up to 256.")
    ] = 32,
    head_format: Annotated[
        FormatName | None,
        typer.Option(
            help="Format of the embedding and the output head; without it, that of --format, and its dense "
            "form where --format is sparse."
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
    ] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of the text's draw: the same seed gives the same result.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Compress a model into a Hugging Face directory that bidtrie loads like any other model.

    Linears whose rows are not a multiple of 16 columns stay float32. The folder is written whole or not at all. A
    calibrated run (gptq) that is killed goes on when the same command is given again, and ends with the same result.

    Example: bidtrie compress smollm2-135m --method gptq --data ads.csv --format int4 --group-size 64 --out ads-int4
    """
    from bidtrie.models.group_format import GROUP_SIZES, GroupFormat

    if group_size not in GROUP_SIZES:
        raise InvalidInput.of("--group-size", f"{group_size}, expected 16 or a multiple of 32 up to 256")
    head_format = head_format or _DENSE.get(format, format)
    layers, head = (GroupFormat(group_size=group_size, **_FIELDS[each]) for each in (format, head_format))
    options = {"format": format.value, "group_size": group_size, "head_format": head_format.value}

    calibration = None
    if method is MethodName.GPTQ:
        calibration = Calibration(data or [], sequences, sequence_tokens, recover_steps, recover_rate, seed)
    elif data or recover_steps:
        raise InvalidInput.of(
            "--data" if data else "--recover-steps",
            f"is given with --method {method}, expected --method gptq",
        )

    from bidtrie.cli.progress import track
    from bidtrie.compress.compressor import choose_formats, write_compressed
    from bidtrie.compress.compressor import compress as compress_linears
    from bidtrie.models.artefact_writer import check_writable
    from bidtrie.models.describe import describe
    from bidtrie.models.load import load_checkpoint

    begun = time.monotonic()
    checkpoint = load_checkpoint(model)
    check_writable(checkpoint, out)
    formats, left_out = choose_formats(checkpoint.config, layers, head)
    if calibration is None:
        rounded = compress_linears(checkpoint, formats)
        done = list(track(rounded, "compressing linears", total=len(formats), quiet=as_json))
        artefact = write_compressed(out, checkpoint, done, method.value, options)
    else:
        artefact = calibration.write(out, checkpoint, formats, options, quiet=as_json)
        options = dict(artefact.compression.options) if artefact.compression else options
    described = describe(artefact)
    summary = {
        "path": str(out.resolve()),
        "content_hash": artefact.content_hash,
        "method": method.value,
        **options,
        "layers_bits_per_weight": described["compression"]["layers_bits_per_weight"],
        "head_bits_per_weight": described["compression"]["head_bits_per_weight"],
        "size_bytes": described["size_bytes"],
        "reference_size_bytes": describe(checkpoint)["size_bytes"],
        "float32_linears": left_out,
        "seconds": round(time.monotonic() - begun, 2),
    }
    if as_json:
        print(json.dumps(summary))
    else:
        _print(summary)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The flags of a calibrated run."""

    data: list[Path]
    sequences: int
    sequence_tokens: int
    recover_steps: int
    recover_rate: float
    seed: int

    def write(
        self,
        out: Path,
        checkpoint: "Checkpoint",
        formats: "Mapping[str, GroupFormat]",
        options: dict[str, Any],
        *,
        quiet: bool,
    ) -> "Checkpoint":
        """Compress on calibration text and write the artefact."""
        try:
            from bidtrie.compress.calibrated import compress_calibrated
            from bidtrie.compress.recover import Recovery
            from bidtrie.compress.sequential import Solver
        except ImportError as error:
            raise BidtrieError(f'--method gptq needs: pip install "bidtrie[compress]" ({error})') from None
        from bidtrie.cli.progress import progress_bar
        from bidtrie.compress.calibration_text import read_calibration_text
        from bidtrie.compress.compressor import write_compressed

        with progress_bar() as bar:
            task = bar.add_task("reading text", total=None, visible=not quiet)
            text = read_calibration_text(
                self.data, checkpoint.tokenizer, self.sequences, self.sequence_tokens, self.seed
            )
            solver = Solver()
            done, work = compress_calibrated(
                checkpoint,
                formats,
                text,
                solver,
                Recovery(self.recover_steps, self.recover_rate, seed=self.seed),
                out,
                lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
            )
            bar.update(task, description="writing", total=None)
            options = {
                **options,
                "data": list(text.sources),
                "documents": text.documents,
                "sequences": text.sequences.shape[0],
                "sequence_tokens": text.sequences.shape[1],
                "seed": self.seed,
                **solver.to_json(),
                "recover_steps": self.recover_steps,
                "recover_rate": self.recover_rate,
                "recover_losses": [list(each) for each in done.losses],
            }
            artefact = write_compressed(out, done.checkpoint, done.linears, MethodName.GPTQ.value, options)
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
