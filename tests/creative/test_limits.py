"""Every finished text is legal, whatever the model says and however nasty its vocabulary is."""

import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from bidtrie.creative import candidate as candidate_module
from bidtrie.creative.constraint import Constraint, TextState
from bidtrie.creative.job import Creatives, facts, generate
from bidtrie.creative.numbers import figures
from bidtrie.requests import Product, Sampling
from creative.fakes import EOS, NASTY, FakeEngine, FakeTokenizer, parts, query, random_logits, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOKENIZER = FakeTokenizer(NASTY)
VOCABULARY, PROMPT = parts(TOKENIZER)
PRODUCT = Product("漢字 Lamp", description="20% off, $4.99, or 1,000 for 20", offers=("24 hours",))


def faults(text: str, limit: int, allowed_figures: set[str]) -> list[str]:
    """What is wrong with a text, apart from where its last word ends. Written without the code under test."""
    found = []
    if not 0 < len(text) <= limit:
        found.append(f"{len(text)} characters")
    if text != text.strip() or "  " in text:
        found.append("spaces")
    categories = {unicodedata.category(c) for c in text if c not in "\u200c\u200d"}
    if categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} or any(c.isspace() and c != " " for c in text):
        found.append("controls")
    if set(text) & set('"[]{}<>*`\ufffd'):
        found.append("markup")
    if not set(figures(text)) <= allowed_figures:
        found.append("figures")
    if text and (text[-1] in "&-+(,:;/ " or text[0] in "&-+(,:;/!?.)"):
        found.append("ends")
    return found


def write(
    seed: int, limit: int, sampling: Sampling, candidates: int, scale: float
) -> tuple[Creatives, FakeEngine]:
    engine = FakeEngine(VOCABULARY.size, random_logits(VOCABULARY.size, seed, scale))
    asked = query((limit,), product=PRODUCT, sampling=sampling, candidates=candidates)
    result = run(engine, generate(engine, VOCABULARY, PROMPT, asked))
    assert engine.is_clean
    return result, engine


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    limit=st.integers(5, 120),
    temperature=st.sampled_from([0.0, 0.7, 2.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.9, 0.1]),
    candidates=st.integers(1, 4),
    scale=st.sampled_from([0.0, 1.0, 6.0]),
)
def test_all_texts_are_legal(
    seed: int, limit: int, temperature: float, top_k: int, top_p: float, candidates: int, scale: float
) -> None:
    sampling = Sampling(temperature, top_p, top_k, seed)
    result, _ = write(seed, limit, sampling, candidates, scale)
    asked = query(product=PRODUCT)
    wanted = {figure for fact in facts(asked) for figure in figures(fact)}
    for text in result.texts:
        assert not faults(text.text, limit, wanted), (text, faults(text.text, limit, wanted))
    assert len({text.text for text in result.texts}) == len(result.texts) <= candidates
    assert [text.rank for text in result.texts] == list(range(len(result.texts)))
    scores = [text.score for text in result.texts]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(25))
