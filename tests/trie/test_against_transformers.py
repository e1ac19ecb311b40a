"""Targeting with SmolLM2 against transformers: every path scored one by one, and constrained beam search."""

import itertools

import numpy as np
import pytest
import torch
from bidtrie.engine.native import NativeEngine
from bidtrie.models.load import load_checkpoint
from bidtrie.requests import Normalization, PageContext
from bidtrie.scheduling.job import run_alone
from bidtrie.serving.loaded_catalog import terminator
from bidtrie.trie.catalog import Catalog, Segment
from bidtrie.trie.prompt import fixed_tokens, render
from bidtrie.trie.search import search
from bidtrie.trie.search_options import SearchOptions
from bidtrie.trie.trie import Trie
from reference.gguf_llama import gguf_model
from reference.tries import brute_force

from bench.transformers_peer import constrained_beam

_TOPICS = (
    *("Cooking", "Cars", "Personal Finance", "Football", "Gardening"),
    *("Travel", "Computing", "Health", "Health Care"),
)
_KINDS = ("News", "News and Reviews", "Buying Guides", "Buying", "Beginners", "Expert Advice")
_PLACES = ("Europe", "Europe and Asia", "At Home", "Online", "Online Shops")
_TITLES = (
    "Sourdough for beginners: a starter that never dies",
    "Long-term test: 40,000 km in an electric SUV",
    "Fixed or variable? What the rate decision means for your mortgage",
    "Transfer window: who is leaving before Friday?",
    "When to prune roses, and when to leave them alone",
    "Ten quiet islands you can reach by night ferry",
    "The best laptops under 800 euros",
    "Sleeping badly? Seven habits that doctors recommend",
    "Winter tyres: is the law changing?",
    "How I saved for a house in five years",
    "Penalty drama in Lisbon",
    "Tomatoes on the balcony",
    "Lisbon in 48 hours",
    "Backups that survive ransomware",
    "Is breakfast really the most important meal?",
    "Cast iron or stainless steel?",
    "Used cars: what to look for under the bonnet",
    "Index funds explained to my grandmother",
    "Women's league opens before record crowd",
    "A greenhouse from old windows",
)


@pytest.fixture(scope="module")
def checkpoint(smollm2_path):
    return load_checkpoint(smollm2_path)


@pytest.fixture(scope="module")
def engine(checkpoint):
    engine = NativeEngine(checkpoint, weights="float32", threads=2)
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def model(smollm2_path):
    return gguf_model(smollm2_path)


@pytest.fixture(scope="module")
def catalog():
    """300 paths; tiers are segments too, and names that continue other names make token prefixes of whole paths."""
    paths = [(topic,) for topic in _TOPICS]
    paths += itertools.product(_TOPICS, _KINDS)
    paths += itertools.product(_TOPICS, _KINDS, _PLACES)
    return Catalog("made", [Segment(str(i), path[-1], path) for i, path in enumerate(paths[:300])])


@pytest.fixture(scope="module")
def trie(catalog, checkpoint):
    tokenizer = checkpoint.tokenizer
    return Trie.build(catalog, tokenizer.encode, terminator(tokenizer), tokenizer.content_hash)


def prompt_of(title, tokenizer):
    return [*fixed_tokens(tokenizer), *render(PageContext(title=title), tokenizer, 128)]


def ask(engine, trie, prompt, **options):
    root = engine.open()
    result = run_alone(engine, search(engine, trie, root, prompt, SearchOptions(**options)))
    engine.close(root)
    return result.found


@torch.inference_mode()
def rows_by_prefix(model, prompt, paths):
    """Full-vocabulary log-softmax after every prefix of every path: one padded forward over whole paths a batch."""
    rows = {}
    order = sorted(paths, key=len)
    for first in range(0, len(order), 50):
        batch = order[first : first + 50]
        longest = len(batch[-1])
        tokens = torch.tensor([[*prompt, *path, *[0] * (longest - len(path))] for path in batch])
        # Causal attention: what is padded behind a path changes nothing in it.
        logits = model(tokens, use_cache=False).logits[:, len(prompt) - 1 :].double()
        values = torch.log_softmax(logits, -1).numpy()
        for row, path in zip(values, batch, strict=True):
            for depth in range(len(path)):
                rows[path[:depth]] = row[depth]
    return rows


def test_every_path_equals_its_score_one_by_one(engine, checkpoint, model, catalog, trie):
    paths = [tuple(trie.path_tokens(i).tolist()) for i in range(len(catalog))]
    prefixes = {path[:-1] for path in paths}
    continued = [path for path in prefixes if any(other[: len(path)] == path for other in prefixes - {path})]
    assert len(paths) == 300
    assert len(continued) > 60, "the catalog must hold paths that are token prefixes of others"
    prompt = prompt_of(_TITLES[0], checkpoint.tokenizer)
    rows = rows_by_prefix(model, prompt, paths)
    expected = brute_force(paths, range(len(paths)), rows.__getitem__, renormalise=True)
    found = ask(engine, trie, prompt, top_k=300, beam_width=300)
    assert len(found) == 300
    assert max(abs(each.score - expected[each.segment]) for each in found) <= 1e-3
    order = [each.segment for each in found]
    ranked = sorted(expected, key=lambda segment: -expected[segment])
    # Nothing may swap unless brute force itself cannot tell the two apart.
    assert all(a == b or abs(expected[a] - expected[b]) < 1e-4 for a, b in zip(order, ranked, strict=True))
    # The control: scores over the whole vocabulary are other scores.
    other = brute_force(paths, range(len(paths)), rows.__getitem__, renormalise=False)
    assert min(abs(other[i] - expected[i]) for i in range(300)) > 0.1


def test_vocabulary_beams_are_those_of_transformers(engine, checkpoint, model, trie):
    options = {"normalization": Normalization.VOCABULARY, "prior_weight": 0.0}
    differing = 0
    for title in _TITLES:
        prompt = prompt_of(title, checkpoint.tokenizer)
        with torch.inference_mode():
            theirs = constrained_beam(model, trie, prompt, beams=4, top=4)
        ours = ask(engine, trie, prompt, top_k=4, beam_width=4, **options)
        assert [each.segment for each in ours] == [each.segment for each in theirs], title
        assert [each.score for each in ours] == pytest.approx([each.score for each in theirs], abs=1e-3), (
            title
        )
        narrow = ask(engine, trie, prompt, top_k=4, beam_width=1, **options)
        differing += [each.segment for each in narrow] != [each.segment for each in ours]
    # The control: the width matters on these titles, so agreement says something.
    assert differing > 10


def test_four_bit_weights_rank_nearly_as_the_dequantized_model(checkpoint, engine, trie):
    quantized = NativeEngine(checkpoint, threads=2)
    gaps = []
    for title in _TITLES[:8]:
        prompt = prompt_of(title, checkpoint.tokenizer)
        exact = {each.segment: each.score for each in ask(engine, trie, prompt, top_k=300, beam_width=300)}
        fast = ask(quantized, trie, prompt, top_k=300, beam_width=300)
        gaps.append(np.median([abs(each.score - exact[each.segment]) for each in fast]))
        # What the 8-bit activations change is small beside what tells the segments apart.
        assert exact[fast[0].segment] > max(exact.values()) - 0.5, title
    quantized.shutdown()
    assert np.median(gaps) < 0.25 * np.std(list(exact.values()))
