"""What every engine's process does: load a model once, then answer one JSON line for each JSON line.

This file and the peers' own ones run in the peers' environments: nothing of bidtrie can be imported here.
"""

import argparse
import gc
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Measured(ABC):
    """An engine with a model loaded; times are in milliseconds, the greedy choice of a token included.

    A text is a list of token ids; nothing of it is left in the engine's cache between two calls.
    """

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Versions and settings, for the report."""

    @abstractmethod
    def greedy(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """`count` tokens that follow the text, and the time of each but the first, which belongs to the prefill."""

    def plain(self, text: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """As `greedy`, by an engine whose `greedy` is constrained, without the constraint."""
        raise NotImplementedError("knows no constraint")

    def extend(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        """Times of `more` in one pass on the cached text, one greedy choice; what it computed is dropped after each."""
        raise NotImplementedError("measures decoding only")

    def extend_all_rows(self, text: Sequence[int], more: Sequence[int], repeats: int) -> list[float]:
        """The same with a greedy choice after each token of `more`, as verifying a draft takes it."""
        raise NotImplementedError("computes the last row's logits only")

    def prefill(self, text: Sequence[int], repeats: int) -> list[float]:
        """Times of the whole text in one pass, with nothing cached."""
        raise NotImplementedError("measures decoding only")


def milliseconds(work: Callable[[], Any]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _answer(engine: Measured, command: dict[str, Any]) -> dict[str, Any]:
    text = command.get("text", [])
    match command["do"]:
        case "about":
            return engine.about()
        case "greedy":
            tokens, ms = engine.greedy(text, command["count"])
            return {"tokens": tokens, "ms": ms}
        case "plain":
            tokens, ms = engine.plain(text, command["count"])
            return {"tokens": tokens, "ms": ms}
        case "extend":
            return {"ms": engine.extend(text, command["more"], command["repeats"])}
        case "extend_all_rows":
            return {"ms": engine.extend_all_rows(text, command["more"], command["repeats"])}
        case "prefill":
            return {"ms": engine.prefill(text, command["repeats"])}
    raise ValueError(f"do: {command['do']!r} is no command")


def main(
    load: Callable[[str, str, int], Measured], convert: Callable[[Path, Path, str], None] | None = None
) -> None:
    """Serve on stdin and stdout until stdin ends, or convert a model with `--convert SOURCE TARGET`.

    `load` takes what to load, in which of the peer's formats, and the number of threads.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--convert", nargs=2, type=Path, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--model", default="")
    parser.add_argument("--format", default="")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.convert and convert:
        convert(*options.convert, options.format)
        return
    # Peers print what they like; the answers have the real standard output to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        engine = load(options.model, options.format, options.threads)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        raise
    print(json.dumps({"ready": True}), file=answers, flush=True)
    # What was made while loading stays: looking through it again before each command would only take time.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        gc.collect()
        gc.disable()
        try:
            answer = _answer(engine, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        gc.enable()
        print(json.dumps(answer), file=answers, flush=True)
