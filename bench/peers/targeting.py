"""The engines that choose a path of a catalog by decoding under a constraint, greedily.

What they are to choose from is written to a file, which their processes load together with the model:
`{"model": PATH, "texts": [...], "grammar": GBNF, "end": TOKEN, "warm_up": [TOKEN, ...]}`.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.names import model_path
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import terminator
from bidtrie.trie.trie import token_text

from bench.peers.environments import is_installed, python
from bench.peers.models import peer_model
from bench.peers.process import PeerError, Worker
from bench.peers.targeting_grammar import tiered_grammar
from bench.peers.variants import Variant

#: By name, as the figures call them. llama.cpp takes the file that we take, and the format that it is fastest in.
_VARIANTS = {
    "vllm_choice": Variant("vllm", "bfloat16"),
    "llama_cpp": Variant("llama_cpp", "own", "gguf"),
    "llama_cpp_q4_0": Variant("llama_cpp", "q4_0", "gguf", 32, "q4_0.gguf"),
}
NAMES = tuple(_VARIANTS)
#: Why one is missing that is not there.
INSTALL = "is not installed: `make bench-peers` does that"
CONVERT = "has no file of this model: `python -m bench.peers.setup --model NAME` makes it of a .gguf file"
_MOST_TOKENS = 128


@dataclass(frozen=True)
class TargetingPeer:
    """One of them, ready."""

    name: str
    worker: Worker
    about: dict[str, Any]

    def choose(self, prompt: Sequence[int]) -> tuple[list[int], float]:
        """The tokens of the path that it writes, its end included, and milliseconds. Raises PeerError."""
        answer = self.worker.ask("greedy", text=list(prompt), count=_MOST_TOKENS)
        return answer["tokens"], answer["ms"][0]


def model_file(variant: Variant, checkpoint: Checkpoint) -> Path | None:
    """The model as the variant takes it; None where there is none."""
    path = model_path(checkpoint.name) if variant.form == "own" else peer_model(variant, checkpoint)
    if path is None or not path.exists() or (variant.form == "own" and path.suffix != ".gguf"):
        return None
    return path


def start_targeting_peers(
    stack: ExitStack,
    folder: Path,
    catalog: Catalog,
    checkpoint: Checkpoint,
    warm_up: Sequence[int],
    threads: int,
) -> tuple[list[TargetingPeer], dict[str, str]]:
    """Those that are installed, and why others are missing, by name. `stack` ends their processes.

    folder    for the files that say what to load
    warm_up   a prompt to compile and warm up with
    """
    found: list[TargetingPeer] = []
    missing: dict[str, str] = {}
    task = {
        "texts": [token_text(catalog.path_text(i)) + "\n" for i in range(len(catalog))],
        "grammar": tiered_grammar(catalog),
        "end": terminator(checkpoint.tokenizer),
        "warm_up": list(warm_up),
    }
    for name, variant in _VARIANTS.items():
        if not is_installed(variant.peer):
            missing[name] = INSTALL
            continue
        model = model_file(variant, checkpoint)
        if model is None:
            missing[name] = CONVERT
            continue
        file = folder / f"{name}.json"
        file.write_text(json.dumps(task | {"model": str(model)}), encoding="utf-8")
        try:
            worker = Worker(python(variant.peer), f"{variant.peer}_targeting", file, variant.form, threads)
            stack.callback(worker.close)
            found.append(TargetingPeer(name, worker, worker.ask("about")))
        except PeerError as error:
            missing[name] = str(error)
    return found, missing
