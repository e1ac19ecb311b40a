"""Creatives with drafts against plain decoding, in one run, in turn: time, engine steps, acceptance.

Each product of the file's second half is written by itself, as a headline of about 16 tokens and as a description of
about 40, plainly and with drafts of several kinds, one after the other in an order that turns. Time is that of the
text's own steps, from the prompt's end to the text's (`ratio_vs_plain_…`), or of the whole request, prompt and sources
included (`ratio_request_…`). Of each text and way the fastest round counts; ratios are of sums over texts.

  cold       no approved creatives: the request's own text and the prompt's examples
  warm       approved: the texts that people wrote for the first half's products
  written    approved: the texts that this model wrote for some of the first half's products
  no_regret  nothing but approved creatives of random words, which predict nothing

Every text is checked to be the one of plain decoding. `ratio_steps_bound_…` is what steps could be saved at most: if
everything that the sources say (four tokens each of any place) were fed, at no cost.

With `--peers`, other engines write some of the same prompts greedily, plainly and with prompt lookup, each in turn with
itself: `ratio_prompt_lookup_transformers`, `…_llama_cpp` and `…_openvino` are their times a token of plain decoding
over those with lookup, guessing 2 or 10 tokens, whichever is faster. `ratio_vs_plain_cold_same_texts` is ours on these
prompts. They end a text where we do, by their own choice, and after as many tokens as ours has at the latest; they know
nothing of our constraints, so that their texts are others. An engine that is not installed (`make bench-peers`) is
named in `prompt_lookup_missing`.

python -m bench.creative [--json FILE] [--products FILE.csv] [--texts 30] [--rounds 3] [--peers] [--peer-texts 10]
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bidtrie.creative.job import Creatives, Speculation, compute_prefix, generate
from bidtrie.creative.prompt import EXAMPLE_TEXTS, PromptTemplate
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.drafts.drafter import Source
from bidtrie.drafts.drafting import Drafting
from bidtrie.drafts.phrase_trie import context_of
from bidtrie.engine.native import NativeEngine
from bidtrie.evaluation.creative import LabelledProduct, read_products
from bidtrie.load.words import WORDS
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import CreativeText, GenerateQuery, Product, Sampling, Slot, SlotType
from bidtrie.scheduling.calibration import calibrate
from bidtrie.scheduling.job import Job, Plan, run_alone
from bidtrie.scheduling.scheduler import Level, Scheduler
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.scheduling.step_shape import StepShape

from bench.measure import machine, report
from bench.peers.prompt_lookup import prompt_lookup

SLOTS = (Slot("headline", SlotType.HEADLINE, 70), Slot("description", SlotType.DESCRIPTION, 220))
_TEMPERATURE = 0.7
#: Products that are written before anything is measured: hit rates and the cost model are learned on them.
_WARM_UP = 8
_RANDOM_TEXTS, _RANDOM_WORDS = 400, 12


@dataclass
class Tally:
    """What one way of writing took, over all texts of a slot."""

    seconds: list[float] = field(default_factory=list)
    request_seconds: list[float] = field(default_factory=list)
    steps: int = 0
    tokens: list[int] = field(default_factory=list)
    trees: int = 0
    nodes: int = 0
    accepted: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    known: int = 0
    """Tokens of the texts that a source said, of `text_tokens`."""
    text_tokens: int = 0


@dataclass
class Run:
    """One request, measured."""

    result: Creatives
    steps: int
    fed: int
    seconds: float
    request_seconds: float


class Writer:
    """One model on its engine behind a scheduler, as the service has it."""

    def __init__(self, model: str) -> None:
        self.checkpoint = load_checkpoint(model)
        self.tokenizer = self.checkpoint.tokenizer
        self.engine = NativeEngine(self.checkpoint, max_nodes=128)
        self.vocabulary = Vocabulary(self.tokenizer, self.engine.spec.vocab_size)
        self.prompt = PromptTemplate(self.tokenizer)
        self.fixed = run_alone(self.engine, compute_prefix(self.engine, self.prompt.fixed_tokens))
        self.level = Level(self.engine)
        calibrate(self.level, self.fixed, self.prompt.fixed_tokens[-1])
        self.scheduler = Scheduler([self.level], max_requests=8)

    def drafting(self, approved: Path | None, *, examples: bool = True) -> Drafting:
        """Drafts as the service makes them."""
        return Drafting(
            self.tokenizer.encode,
            self.vocabulary.size,
            approved=approved,
            examples=EXAMPLE_TEXTS if examples else (),
        )

    def write(self, query: GenerateQuery, drafting: Drafting | None, only: str = "") -> Run:
        """One request; `only` leaves the sources whose names begin so."""
        begin = time.perf_counter()
        speculation = None
        if drafting is not None:
            sources = chosen_sources(drafting, query, only)
            drafter = drafting.drafter(query, sources)
            assert drafter is not None
            speculation = Speculation(drafter, self.level.model.mean)
        prompted = fed = 0.0

        def job() -> Job[Creatives]:
            """The request's job; notes when its prompt is done and how many nodes it feeds then."""
            nonlocal prompted, fed
            writing = generate(
                self.engine,
                self.vocabulary,
                self.prompt,
                query,
                fixed=self.fixed,
                chunk=lambda: self.scheduler.chunk(0),
                speculation=speculation,
            )
            try:
                batch = next(writing)
                while True:
                    is_prompt = len(batch.logits_for) < len(batch)
                    output = yield batch
                    if is_prompt:
                        prompted = time.perf_counter()
                    else:
                        fed += len(batch)
                    batch = writing.send(output)
            except StopIteration as stop:
                result: Creatives = stop.value
                return result
            finally:
                writing.close()

        plan = Plan("creative", 0, (StepShape(1, 0, 1, 0, 1),), job)
        future = self.scheduler.submit([plan], None, ServiceClass.CREATIVE)
        while self.scheduler.round() is not None:
            pass
        outcome = future.result()
        end = time.perf_counter()
        return Run(outcome.result, outcome.stats.steps, int(fed), end - prompted, end - begin)


