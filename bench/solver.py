"""How linears are solved, beside simpler ways at the same bits: perplexity on held-out ad text.

The linears of all layers are compressed in one format, embedding and head stay as they are. `nearest` rounds to the
nearest; `plain` is GPTQ with its columns in the order in which they lie, `ordered` with those that inputs activate most
first; `refined` refits scales and improves codes afterwards; `corrected`, the service's own, also makes good what the
linears before got wrong. Calibration is the package's own text, the perplexity that of the product file's second half,
as prose in sequences of 256 tokens, in float32 (torch), so that nothing but the weights differs.

python -m bench.solver [--rotate SEED] [--format int4,int4-table,…] [--group-size 64] [--ways nearest,plain,…]
    [--sequences 48] [--eval-sequences 64] [--products FILE.csv] [--model NAME] [--json FILE]
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import torch
from bidtrie.cli.progress import track
from bidtrie.compress.calibration_text import read_calibration_text
from bidtrie.compress.llama import Llama, torch_weights
from bidtrie.compress.perplexity import perplexity
from bidtrie.compress.product_text import product_sequences
from bidtrie.compress.rotation import rotate
from bidtrie.compress.round_to_nearest import quantize
from bidtrie.compress.sequential import Solver, solve_model
from bidtrie.evaluation.creative import read_products
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.group_format import GroupFormat
from bidtrie.models.layout import is_head, linear_shapes
from bidtrie.models.load import load_checkpoint

from bench.measure import machine, report

_PRODUCTS = Path(__file__).parent / "data" / "products.csv"
_TOKENS = 256
#: None: no solver, each weight is rounded to the nearest.
_WAYS: dict[str, Solver | None] = {
    "nearest": None,
    "plain": Solver(order=False, rounds=0, correction=0.0),
    "ordered": Solver(rounds=0, correction=0.0),
    "refined": Solver(correction=0.0),
    "corrected": Solver(),
}
_FORMATS: dict[str, dict[str, Any]] = {
    "int8": {"bits": 8},
    "int4": {"bits": 4},
    "int4-min": {"bits": 4, "minimum": True},
    "int4-table": {"bits": 4, "table": True},
    "2:4": {"bits": 4, "pattern": "2:4"},
    "1:4": {"bits": 4, "pattern": "1:4"},
}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run, keyed by format and way."""
    checkpoint = load_checkpoint(options.model)
    if options.rotate is not None:
        checkpoint = rotate(checkpoint, options.rotate)
    products = read_products(options.products)
    held_out = product_sequences(products[len(products) // 2 :], checkpoint.tokenizer, _TOKENS)
    held_out = held_out[: options.eval_sequences]
    text = read_calibration_text([], checkpoint.tokenizer, options.sequences, _TOKENS, 0)
    dense = perplexity(Llama(checkpoint), held_out)
    figures: dict[str, Any] = {
        "benchmark": "solver",
        "model": options.model,
        "rotated": options.rotate is not None,
        "products_from": "stand-in of the project"
        if options.products == _PRODUCTS
        else options.products.name,
        "sequences": len(text.sequences),
        "eval_sequences": len(held_out),
        "perplexity_dense": dense,
    }
    print(f"dense: {dense:.3f}", flush=True)
    for name in options.format.split(","):
        format = GroupFormat(group_size=options.group_size, **_FORMATS[name])
        for way in options.ways.split(","):
            begun = time.monotonic()
            weights = _compressed(checkpoint, format, text.sequences, _WAYS[way])
            seconds = time.monotonic() - begun
            found = perplexity(Llama(checkpoint, weights), held_out)
            key = f"{format.name}_{way}"
            figures |= {
                f"{key}_perplexity": found,
                f"ratio_{key}_perplexity": found / dense,
                f"{key}_solve_s": seconds,
            }
            print(
                f"{key}: {found:.3f}, {100 * (found / dense - 1):+.2f}%, solved in {seconds:.0f} s",
                flush=True,
            )
    figures["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return figures | machine()


def _compressed(
    checkpoint: Checkpoint, format: GroupFormat, sequences: Any, solver: Solver | None
) -> dict[str, torch.Tensor]:
    """The model's weights, the layers' linears as they come back from the format."""
    weights = torch_weights(checkpoint)
    names = [name for name in linear_shapes(checkpoint.config) if not is_head(name)]
    if solver is None:
        for name in names:
            tensor = quantize(weights[f"{name}.weight"].numpy(), format)
            weights[f"{name}.weight"] = torch.from_numpy(tensor.dequantize())
        return weights
    work = solve_model(checkpoint, dict.fromkeys(names, format), sequences, solver)
    for solved in track(work, "solving linears", total=len(names)):
        weights[f"{solved.name}.weight"] = torch.from_numpy(solved.tensor.dequantize())
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--model", default="smollm2-135m", help="name or path of a checkpoint")
    parser.add_argument("--products", type=Path, default=_PRODUCTS, help="products with ad texts, .csv")
    parser.add_argument(
        "--rotate", type=int, help="seed of a rotation of the residual stream: weights on no grid"
    )
    parser.add_argument("--format", default="int4", help=f"of {', '.join(_FORMATS)}; commas between")
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--ways", default=",".join(_WAYS), help="which ways; commas between")
    parser.add_argument("--sequences", type=int, default=48, help="of calibration text")
    parser.add_argument("--eval-sequences", type=int, default=64, help="of held-out text, at most")
    options = parser.parse_args()
    report(run(options), options.json)


if __name__ == "__main__":
    main()
