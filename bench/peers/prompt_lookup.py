"""Prompt lookup of other engines: their plain decoding beside their own guesses from the prompt, in turn.

Every engine loads the model once for each number of guessed tokens, none first; the file that its processes load is
`{"model": PATH, "tokenizer": FOLDER, "ends": [TOKEN, ...]}`.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bidtrie.models.checkpoint import Checkpoint

from bench.peers.environments import FOLDER, is_installed, python
from bench.peers.models import peer_model
from bench.peers.process import PeerError, Worker
from bench.peers.targeting import INSTALL, model_file
from bench.peers.variants import Variant

_TRANSFORMERS = Variant("transformers", "float32")
_VARIANTS = (
    _TRANSFORMERS,
    Variant("llama_cpp", "own", "gguf"),
    Variant("openvino", "int4", group=32, converted="openvino-int4"),
)
#: Tokens that are guessed: none; what llama-cpp-python advises for a CPU; the usual number.
_GUESSED = (0, 2, 10)
#: OpenMP's threads spin for up to 0.2 s after their work.
_PAUSE_SECONDS = 0.25

#: A prompt, and the most tokens to write.
Asked = tuple[list[int], int]


def _why_missing(variant: Variant, checkpoint: Checkpoint) -> str | None:
    if not is_installed(variant.peer) or model_file(variant, checkpoint) is None:
        return INSTALL
    if variant.peer == "openvino" and not any(
        (FOLDER / "openvino").glob("lib/*/site-packages/openvino_genai")
    ):
        return "its environment has no openvino-genai"
    return None


def _measure(workers: dict[int, Worker], asked: Sequence[Asked], rounds: int) -> dict[str, Any]:
    """Milliseconds a token by tokens guessed, of each text's fastest round; and how many texts stay the same."""
    spent = dict.fromkeys(workers, 0.0)
    decoded = dict.fromkeys(workers, 0)
    same = dict.fromkeys(workers, 0)
    for i, (prompt, count) in enumerate([asked[0], *asked]):
        best: dict[int, float] = {}
        tokens: dict[int, list[int]] = {}
        for turn in range(rounds):
            shift = (i + turn) % len(workers)
            names = list(workers)
            for guessed in names[shift:] + names[:shift]:
                time.sleep(_PAUSE_SECONDS)
                answer = workers[guessed].ask("greedy", text=prompt, count=count)
                tokens[guessed] = answer["tokens"]
                taken = sum(answer["ms"][1:])
                best[guessed] = min(best.get(guessed, taken), taken)
        if i == 0:  # warms up
            continue
        for guessed in workers:
            spent[guessed] += best[guessed]
            decoded[guessed] += len(tokens[guessed]) - 1
            same[guessed] += tokens[guessed] == tokens[0]
    return {
        "ms_a_token": {guessed: spent[guessed] / max(1, decoded[guessed]) for guessed in workers},
        "same_texts": {guessed: same[guessed] / len(asked) for guessed in workers},
    }


def prompt_lookup(
    checkpoint: Checkpoint, asked: Sequence[Asked], ends: Sequence[int], threads: int, rounds: int
) -> dict[str, Any]:
    """`ratio_prompt_lookup_ENGINE`: a token's time of plain decoding over that with the better number of guesses.

    Times are from the end of the pass that the prompt ends in; an engine that guesses in that pass already has those
    tokens for nothing. Ratios are null for engines that `prompt_lookup_missing` names. `ends` are the tokens that end a
    text. Greedy.
    """
    figures: dict[str, Any] = {"prompt_lookup_texts": len(asked)}
    missing: dict[str, str] = {}
    for variant in _VARIANTS:
        name = f"prompt_lookup_{variant.peer}"
        figures[f"ratio_{name}"] = None
        if why := _why_missing(variant, checkpoint):
            missing[variant.peer] = why
            continue
        with ExitStack() as stack:
            file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "task.json"
            task = {
                "model": str(model_file(variant, checkpoint)),
                "tokenizer": str(peer_model(_TRANSFORMERS, checkpoint)),
                "ends": list(ends),
            }
            file.write_text(json.dumps(task), encoding="utf-8")
            workers: dict[int, Worker] = {}
            try:
                for guessed in _GUESSED:
                    worker = Worker(
                        python(variant.peer), f"{variant.peer}_lookup", file, str(guessed), threads
                    )
                    stack.callback(worker.close)
                    workers[guessed] = worker
                found = _measure(workers, asked, rounds)
                figures[f"{name}_about"] = workers[0].ask("about")
            except PeerError as error:
                missing[variant.peer] = str(error)
                continue
        each = found["ms_a_token"]
        ratios = {guessed: each[0] / each[guessed] for guessed in _GUESSED if guessed}
        for guessed in _GUESSED:
            key = f"{name}_{guessed}" if guessed else f"{name}_plain"
            figures[f"{key}_ms_a_token"] = each[guessed]
            if guessed:
                figures[f"ratio_{key}"] = ratios[guessed]
                figures[f"{key}_same_texts"] = found["same_texts"][guessed]
        figures[f"ratio_{name}"] = max(ratios.values())
    return figures | {"prompt_lookup_missing": missing}
