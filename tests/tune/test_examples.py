"""Examples are what the service asks and scores."""

import numpy as np
import pytest
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.requests import GenerateQuery, PageContext, Product, Slot, SlotType
from bidtrie.retrieval.base import Float32, Retriever
from bidtrie.retrieval.folds import fold_of
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import fixed_tokens, render, terminator
from bidtrie.trie.trie import Trie
from bidtrie.tune.creative_examples import CreativeExamples
from bidtrie.tune.loss import trie_loss
from bidtrie.tune.packing import pack
from bidtrie.tune.pairs import Pairs
from bidtrie.tune.targeting_examples import PLAIN, Shares, TargetingExamples
from bidtrie.tune.torch_model import torch_model
from reference.transformers_logits import path_logits


class Fixed(Retriever):
    """The same scores for every text: the first and the fifth segment are near."""

    name, unrelated = "fixed", 0.0

    def __init__(self, count: int) -> None:
        self._scores = np.zeros(count, np.float32)
        self._scores[[0, 4]] = 2.0, 1.0

    def scores(self, query: str) -> Float32:
        return self._scores


@pytest.fixture(scope="module")
def trie(catalog: Catalog, tiny: Checkpoint) -> Trie:
    tokenizer = tiny.tokenizer
    return Trie.build(catalog, tokenizer.encode, terminator(tokenizer), tokenizer.content_hash)


@pytest.fixture
def maker(catalog: Catalog, tiny: Checkpoint, trie: Trie) -> TargetingExamples:
    return TargetingExamples(catalog, trie, tiny.tokenizer, 128, [Fixed(len(catalog))], 2.0)


def test_the_loss_of_a_page_is_the_served_score(
    maker: TargetingExamples, tiny: Checkpoint, trie: Trie, catalog: Catalog, pairs: Pairs
) -> None:
    """The sum over branchings is -log of the path's trie-normalised probability, by transformers, path by path."""
    import torch

    model, prefix = torch_model(tiny), fixed_tokens(tiny.tokenizer)
    for page in pairs.pages[::3]:
        example = maker.make(page, PLAIN, np.random.default_rng(0))
        packed = pack(prefix, [example])
        with torch.inference_mode():
            hidden = model.model(input_ids=torch.from_numpy(packed.tokens)[None]).last_hidden_state[0]
            found = float(trie_loss(hidden, model.lm_head.weight, packed.choices))

        prompt = [*prefix, *render(page.context, tiny.tokenizer, 128)]
        segment = [each.path for each in catalog.segments].index(page.expected[0])
        words = trie.path_tokens(segment).tolist()
        logits = path_logits(model, [*prompt, *words])
        total, node = 0.0, 0
        for i, word in enumerate(words):
            children = trie.token[np.asarray(trie.children(node))]
            scores = logits[len(prompt) - 1 + i][children].astype(np.float64)
            total -= scores[children.tolist().index(word)] - np.log(np.exp(scores).sum())
            node = trie.children(node).start + children.tolist().index(word)
        assert found == pytest.approx(total, rel=1e-4)


def test_fields_are_left_out_but_never_all(maker: TargetingExamples, tiny: Checkpoint, pairs: Pairs) -> None:
    page = pairs.pages[0]
    random = np.random.default_rng(1)
    everything = Shares(1.0, 1.0, 0.0, 0.0, 0.0)
    title_only = render(PageContext(title=page.context.title), tiny.tokenizer, 128)
    example = maker.make(page, everything, random)
    assert list(example.tokens[: example.answer + 1]) == title_only
    seen = {maker.make(page, Shares(), random).tokens for _ in range(200)}
    assert len(seen) > 3
    no_title = maker.make(page, Shares(1.0, 1.0, 1.0, 0.0, 0.0), random)
    assert list(no_title.tokens[: no_title.answer + 1]) != render(PageContext(), tiny.tokenizer, 128)