def chosen_sources(drafting: Drafting, query: GenerateQuery, only: str) -> list[Source]:
    """The sources whose names begin with `only`."""
    return [each for each in drafting.sources(query) if each.name.startswith(only)]


def known_tokens(text: Sequence[int], sources: Sequence[Source], vocabulary: int) -> int:
    """How many of a text's tokens one of the sources says where they stand; the first is never guessed."""
    known = 0
    for i in range(1, len(text)):
        context = context_of(text[:i], vocabulary)
        said = [source.phrases.following(context) for source in sources]
        known += any(found is not None and text[i] in dict(found[1]) for found in said)
    return known


def query(product: LabelledProduct, slot: Slot, sampling: Sampling) -> GenerateQuery:
    """One text for a product of the file."""
    facts = Product(company=product.company, industry=product.industry, description=product.description)
    return GenerateQuery(facts, (slot,), sampling=sampling)


def write_lines(file: Path, lines: Sequence[dict[str, str]]) -> Path:
    """A file of approved creatives."""
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def stand_in(count: int) -> list[LabelledProduct]:
    """Invented products, where no file is given."""
    rng = random.Random(1)

    def words(number: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(number))

    industries = [words(2) for _ in range(8)]
    products = []
    for i in range(count):
        company, industry = words(2).title(), industries[i % len(industries)]
        described = f"{company} makes {words(2)} for {words(1)} and {words(1)}. {words(6).capitalize()}."
        products.append(LabelledProduct(company, industry, "headline", described, words(5).title()))
    return products


