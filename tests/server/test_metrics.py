"""Metrics, as a scraper sees them."""

import asyncio

from bidtrie.requests import Source
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.trie.found import SearchWork
from bidtrie.v1.creative_pb2 import GenerateRequest
from bidtrie.v1.targeting_pb2 import TargetRequest
from prometheus_client.parser import text_string_to_metric_families
from server.conftest import Running
from server.statuses import failure
from server.test_deadlines import until
from server.test_http import get

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(running: Running) -> Samples:
    _, _, body = await get(running.ports.http, "/metrics")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


TARGET = {"grpc_type": "unary", "grpc_service": "bidtrie.v1.Targeting", "grpc_method": "Target"}
STREAM = {
    "grpc_type": "server_stream",
    "grpc_service": "bidtrie.v1.Creative",
    "grpc_method": "GenerateStream",
}


async def test_methods_have_series_before_their_first_call(running: Running) -> None:
    samples = await scrape(running)
    assert value(samples, "grpc_server_started_total", **TARGET) == 0
    assert value(samples, "grpc_server_handled_total", grpc_code="OK", **TARGET) == 0
    assert value(samples, "grpc_server_handling_seconds_count", **STREAM) == 0


async def test_calls_are_counted_by_code(running: Running) -> None:
    target = running.targeting.Target
    await target(TargetRequest(context={"title": "t"}))
    await failure(target(TargetRequest()))
    await failure(running.channel.unary_unary("/bidtrie.v1.Targeting/Target")(b"\xff"))
    await failure(target(TargetRequest(context={"title": "raise=overloaded"})))
    await failure(target(TargetRequest(context={"title": "raise=defect"})))
    await failure(target(TargetRequest(context={"title": "sleep=3600"}, tmax_ms=20)))
    await failure(target(TargetRequest(context={"title": "sleep=3600"}), timeout=0.05))
    hung_up = target(TargetRequest(context={"title": "sleep=3600"}))
    await until(lambda: running.backend.running == 1 and running.backend.cancelled == 2)
    assert value(await scrape(running), "bidtrie_requests_in_flight") == 1
    hung_up.cancel()
    await until(lambda: running.server.in_flight == 0)
    await asyncio.sleep(0)
    async for _ in running.creative.GenerateStream(GenerateRequest(product={"name": "p"})):
        pass
    await failure(running.channel.unary_unary("/nobody.Knows/This")(b""))

    samples = await scrape(running)
    expected = {
        "OK": 1, "InvalidArgument": 2, "ResourceExhausted": 1, "Internal": 1, "DeadlineExceeded": 2, "Canceled": 1,
    }  # fmt: skip
    for code, count in expected.items():
        assert value(samples, "grpc_server_handled_total", grpc_code=code, **TARGET) == count, code
    assert value(samples, "grpc_server_started_total", **TARGET) == 8
    assert value(samples, "grpc_server_handling_seconds_count", **TARGET) == 8
    assert value(samples, "grpc_server_handled_total", grpc_code="OK", **STREAM) == 1
    assert value(samples, "bidtrie_requests_in_flight") == 0
    assert not any("nobody" in label for _, labels in samples for _, label in labels)


async def test_buckets_are_fine_where_bids_are_decided(running: Running) -> None:
    samples = await scrape(running)
    bounds = sorted(
        float(dict(labels)["le"])
        for name, labels in samples
        if name == "grpc_server_handling_seconds_bucket" and TARGET.items() <= dict(labels).items()
    )
    assert bounds[0] == 0.00025
    assert sum(bound <= 1 for bound in bounds) >= 15
    assert bounds[-2] > 1


async def test_the_schedulers_metrics(running: Running) -> None:
    targeting, creative = ServiceClass.TARGETING, ServiceClass.CREATIVE
    running.metrics.step(0, 0.25, {targeting: 20, creative: 10}, 3)
    running.metrics.step(1, 0.5, {targeting: 2}, 1)
    running.metrics.arrived(targeting, 0.12)
    running.metrics.arrived(targeting, float("inf"))
    running.metrics.started(targeting, 0.001, -0.002)
    running.metrics.planned("narrow")
    running.metrics.shed(creative, "deadline")
    running.metrics.predicted(0, 1.05)
    running.metrics.cost_model_saved(False)
    running.metrics.searched(5, SearchWork(scored=24, unused=3, pruned=11))
    running.metrics.approved_read(12)
    running.metrics.approved_read(None)
    running.metrics.queue(7)
    samples = await scrape(running)
    assert value(samples, "bidtrie_engine_step_seconds_sum") == 0.75
    assert value(samples, "bidtrie_engine_step_nodes_sum") == 32
    assert value(samples, "bidtrie_engine_step_requests_sum") == 4
    assert value(samples, "bidtrie_engine_step_nodes_bucket", le="32.0") == 2
    assert value(samples, "bidtrie_queue_seconds_count") == 1
    assert value(samples, "bidtrie_queue_requests") == 7
    assert value(samples, "bidtrie_target_steps_sum") == 5
    assert value(samples, "bidtrie_approved_creatives") == 12
    for result in ("done", "failed"):
        assert value(samples, "bidtrie_approved_creatives_reads_total", result=result) == 1
    branches = {
        each: value(samples, "bidtrie_search_branches_total", outcome=each)
        for each in ("scored", "unused", "pruned")
    }
    assert branches == {"scored": 24, "unused": 3, "pruned": 11}
    assert value(samples, "bidtrie_engine_nodes_total", level="0", **{"class": "creative"}) == 10
    assert value(samples, "bidtrie_engine_nodes_total", level="1", **{"class": "targeting"}) == 2
    assert value(samples, "bidtrie_slack_at_arrival_seconds_count", **{"class": "targeting"}) == 1
    assert value(samples, "bidtrie_slack_at_dispatch_seconds_bucket", le="0.0", **{"class": "targeting"}) == 1
    assert value(samples, "bidtrie_plans_total", plan="narrow") == 1
    assert value(samples, "bidtrie_shed_total", reason="deadline", **{"class": "creative"}) == 1
    assert value(samples, "bidtrie_step_prediction_ratio_count", level="0") == 1
    assert value(samples, "bidtrie_cost_model_saves_total", result="failed") == 1


async def test_answers_are_counted_by_what_they_are_worth(running: Running) -> None:
    running.metrics.answered("Target", Source.RETRIEVER, "fallback", late=True)
    running.metrics.answered("Target", Source.BOTH, "cached", late=False)
    samples = await scrape(running)
    labels = {"method": "Target", "source": "retriever", "kind": "fallback"}
    assert value(samples, "bidtrie_answers_total", **labels) == 1
    assert value(samples, "bidtrie_late_answers_total", method="Target") == 1
    assert value(samples, "bidtrie_answers_total", **labels | {"source": "both", "kind": "cached"}) == 1
