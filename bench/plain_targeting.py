"""Zero-shot targeting beside a plain implementation of the same score in transformers.

The plain side knows nothing of engines, tries or beams: it lists every token prefix of every path, runs transformers
once a page over all of them (each prefix sees the prompt and itself), renormalises over the tokens that follow,
subtracts the mean under neutral pages, and sorts all paths. The service is asked twice, with float32 weights and as it
runs by default.

python -m bench.plain_targeting [--json FILE] [--pages FILE.tsv] [--catalog NAME] [--titles 20]
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bidtrie.client import Client
from bidtrie.evaluation.pages import Page, read_pages
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.models.load import load_checkpoint
from bidtrie.models.serving_defaults import serving_defaults
from bidtrie.requests import PageContext
from bidtrie.serving.own_server import own_server
from bidtrie.serving.targeting import UNTUNED_PRIOR_WEIGHT
from bidtrie.settings import Settings
from bidtrie.trie.catalog import Catalog
from bidtrie.trie.prompt import fixed_tokens, neutral_contexts, render
from bidtrie.trie.store import load_catalog
from bidtrie.v1 import targeting_pb2

from bench.measure import STAND_IN, machine, report, targeting_options
from bench.transformers_peer import transformers_model

_TIMEOUT_MS = 60_000

Prefix = tuple[int, ...]
Rows = dict[Prefix, dict[int, float]]


class PlainRanker:
    """All paths of a catalog, scored by brute force."""

    def __init__(self, model: Any, tokenizer: Any, catalog: Catalog, prior_weight: float) -> None:
        self._model, self._tokenizer, self._weight = model, tokenizer, prior_weight
        end = tokenizer.encode("\n")[-1]
        self.paths = [(*tokenizer.encode(" " + catalog.path_text(i)), end) for i in range(len(catalog))]
        self._following: dict[Prefix, set[int]] = defaultdict(set)
        for path in self.paths:
            for depth, token in enumerate(path):
                self._following[path[:depth]].add(token)
        self._prefixes = sorted(self._following, key=len)
        neutral = [self._rows(context) for context in neutral_contexts()]
        self._neutral: Rows = {
            prefix: {token: float(np.mean([rows[prefix][token] for rows in neutral])) for token in tokens}
            for prefix, tokens in self._following.items()
        }

    @torch.inference_mode()
    def _rows(self, context: PageContext) -> Rows:
        """Log-probability, over the whole vocabulary, of every token that may follow each prefix."""
        prompt = [
            *fixed_tokens(self._tokenizer),
            *render(context, self._tokenizer, Settings().max_context_tokens),
        ]
        base = len(prompt)
        index = {prefix: i for i, prefix in enumerate(self._prefixes)}
        count = len(self._prefixes) - 1
        visible = np.tri(base + count, dtype=bool)
        visible[base:, base:] = False
        for prefix, i in index.items():
            for depth in range(1, len(prefix) + 1):
                visible[base + i - 1, base + index[prefix[:depth]] - 1] = True
        mask = torch.zeros(visible.shape).masked_fill_(
            ~torch.from_numpy(visible), torch.finfo(torch.float32).min
        )
        tokens = [*prompt, *(prefix[-1] for prefix in self._prefixes[1:])]
        positions = [*range(base), *(base + len(prefix) - 1 for prefix in self._prefixes[1:])]
        hidden = self._model.model(
            torch.tensor([tokens]),
            attention_mask=mask[None, None],
            position_ids=torch.tensor([positions]),
            use_cache=False,
        ).last_hidden_state[0, base - 1 :]
        rows: Rows = {}
        for first in range(0, len(self._prefixes), 256):
            part = self._prefixes[first : first + 256]
            log_probabilities = torch.log_softmax(
                self._model.lm_head(hidden[first : first + 256]).double(), -1
            )
            for prefix, row in zip(part, log_probabilities, strict=True):
                rows[prefix] = {token: float(row[token]) for token in self._following[prefix]}
        return rows

    def scores(self, context: PageContext) -> np.ndarray:
        """float64 [paths]: trie-normalised, prior-corrected."""
        rows = self._rows(context)

        def step(table: Rows, prefix: Prefix, token: int) -> float:
            return table[prefix][token] - float(np.logaddexp.reduce(list(table[prefix].values())))

        return np.array(
            [
                sum(
                    step(rows, path[:depth], token) - self._weight * step(self._neutral, path[:depth], token)
                    for depth, token in enumerate(path)
                )
                for path in self.paths
            ]
        )


def _ask(pages: Sequence[Page], catalog: Catalog, model: str, weights: str) -> list[list[tuple[int, float]]]:
    """What the service ranks with the language model alone: (segment, score), best first."""
    with (
        own_server(model, [catalog.name], ["--weights", weights]) as ports,
        Client(f"127.0.0.1:{ports.grpc}") as client,
    ):
        answers = []
        for page in pages:
            answer = client.target(
                title=page.context.title,
                description=page.context.description,
                keywords=page.context.keywords,
                app_name=page.context.app_name,
                catalog=catalog.name,
                ranker=targeting_pb2.RANKER_LLM,
                top_k=50,
                timeout_ms=_TIMEOUT_MS,
            )
            answers.append([(catalog.index(segment.id), segment.score) for segment in answer.segments])
    return answers


def _prior_weight(checkpoint: Checkpoint) -> float:
    """What the service takes: the model's recommendation, else the weight for models that were not tuned."""
    recommended = serving_defaults(checkpoint).prior_weight
    return UNTUNED_PRIOR_WEIGHT if recommended is None else recommended


