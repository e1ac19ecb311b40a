"""Texts of two models side by side, as Markdown: the first products of a file, none picked.

bidtrie eval creative --products bench/data/products.csv --model smollm2-135m --save base.jsonl
bidtrie eval creative --products bench/data/products.csv --model bidtrie-135m --save tuned.jsonl
python -m bench.samples base.jsonl tuned.jsonl --names smollm2-135m bidtrie-135m --count 50
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, str]


def read(file: Path) -> list[Row]:
    """What `bidtrie eval creative --save` wrote."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def table(first: Sequence[Row], second: Sequence[Row], names: Sequence[str]) -> str:
    """A row a product. Raises ValueError where the files are not of the same products."""
    lines = [f"| product | {names[0]} | {names[1]} | reference |", "|---|---|---|---|"]
    for one, other in zip(first, second, strict=True):
        if {**one, "text": ""} != {**other, "text": ""}:
            raise ValueError(f"not the same product: {one['company']} and {other['company']}")
        about = f"**{one['company']}**: {one['description']}"
        cells = (about, one["text"] or "(nothing)", other["text"] or "(nothing)", one["reference"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--names", nargs=2, default=("first", "second"))
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    print(table(read(options.first)[: options.count], read(options.second)[: options.count], options.names))


if __name__ == "__main__":
    main()