def measure(
    writer: Writer,
    ways: dict[str, Drafting | None],
    products: Sequence[LabelledProduct],
    slot: Slot,
    temperature: float,
    rounds: int,
) -> dict[str, Tally]:
    """All ways, in turn, text by text; asserts that all write the same."""
    tallies = {name: Tally() for name in ways}
    names = list(ways)
    for i, product in enumerate(products):
        asked = query(product, slot, Sampling(temperature, seed=i if temperature else None))
        runs: dict[str, list[Run]] = {name: [] for name in ways}
        for turn in range(rounds if i >= _WARM_UP else 1):
            shift = (i + turn) % len(names)
            for name in names[shift:] + names[:shift]:
                only = "approved" if name == "no_regret" else ""
                runs[name].append(writer.write(asked, ways[name], only))
        texts = {each.result.texts for found in runs.values() for each in found}
        assert len(texts) == 1, "drafts have changed a text"
        if i < _WARM_UP:
            continue
        for name, found in runs.items():
            tally, first = tallies[name], found[0]
            tally.seconds.append(min(each.seconds for each in found))
            tally.request_seconds.append(min(each.request_seconds for each in found))
            tally.steps += first.steps - 1
            tally.tokens.append(runs["plain"][0].fed)
            drafting = ways[name]
            if drafting is not None:
                sources = chosen_sources(drafting, asked, "approved" if name == "no_regret" else "")
                for text in first.result.texts:
                    tokens = writer.tokenizer.encode(text.text)
                    tally.known += known_tokens(tokens, sources, writer.vocabulary.size)
                    tally.text_tokens += len(tokens)
            for each in found:
                tally.trees += each.result.drafts.trees
                tally.nodes += each.result.drafts.nodes
                tally.accepted += each.result.drafts.accepted
                tally.decisions += each.result.drafts.decisions
    return tallies


def figures_of(tallies: dict[str, Tally], slot: str, suffix: str) -> dict[str, Any]:
    """Figures of one slot and temperature."""
    plain = tallies["plain"]
    figures: dict[str, Any] = {
        f"tokens_fed_median_{slot}{suffix}": statistics.median(plain.tokens),
        f"tokens_per_second_plain_{slot}{suffix}": sum(plain.tokens) / sum(plain.seconds),
    }
    for name, tally in tallies.items():
        if name == "plain":
            continue
        key = f"{name}_{slot}{suffix}"
        decided = max(1, sum(tally.decisions.values()))
        figures |= {
            f"ratio_vs_plain_{key}": sum(plain.seconds) / sum(tally.seconds),
            f"ratio_request_{key}": sum(plain.request_seconds) / sum(tally.request_seconds),
            f"ratio_steps_{key}": plain.steps / max(1, tally.steps),
            f"ratio_steps_bound_{key}": tally.text_tokens / max(1, tally.text_tokens - tally.known),
            f"tokens_per_second_{key}": sum(tally.tokens) / sum(tally.seconds),
            f"accepted_tokens_per_draft_{key}": tally.accepted / max(1, tally.trees),
            f"nodes_per_draft_{key}": tally.nodes / max(1, tally.trees),
            f"share_of_steps_drafted_{key}": tally.decisions["drafted"] / decided,
        }
    return figures


def both_slots(found: Sequence[dict[str, Tally]], name: str, *, request: bool = False) -> float:
    """Plain over drafted time, texts of both slots together."""

    def total(tallies: dict[str, Tally], which: str) -> float:
        tally = tallies[which]
        return sum(tally.request_seconds if request else tally.seconds)

    return sum(total(each, "plain") for each in found) / sum(total(each, name) for each in found)