def run(pages_file: Path, catalog_name: str, model_name: str, count: int) -> dict[str, Any]:
    """All figures of one run."""
    catalog = load_catalog(catalog_name)
    found = read_pages(pages_file, catalog)
    pages = found[:: max(1, len(found) // count)][:count]
    checkpoint = load_checkpoint(model_name)
    torch.set_num_threads(machine()["cores"])
    plain = PlainRanker(
        transformers_model(checkpoint), checkpoint.tokenizer, catalog, _prior_weight(checkpoint)
    )
    truth = [plain.scores(page.context) for page in pages]
    best = [int(scores.argmax()) for scores in truth]
    tier1 = [segment.path[0] for segment in catalog.segments]
    right = [{path[0] for path in page.expected} for page in pages]
    figures: dict[str, Any] = {
        "benchmark": "plain_targeting",
        "pages": len(pages),
        "pages_from": "stand-in of the project" if pages_file == STAND_IN else pages_file.name,
        "plain_tier1_top1": float(np.mean([tier1[i] in each for i, each in zip(best, right, strict=True)])),
    }
    for name, weights in (("float32", "float32"), ("default", "auto")):
        answers = _ask(pages, catalog, model_name, weights)
        gaps = [
            abs(score - scores[segment])
            for answer, scores in zip(answers, truth, strict=True)
            for segment, score in answer
        ]
        firsts = [answer[0][0] for answer in answers]
        lost = [scores.max() - scores[first] for first, scores in zip(firsts, truth, strict=True)]
        figures |= {
            f"{name}_same_top1": float(np.mean([a == b for a, b in zip(firsts, best, strict=True)])),
            f"{name}_tier1_top1": float(
                np.mean([tier1[i] in each for i, each in zip(firsts, right, strict=True)])
            ),
            f"{name}_score_difference_max_nats": float(max(gaps)),
            f"{name}_score_difference_median_nats": float(np.median(gaps)),
            f"{name}_top1_below_plain_max_nats": float(max(lost)),
        }
    return figures | machine()


def main() -> None:
    options = targeting_options(__doc__, titles=20)
    report(run(options.pages, options.catalog, options.model, options.titles), options.json)


if __name__ == "__main__":
    main()
