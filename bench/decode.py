"""Milliseconds a token of our engine beside other engines on this processor, in one run, in turn.

Every engine runs in a process of its own and takes the same tokens. Each figure is measured for all engines one after
the other, round by round, so that a machine that slows down hits all of them; a round's value is the median of some
repetitions, the figure is the median of the rounds. Peers quantize the same weights anew, in their own formats.

decode        one token on a cached text of 100 tokens (100 to 131), head and greedy choice included
treeN         N tokens in one pass on the cached 100, one greedy choice: a tree of N nodes here, N tokens in a row in
              the peers, which have no trees (a row costs them no more than a tree)
treeN_all_rows  the same with a greedy choice at every node
prefill128    128 tokens in one pass, nothing cached

Ratios are the peer's time over ours. `best` is the fastest 4-bit format of any peer for that figure, `best_group32` the
fastest whose weights share a scale in groups of 32 at most, as ours do: larger groups are faster and less exact.
Ratios `of_minima` compare best rounds: look at them where other programs were running.

make bench-peers
python -m bench.decode [--json FILE] [--model NAME] [--artefact DIR] [--peers A,B] [--rounds N] [--threads 1,2]
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bidtrie.evaluation.pages import read_pages
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint

from bench.measure import STAND_IN, machine, report
from bench.peers.environments import is_installed, python
from bench.peers.models import peer_model
from bench.peers.process import PeerError, Worker
from bench.peers.variants import PEERS, VARIANTS

_CACHED = 100
_DECODED = 32
_DECODED_SLOWLY = 12
_TREES = (4, 8, 16, 32, 64, 128)
_TREES_ALL_ROWS = (16, 64)
_PREFILL = 128
#: Passes a round; the first warms the caches up that the engine before has filled, and is dropped.
_PASSES = 4
_PAUSE_SECONDS = 0.02
_SAMPLE = "The capital of France is"
_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass
class Runner:
    """An engine, loaded, and what has been measured of it."""

    name: str
    worker: Worker
    threads: int
    group: int | None = None
    ours: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def only_decodes(self) -> bool:
        return self.group is None and not self.ours

    def figures(self) -> list[str]:
        """What is measured of it."""
        if self.only_decodes:
            return ["decode"]
        rows = [f"tree{count}_all_rows" for count in _TREES_ALL_ROWS]
        trees = [f"tree{count}" for count in _TREES]
        has_rows = self.ours or self.name.startswith("llama_cpp")
        return ["decode", *trees, f"prefill{_PREFILL}", *(rows if has_rows else [])]

    def measure(self, figure: str, tokens: Sequence[int]) -> None:
        """One round of a figure."""
        text, repeats = tokens[:_CACHED], _PASSES
        if figure == "decode":
            count = 1 + (_DECODED_SLOWLY if self.only_decodes else _DECODED)
            answer = self.worker.ask("greedy", text=text, count=count)
        elif figure.startswith("tree"):
            count = int(figure.removeprefix("tree").partition("_")[0])
            do = "extend_all_rows" if figure.endswith("_all_rows") else "extend"
            answer = self.worker.ask(do, text=text, more=tokens[_CACHED : _CACHED + count], repeats=repeats)
        else:
            answer = self.worker.ask("prefill", text=tokens[:_PREFILL], repeats=repeats)
        self.rounds.setdefault(figure, []).append(statistics.median(answer["ms"][1:]))

    def median(self, figure: str) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds[figure])

    def least(self, figure: str) -> float:
        """The best round: what is left of a figure where other programs took the processor in the others."""
        return min(self.rounds[figure])


def _suffix(threads: int, most: int) -> str:
    """What figures of fewer threads than the most end in."""
    if threads == most:
        return ""
    return f"_{threads}thread" if threads == 1 else f"_{threads}threads"


def _tokens(checkpoint: Checkpoint) -> list[int]:
    """As many tokens of plain English as are needed."""
    pages = [page.context for page in read_pages(STAND_IN)]
    text = " ".join(f"{page.title} {page.description}" for page in pages)
    return checkpoint.tokenizer.encode(text)[: _CACHED + max(_TREES)]


def _ours(options: argparse.Namespace, threads: int) -> Iterator[Runner]:
    """Our engine with the model as its file has it, and with the artefact if there is one."""
    for model in [options.model, *([options.artefact] if options.artefact else [])]:
        worker = Worker(Path(sys.executable), "native", model, "", threads)
        about = worker.ask("about")
        name = "bidtrie_int4" if model == options.artefact else f"bidtrie_{about['weights']}"
        yield Runner(name, worker, threads, ours=True, about=about)


def _peers(
    options: argparse.Namespace, checkpoint: Checkpoint, threads: int, most: int, skipped: dict[str, str]
) -> Iterator[Runner]:
    """The peers that are installed; why others are not there goes to `skipped`."""
    for variant in VARIANTS:
        if variant.peer not in options.peers or (threads != most and not variant.four_bit):
            continue
        if not is_installed(variant.peer) or not peer_model(variant, checkpoint).exists():
            skipped[variant.name] = "is not installed: `make bench-peers` does that"
            continue
        model = peer_model(variant, checkpoint)
        try:
            worker = Worker(python(variant.peer), variant.peer, model, variant.form, threads)
            yield Runner(variant.name, worker, threads, variant.group, about=worker.ask("about"))
        except PeerError as error:
            skipped[variant.name] = str(error)


def _idle_percent(runners: Sequence[Runner]) -> dict[str, float]:
    """Processor time that each takes while none has anything to do, in percent of one core."""
    before = [runner.worker.processor_seconds() for runner in runners]
    time.sleep(2)
    after = [runner.worker.processor_seconds() for runner in runners]
    return {
        f"{runner.name} ({runner.threads})": (b - a) / 2 * 100
        for runner, a, b in zip(runners, before, after, strict=True)
    }


def _processor() -> dict[str, Any]:
    """Name and instruction sets of the processor."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name", platform.machine()),
        "processor_family_model": f"{facts.get('cpu family')}/{facts.get('model')}",
        "processor_instruction_sets": [flag for flag in _FLAGS if flag in flags],
    }


