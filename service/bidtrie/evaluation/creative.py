"""Texts written by the service against references: overlap, diversity, limits kept, speed (extra `bench`)."""

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bidtrie.client import Client
from bidtrie.errors import BidtrieError, InvalidInput, Violation
from bidtrie.trie.store import write_atomically
from bidtrie.v1 import creative_pb2

#: Hard character limits a type: a short headline and a long one as the ad platforms have them, and a description.
LIMITS = {"headline": 30, "headline_long": 90, "description": 150}
_COLUMNS = ("company", "industry", "type", "desc", "output")
_TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True)
class LabelledProduct:
    """A product with a text that a person wrote for it; `<company>` is replaced by the name."""

    company: str
    industry: str
    type: str
    description: str
    reference: str


@dataclass(frozen=True, slots=True)
class Written:
    """What the service wrote. Steps are engine steps, time is at the client."""

    text: str
    tokens: int
    steps: int
    latency_ms: float


def read_products(file: Path) -> list[LabelledProduct]:
    """Products of a CSV with the columns company, industry, type, desc, output. Raises InvalidInput."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput.of(str(file), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput.of(str(file), f"is not UTF-8 text: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise InvalidInput.of(
            str(file), f"expected the columns {', '.join(_COLUMNS)}; missing: {', '.join(missing)}"
        )
    products = []
    problems: list[Violation] = []
    for row in reader:
        where = f"{file.name}:{reader.line_num}"
        if empty := [column for column in _COLUMNS if not row[column]]:
            problems.append(Violation(where, f"{', '.join(empty)}: expected text, found nothing"))
            continue
        if row["type"] not in LIMITS:
            problems.append(Violation(where, f"type is {row['type']!r}, expected one of {', '.join(LIMITS)}"))
            continue
        name = row["company"]
        described = row["desc"].replace("<company>", name)
        reference = row["output"].replace("<company>", name)
        products.append(LabelledProduct(name, row["industry"], row["type"], described, reference))
    if problems:
        raise InvalidInput.of_lines(str(file), problems)
    if not products:
        raise InvalidInput.of(str(file), "holds no product")
    return products


def write(client: Client, products: Sequence[LabelledProduct]) -> Iterator[Written]:
    """Ask for one greedy text a product, one at a time."""
    for product in products:
        begin = time.perf_counter()
        response = client.generate(
            product=creative_pb2.Product(
                company=product.company, industry=product.industry, description=product.description
            ),
            slots=[
                creative_pb2.Slot(name="text", type=_slot_type(product), max_characters=LIMITS[product.type])
            ],
            timeout_ms=_TIMEOUT_MS,
        )
        best = response.creatives[0] if response.creatives else creative_pb2.CreativeText()
        latency_ms = (time.perf_counter() - begin) * 1000
        yield Written(best.text, best.tokens, response.timings.steps, latency_ms)


def _slot_type(product: LabelledProduct) -> creative_pb2.SlotType:
    description = product.type == "description"
    return creative_pb2.SLOT_TYPE_DESCRIPTION if description else creative_pb2.SLOT_TYPE_HEADLINE


def save_texts(file: Path, products: Sequence[LabelledProduct], written: Sequence[Written]) -> None:
    """A JSON line a product: what `read_products` read, and the "text" that was written for it."""
    lines = [
        json.dumps(asdict(product) | {"text": answer.text}, ensure_ascii=False)
        for product, answer in zip(products, written, strict=True)
    ]
    write_atomically(file, ("\n".join(lines) + "\n").encode())


def check_metrics() -> None:
    """Raise BidtrieError where `summarize` would miss a package."""
    if not all(find_spec(name) for name in ("nltk", "rouge_score", "sacrebleu")):
        raise BidtrieError('eval creative needs: pip install "bidtrie[bench]"')


def summarize(products: Sequence[LabelledProduct], written: Sequence[Written]) -> dict[str, float | int]:
    """BLEU (0 to 100), METEOR and ROUGE-L (0 to 1) against the references, and what the texts are like.

    METEOR matches words and stems only: its synonyms need WordNet, which would have to be downloaded.
    """
    from nltk.translate.meteor_score import single_meteor_score
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import corpus_bleu

    texts = [each.text for each in written]
    references = [product.reference for product in products]
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = list(zip(references, texts, strict=True))
    words = [text.lower().split() for text in texts]
    limits = [LIMITS[product.type] for product in products]
    return {
        "bleu": corpus_bleu(texts, [references], lowercase=True).score,
        "meteor": float(
            np.mean(
                [
                    single_meteor_score(r.lower().split(), t.lower().split(), wordnet=_NoSynonyms())
                    for r, t in pairs
                ]
            )
        ),
        "rouge_l": float(np.mean([rouge.score(r, t)["rougeL"].fmeasure for r, t in pairs])),
        "distinct_1": distinct(words, 1),
        "distinct_2": distinct(words, 2),
        "length_violations": sum(len(text) > limit for text, limit in zip(texts, limits, strict=True)),
        "empty": sum(not text for text in texts),
        "characters_mean": float(np.mean([len(text) for text in texts])),
        "tokens_per_step": sum(each.tokens for each in written) / max(1, sum(each.steps for each in written)),
        "latency_ms_p50": float(np.percentile([each.latency_ms for each in written], 50)),
        "latency_ms_p95": float(np.percentile([each.latency_ms for each in written], 95)),
        "n": len(texts),
    }


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016, arXiv 1510.03055); 0 where there is none."""
    grams = [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


class _NoSynonyms:
    """Stands for WordNet where none is installed: no word has a synonym."""

    def synsets(self, word: str) -> list[object]:
        return []
