"""The requests that are sent."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bidtrie.errors import InvalidInput
from bidtrie.load.bodies import make_bodies
from bidtrie.load.options import Call, LoadOptions, Priority
from bidtrie.load.words import DISTINCT, WORDS, distinct_words
from bidtrie.requests import Ranker
from bidtrie.v1 import creative_pb2, targeting_pb2


def bodies(count: int, seed: int = 1, **options: Any) -> list[bytes]:
    checked = LoadOptions(**options)
    checked.check()
    return list(islice(make_bodies(checked, count, np.random.default_rng(seed)), count))


def test_words_are_distinct() -> None:
    assert len(set(WORDS)) == len(WORDS) == 256


@pytest.mark.parametrize("start", [0, 12_345, DISTINCT - 25_000])
def test_no_two_texts_are_alike(start: int) -> None:
    texts = {" ".join(words) for words in islice(distinct_words(start), 50_000)}
    assert len(texts) == 50_000
    # Neighbours share no pattern: each place takes nearly every word within a few thousand texts.
    for place in range(6):
        assert len({text.split()[place] for text in islice(sorted(texts), 4_000)}) > (
            1 if place == 0 else 200
        )


def test_fresh_requests_never_repeat() -> None:
    found = bodies(20_000, fresh=True)
    assert len(set(found)) == 20_000
    assert not set(found) & set(bodies(20_000, seed=2, fresh=True))
    assert found == bodies(20_000, fresh=True)


def test_more_than_was_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bodies(100)
    monkeypatch.setattr("bidtrie.load.bodies._MADE_AHEAD", 10)
    assert bodies(100) == whole


def test_repeated_requests_follow_zipf() -> None:
    counts = Counter(bodies(40_000, repeat=10))
    assert len(counts) == 10
    shares = np.array([count for _, count in counts.most_common()]) / 40_000
    expected = 1 / np.arange(1, 11)
    expected /= expected.sum()
    deviation = np.sqrt(expected * (1 - expected) / 40_000)
    assert (abs(shares - expected) < 5 * deviation).all()
    # Negative control: the test tells Zipf's law from equal shares.
    assert not (abs(0.1 - expected) < 5 * deviation).all()


def test_target_settings() -> None:
    plain = targeting_pb2.TargetRequest.FromString(bodies(1)[0])
    assert len(plain.context.title.split()) == 6
    # What is not asked for is left to the server.
    assert {field.name for field, _ in plain.ListFields()} == {"context"}
    options = {"catalog": "iab-content", "top_k": 5, "ranker": Ranker.LLM, "tmax_ms": 80}
    full = targeting_pb2.TargetRequest.FromString(
        bodies(1, **options, allow_partial=False, allow_fallback=False)[0]
    )
    assert full.context == plain.context
    assert (full.catalog, full.top_k, full.tmax_ms) == ("iab-content", 5, 80)
    assert full.ranker == targeting_pb2.RANKER_LLM
    assert full.HasField("allow_partial")
    assert full.HasField("allow_fallback")
    assert not full.allow_partial
    assert not full.allow_fallback


def test_products() -> None:
    requests = [
        creative_pb2.GenerateRequest.FromString(body)
        for body in bodies(100, call=Call.GENERATE, tmax_ms=900, allow_partial=False)
    ]
    assert len({request.product.SerializeToString() for request in requests}) == 100
    first = requests[0]
    assert first.product.name
    assert first.product.description
    assert first.tmax_ms == 900
    assert first.HasField("allow_partial")
    assert not first.HasField("allow_fallback")


def test_pages_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "pages.tsv"
    file.write_text(
        "Sports\tMarathon\tA long run\trunning, shoes\tRunner\nTravel\tIslands\n", encoding="utf-8"
    )
    found = [targeting_pb2.TargetRequest.FromString(body).context for body in bodies(5, pages=file)]
    assert [context.title for context in found] == ["Marathon", "Islands", "Marathon", "Islands", "Marathon"]
    assert found[0].description == "A long run"
    assert list(found[0].keywords) == ["running", "shoes"]
    assert found[0].app_name == "Runner"
    assert len(set(bodies(50, pages=file, repeat=2))) == 2
    with pytest.raises(InvalidInput, match="cannot be read"):
        bodies(1, pages=tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("priority", "expected"),
    [
        (None, creative_pb2.PRIORITY_UNSPECIFIED),
        (Priority.BID, creative_pb2.PRIORITY_BID),
        (Priority.PREGENERATION, creative_pb2.PRIORITY_PREGENERATION),
    ],
)
def test_priority_of_texts(priority: Priority | None, expected: creative_pb2.Priority) -> None:
    body = bodies(1, call=Call.GENERATE, priority=priority)[0]
    assert creative_pb2.GenerateRequest.FromString(body).priority == expected