def test_greedy_texts_end_where_the_model_stops_or_begins_a_word(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the text the model's first choice among legal tokens, whatever their length, ends the word."""
    monkeypatch.setattr(
        candidate_module.Sampler, "__init__", without_penalty(candidate_module.Sampler.__init__)
    )
    result, engine = write(seed, 8 + 4 * seed, Sampling(), 1, 4.0)
    rule = Constraint(VOCABULARY, facts(query(product=PRODUCT)))
    assert result.texts, "a vocabulary as rich as this one has words to fit"
    ends = []
    longest = max(engine.asked, key=len)
    start = result.prompt_tokens
    for path in engine.asked:
        if path[:start] != longest[:start]:
            continue
        state = TextState()
        for token in path[start:]:
            state = rule.advance(state, token)
        if state.data == result.texts[0].text.encode() and not state.pending:
            row = engine._function(path).astype(np.float32)
            first = int(np.where(rule.allowed(state), row, -np.inf).argmax())
            ends.append(bool(VOCABULARY.stop[first]) or rule.ends_word(state, first))
    assert any(ends)


def without_penalty(init: Callable[..., None]) -> Callable[..., None]:
    return lambda self, *arguments: init(self, *arguments, penalty=1.0)


LEXICON = [
    "apple",
    "application",
    "applicable",
    "pear",
    "pearls",
    "in",
    "international",
    "a",
    "automobile",
    "walk",
]
WORDS = FakeTokenizer(
    [b" app", b"le", b"lica", b"tion", b"ble", b" pear", b"ls", b" in", b"ter", b"national", b" a", b"utomobile",
     b" wal", b"k", b"app", b"pear", b"in", b"a", b"wal", b" "]
)  # fmt: skip
WORD_VOCABULARY, WORD_PROMPT = parts(WORDS)


def spelling_model(seed: int) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Random logits, but words are always spelled right: whatever misspells has a logit of -30."""
    free = random_logits(WORDS.vocab_size, seed, 2.0)
    prompt = len(WORD_PROMPT.fixed_tokens) + len(WORD_PROMPT.rest_tokens(query(), query().slots[0]))

    def function(tokens: tuple[int, ...]) -> np.ndarray:
        logits = free(tokens)
        text = WORDS.decode(tokens[prompt:]).lstrip(" ")
        for token in range(WORDS.vocab_size):
            if token == EOS:
                good = text.split(" ")[-1] in LEXICON
            else:
                *whole, last = (text + WORDS.decode([token])).lstrip(" ").split(" ")
                good = all(word in LEXICON for word in whole) and any(w.startswith(last) for w in LEXICON)
            if not good:
                logits[token] = -30
        logits[EOS] -= 2
        return logits

    return function


def misspelled(text: str) -> bool:
    return any(word not in LEXICON for word in text.split(" "))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    limit=st.integers(5, 60),
    temperature=st.sampled_from([0.0, 1.0]),
    candidates=st.integers(1, 3),
)
def test_words_are_never_cut(seed: int, limit: int, temperature: float, candidates: int) -> None:
    engine = FakeEngine(WORDS.vocab_size, spelling_model(seed))
    asked = query((limit,), sampling=Sampling(temperature, seed=seed), candidates=candidates)
    result = run(engine, generate(engine, WORD_VOCABULARY, WORD_PROMPT, asked))
    assert result.texts
    for text in result.texts:
        assert not misspelled(text.text), text
        assert len(text.text) <= limit


def test_a_decoder_that_truncates_fails_the_same_check() -> None:
    cut = 0
    for seed in range(20):
        engine = FakeEngine(WORDS.vocab_size, spelling_model(seed))
        result = run(engine, generate(engine, WORD_VOCABULARY, WORD_PROMPT, query((60,))))
        assert not misspelled(result.texts[0].text)
        cut += misspelled(result.texts[0].text[:10].strip())
    assert cut > 5


def test_a_decoder_that_stops_when_nothing_else_fits_fails_the_same_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Masking alone is not enough: with every continuation masked, a stop inside a word is all that is left."""
    monkeypatch.setattr(Constraint, "ends_word", lambda self, state, token: self.can_end(state))
    cut = 0
    for seed in range(150):
        engine = FakeEngine(WORDS.vocab_size, spelling_model(seed))
        result = run(engine, generate(engine, WORD_VOCABULARY, WORD_PROMPT, query((8,))))
        cut += any(misspelled(text.text) for text in result.texts)
    assert cut > 3


def test_no_room_for_any_word_gives_no_text() -> None:
    tokenizer = FakeTokenizer([b"internationalization", b" tele", b"communication"])
    vocabulary, prompt = parts(tokenizer)
    logits = np.array([-5.0, 3.0, 2.0, 1.0])
    after_tele = np.array([-20.0, -20.0, -20.0, 5.0])
    tele = tokenizer.id_of(b" tele")
    engine = FakeEngine(4, lambda tokens: after_tele if tokens[-1] == tele else logits)
    result = run(engine, generate(engine, vocabulary, prompt, query((8,))))
    assert result.texts == ()
    assert engine.is_clean


def test_the_end_is_where_stopping_is_likeliest() -> None:
    """ "a b c d": the model would stop after "b" rather than after "c", and "dddd" has no room."""
    tokenizer = FakeTokenizer([b"a", b" b", b" c", b" dddd"])
    vocabulary, prompt = parts(tokenizer)
    stop = {b"a": -3.0, b" b": 2.0, b" c": -3.0}
    following = {b"a": b" b", b" b": b" c", b" c": b" dddd"}

    def function(tokens: tuple[int, ...]) -> np.ndarray:
        logits = np.full(5, -9.0)
        last = tokenizer.token_bytes(tokens[-1])
        logits[tokenizer.id_of(following.get(last, b"a"))] = 4.0
        logits[EOS] = stop.get(last, -9.0)
        return logits

    engine = FakeEngine(5, lambda tokens: function(tokens if len(tokens) > start else (EOS,)))
    start = len(prompt.fixed_tokens) + len(prompt.rest_tokens(query(), query().slots[0]))
    assert run(engine, generate(engine, vocabulary, prompt, query((7,)))).texts[0].text == "a b"