def _ratios(runners: Sequence[Runner], suffix: str) -> dict[str, Any]:
    """Peers over ours, for engines of one number of threads."""
    ours = next((r for r in runners if r.name == "bidtrie_int4"), next(r for r in runners if r.ours))
    peers = [runner for runner in runners if runner.group is not None]
    groups = {
        "best": peers,
        "best_group32": [runner for runner in peers if runner.group is not None and runner.group <= 32],
        "llama_cpp": [runner for runner in peers if runner.name.startswith("llama_cpp")],
    }
    found: dict[str, Any] = {f"ratios_of{suffix}": ours.name}
    for figure in ours.figures():
        for group, members in groups.items():
            able = [runner for runner in members if figure in runner.rounds]
            # Logits of all rows are llama.cpp's alone: it is not the best of several there.
            if able and (group == "llama_cpp" or not figure.endswith("_all_rows")):
                best = min(able, key=lambda runner: runner.median(figure))
                least = min(runner.least(figure) for runner in able)
                ratio = f"ratio_{figure}_vs_{group}{suffix}"
                found[ratio] = round(best.median(figure) / ours.median(figure), 3)
                found[f"{ratio}_of_minima"] = round(least / ours.least(figure), 3)
                found[f"{group}_{figure}_is{suffix}"] = best.name
    return found


def _figures(runners: Sequence[Runner], suffix: str) -> dict[str, Any]:
    """All times of engines of one number of threads."""
    found: dict[str, Any] = {}
    for runner in runners:
        for figure, values in runner.rounds.items():
            key = f"{runner.name}_{figure}{suffix}"
            found[f"{key}_ms"] = round(runner.median(figure), 3)
            found[f"{key}_min_ms"] = round(runner.least(figure), 3)
            found[f"{key}_max_ms"] = round(max(values), 3)
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    begin = time.monotonic()
    checkpoint = load_checkpoint(options.model)
    tokens, sample = _tokens(checkpoint), checkpoint.tokenizer.encode(_SAMPLE)
    most = max(options.threads)
    figures: dict[str, Any] = {
        "benchmark": "decode",
        "model": options.model,
        "artefact": options.artefact.name if options.artefact else None,
        "text_from": "stand-in of the project",
        "cached_tokens": _CACHED,
        "rounds": options.rounds,
        "threads": most,
        "load_average_1min_before": machine()["load_average_1min"],
        **_processor(),
    }
    skipped: dict[str, str] = {}
    runners: list[Runner] = []
    try:
        for threads in sorted(options.threads, reverse=True):
            for runner in _ours(options, threads):
                runners.append(runner)
            for runner in _peers(options, checkpoint, threads, most, skipped):
                runners.append(runner)
                print(f"{runner.name}, {threads} threads: loaded", file=sys.stderr, flush=True)
        for runner in runners:
            if runner.threads == most:
                answer = runner.worker.ask("greedy", text=sample, count=12)
                figures[f"{runner.name}_sample"] = checkpoint.tokenizer.decode(answer["tokens"])
        figures["idle_processor_percent"] = _idle_percent(runners)
        names = list(dict.fromkeys(figure for runner in runners for figure in runner.figures()))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            # Who comes first changes from round to round.
            shift = number * len(runners) // options.rounds
            for figure in names:
                for runner in runners[shift:] + runners[:shift]:
                    if figure in runner.figures() and runner.name not in skipped:
                        # Threads of the engine before that still wait for more work go to sleep.
                        time.sleep(_PAUSE_SECONDS)
                        _measure(runner, figure, tokens, skipped)
    finally:
        for runner in runners:
            runner.worker.close()
    kept = [runner for runner in runners if runner.name not in skipped]
    figures["engines"] = {runner.name: runner.about for runner in kept if runner.threads == most}
    for threads in sorted(options.threads, reverse=True):
        suffix = _suffix(threads, most)
        same = [runner for runner in kept if runner.threads == threads]
        figures |= _figures(same, suffix)
        figures |= _ratios(same, suffix)
    return figures | {"skipped": skipped, **machine(), "run_s": round(time.monotonic() - begin, 1)}


def _measure(runner: Runner, figure: str, tokens: Sequence[int], skipped: dict[str, str]) -> None:
    """A round of a figure; a peer that fails is left out, ours may not fail."""
    try:
        runner.measure(figure, tokens)
    except PeerError as error:
        if runner.ours:
            raise
        skipped[runner.name] = str(error)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--model", default="smollm2-135m", help="name of a fetched Llama model")
    parser.add_argument("--artefact", type=Path, help="the same model compressed to 4 bits: ratios are of it")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 rounds")
    parser.add_argument(
        "--threads", default="2", help="one or several numbers, as 1,2; the most is the main one"
    )
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    options.threads = sorted({int(number) for number in options.threads.split(",")})
    options.rounds = 2 if options.quick else options.rounds
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"--peers: {', '.join(sorted(unknown))}, expected some of {', '.join(PEERS)}")
    if options.rounds < 1 or options.threads[0] < 1:
        parser.error("--rounds and --threads: expected at least 1")
    return options


def main() -> None:
    options = _options()
    report(run(options), options.json)


if __name__ == "__main__":
    main()