def test_a_shortlist_leaves_only_its_siblings(
    maker: TargetingExamples, trie: Trie, pairs: Pairs, catalog: Catalog
) -> None:
    page = next(page for page in pairs.pages if page.expected[0] == ("Sport", "Rowing"))
    example = maker.make(page, Shares(0.0, 0.0, 0.0, 1.0, 0.0), np.random.default_rng(0))
    # Rowing against Food, and against Football: two branchings of two.
    assert [len(choice.candidates) for choice in example.choices] == [2, 2]
    for choice in example.choices:
        assert int(choice.candidates[choice.right]) == example.words[choice.row - example.answer]
    whole = maker.make(page, PLAIN, np.random.default_rng(0))
    assert len(whole.choices[0].candidates) == 3


@pytest.mark.parametrize("shortlist", [0.0, 1.0])
def test_beside_the_retriever_a_child_gets_the_best_score_below_it(
    maker: TargetingExamples, trie: Trie, pairs: Pairs, catalog: Catalog, shortlist: float
) -> None:
    """Against a walk over all paths; the retriever's own scores, twice."""
    texts = [trie.path_tokens(i).tolist() for i in range(len(catalog))]
    scores = [4.0 if i == 0 else 2.0 if i == 4 else 0.0 for i in range(len(catalog))]
    seen = 0
    for page in pairs.pages:
        right = [each.path for each in catalog.segments].index(page.expected[0])
        listed = {right, 0, 4} if shortlist else set(range(len(catalog)))
        example = maker.make(page, Shares(0.0, 0.0, 0.0, shortlist, 1.0), np.random.default_rng(0))
        for choice in example.choices:
            begun = list(example.words[: choice.row - example.answer])
            assert choice.beside is not None
            assert choice.beside.dtype == np.float32
            for token, found in zip(choice.candidates.tolist(), choice.beside.tolist(), strict=True):
                ahead = [*begun, token]
                below = [scores[i] for i in listed if texts[i][: len(ahead)] == ahead]
                assert found == max(below)
                seen += found > 0
        assert all(
            choice.beside is None for choice in maker.make(page, PLAIN, np.random.default_rng(0)).choices
        )
    assert seen > 20


def test_each_page_meets_the_table_that_has_not_seen_it(
    catalog: Catalog, trie: Trie, tiny: Checkpoint, pairs: Pairs
) -> None:
    other = Fixed(len(catalog))
    other._scores = other._scores[::-1].copy()
    makers = [
        TargetingExamples(catalog, trie, tiny.tokenizer, 128, tables, 1.0)
        for tables in ([Fixed(len(catalog)), other], [Fixed(len(catalog))], [other])
    ]
    folds = set()
    for page in pairs.pages:
        both, first, second = (
            [
                each.beside.tolist()
                for each in maker.make(page, Shares(1, 1, 0, 0, 1), np.random.default_rng(0)).choices
            ]
            for maker in makers
        )
        fold = fold_of(page.context, 2)
        folds.add(fold)
        assert both == (second if fold else first)
    assert folds == {0, 1}


def test_a_creative_is_asked_as_the_service_asks(tiny: Checkpoint, pairs: Pairs) -> None:
    maker, template = CreativeExamples(tiny.tokenizer), PromptTemplate(tiny.tokenizer)
    for product, kind, limit in zip(
        pairs.products, (SlotType.HEADLINE, SlotType.DESCRIPTION), (30, 150), strict=False
    ):
        example = maker.make(product)
        slot = Slot("s", kind, limit)
        facts = Product(company=product.company, industry=product.industry, description=product.description)
        prompt = template.rest_tokens(GenerateQuery(product=facts, slots=(slot,)), slot)
        assert list(example.tokens[: example.answer + 1]) == prompt
        assert tiny.tokenizer.decode(example.words) == product.reference
        assert example.words[-1] in tiny.tokenizer.eos_ids
        assert example.choices == ()
