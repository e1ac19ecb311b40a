"""The whole service with drafts and without: the same answers, and what the metrics say of it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from bidtrie.drafts.drafter import DECISIONS
from bidtrie.requests import GenerateAnswer, GenerateQuery, Product, Sampling, Slot, SlotType
from bidtrie.server.metrics import Metrics
from bidtrie.serving.runtime import Runtime
from bidtrie.settings import Settings

SLOTS = (Slot("a", SlotType.HEADLINE, 30), Slot("b", SlotType.DESCRIPTION, 60))


def settings(approved: Path | None, draft_nodes: int) -> Settings:
    return Settings(
        model="tiny-a",
        catalogs=("topics",),
        threads=1,
        creative_cache_bytes=0,
        approved_creatives=approved,
        draft_nodes=draft_nodes,
    )


def queries() -> list[GenerateQuery]:
    """The same texts are asked for again and again, so that an advertiser's recent ones come true."""
    product = Product("Lamp", company="Acme", description="A lamp for 20 hours.")
    greedy = GenerateQuery(product, SLOTS, candidates=2)
    drawn = GenerateQuery(product, SLOTS, sampling=Sampling(0.7, seed=3))
    return 3 * [greedy, drawn]


async def answers(runtime: Runtime) -> list[GenerateAnswer]:
    found = []
    for query in queries():
        async for item in runtime.generate(query):
            if isinstance(item, GenerateAnswer):
                found.append(item)
    return found


def samples(metrics: Metrics) -> Mapping[tuple[str, str], float]:
    """Values by name and decision."""
    return {
        (sample.name, sample.labels.get("decision", "")): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if "le" not in sample.labels
    }


@pytest.mark.usefixtures("home")
async def test_answers_are_the_same_and_drafts_are_counted(tmp_path: Path) -> None:
    approved = tmp_path / "approved.jsonl"
    approved.write_text('{"text": "A lamp for the evening"}\n', encoding="utf-8")
    found, counted = [], []
    for nodes in (8, 0):
        metrics = Metrics()
        runtime = await asyncio.to_thread(Runtime, settings(approved, nodes), metrics)
        try:
            found.append([answer.creatives for answer in await answers(runtime)])
        finally:
            await runtime.close()
        counted.append(samples(metrics))
    assert found[0] == found[1]
    assert all(found[0])
    drafted, plain = counted
    for each in counted:
        assert each["bidtrie_creative_steps_count", ""] == 6
    trees = drafted["bidtrie_drafts_total", ""]
    accepted = drafted["bidtrie_draft_accepted_tokens_total", ""]
    assert drafted["bidtrie_draft_nodes_total", ""] >= accepted > 0
    assert drafted["bidtrie_draft_accepted_length_count", ""] == trees > 0
    assert drafted["bidtrie_draft_accepted_length_sum", ""] == accepted
    assert drafted["bidtrie_draft_decisions_total", "drafted"] > 0
    assert drafted["bidtrie_creative_steps_sum", ""] < plain["bidtrie_creative_steps_sum", ""]
    assert plain["bidtrie_drafts_total", ""] == 0
    assert {decision for name, decision in plain if name == "bidtrie_draft_decisions_total"} == set(DECISIONS)