def beside_peers(
    writer: Writer,
    products: Sequence[LabelledProduct],
    found: Sequence[dict[str, Tally]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Prompt lookup of other engines on the first products measured, and what our drafts do on the same."""
    count = len(products)
    ours = {name: sum(sum(tallies[name].seconds[:count]) for tallies in found) for name in ("plain", "cold")}
    asked = []
    for slot, tallies in zip(SLOTS, found, strict=True):
        for product, fed in zip(products, tallies["plain"].tokens, strict=False):
            rest = writer.prompt.rest_tokens(query(product, slot, Sampling(0.0)), slot)
            asked.append(([*writer.prompt.fixed_tokens, *rest], fed + 1))
    ends = sorted({*writer.tokenizer.eos_ids, *np.flatnonzero(writer.vocabulary.stop).tolist()})
    theirs = prompt_lookup(writer.checkpoint, asked, ends, writer.engine.threads, options.rounds)
    return {"ratio_vs_plain_cold_same_texts": ours["plain"] / ours["cold"]} | theirs


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    writer = Writer(options.model)
    products = read_products(options.products) if options.products else stand_in(2 * options.texts + 200)
    half = len(products) // 2
    first, second = products[:half], products[half:]
    wanted = _WARM_UP + options.texts
    measured = second[:: max(1, len(second) // wanted)][:wanted]
    examples = first[:: max(1, len(first) // max(1, options.written))][: options.written]
    written: list[tuple[LabelledProduct, CreativeText]] = []
    for product in examples:
        for slot in SLOTS:
            found = writer.write(query(product, slot, Sampling()), None).result
            written += [(product, text) for text in found.texts]
    rng = random.Random(0)
    vocabulary = sorted({word for product in first for word in product.description.split()})
    noise = [" ".join(rng.choices(vocabulary, k=_RANDOM_WORDS)) for _ in range(_RANDOM_TEXTS)]
    figures: dict[str, Any] = {
        "benchmark": "creative",
        "model": options.model,
        "instruction_set": writer.engine.instruction_set,
        "threads": writer.engine.threads,
        "products_from": options.products.name if options.products else "stand-in of the project",
        "texts_a_slot": len(measured) - _WARM_UP,
        "rounds": options.rounds,
        "approved_people_wrote": len(first),
        "approved_model_wrote": len(written),
        "temperature_sampled": _TEMPERATURE,
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        people = [{"text": each.reference, "industry": each.industry} for each in first]
        model = [{"text": text.text, "industry": product.industry} for product, text in written]
        files = {
            "warm": write_lines(folder / "people.jsonl", people),
            "written": write_lines(folder / "model.jsonl", model),
            "no_regret": write_lines(folder / "noise.jsonl", [{"text": text} for text in noise]),
        }
        for temperature, suffix in ((0.0, ""), (_TEMPERATURE, "_sampled")):
            found = []
            for slot in SLOTS:
                ways: dict[str, Drafting | None] = {"plain": None, "cold": writer.drafting(None)}
                ways |= {
                    name: writer.drafting(file, examples=name != "no_regret") for name, file in files.items()
                }
                found.append(measure(writer, ways, measured, slot, temperature, options.rounds))
                figures |= figures_of(found[-1], slot.name, suffix)
            for name in ("cold", *files):
                key = f"ratio_{name}{suffix}" if name == "no_regret" else f"ratio_vs_plain_{name}{suffix}"
                figures[key] = both_slots(found, name)
                figures[f"ratio_request_{name}{suffix}"] = both_slots(found, name, request=True)
            if options.peers and not temperature:
                figures |= beside_peers(writer, measured[_WARM_UP:][: options.peer_texts], found, options)
    model_of = writer.level.model
    figures |= {
        f"step_{nodes}_nodes_predicted_ms": 1000 * model_of.mean(StepShape(nodes, nodes * 450, nodes, 0, 1))
        for nodes in (1, 2, 4, 8, 12)
    }
    writer.engine.shutdown()
    return figures | machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--products", type=Path, help="CSV: company, industry, type, desc, output")
    parser.add_argument("--model", default="smollm2-135m", help="name or path of a checkpoint")
    parser.add_argument("--texts", type=int, default=30, help="texts measured of each slot")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is written in each way")
    parser.add_argument(
        "--written", type=int, default=150, help="products the model writes approved texts for"
    )
    parser.add_argument("--peers", action="store_true", help="also measure prompt lookup of other engines")
    parser.add_argument("--peer-texts", type=int, default=10, help="texts that they write of each slot")
    options = parser.parse_args()
    if options.peer_texts < 1:
        parser.error("--peer-texts: expected at least 1")
    report(run(options), options.json)


if __name__ == "__main__":
    main()
