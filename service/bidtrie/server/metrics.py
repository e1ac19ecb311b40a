"""The Prometheus metrics. Labels hold names of methods and codes only, never anything from a request."""

import math
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from bidtrie.drafts.drafter import DECISIONS, DraftCounts
from bidtrie.requests import Source
from bidtrie.scheduling.service_class import ServiceClass
from bidtrie.serving.runtime_observer import RuntimeObserver
from bidtrie.trie.found import SearchWork

_SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0),
)
#: Slack may be gone.
_SLACK = (0.0, *_SECONDS[:16], 5.0, 60.0)
_RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0)
_ACCEPTED = (0, 1, 2, 3, 4, 6, 8, 12, 16)
_NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class MethodSeries:
    """What is counted of one gRPC method."""

    def __init__(self, started: Counter, handling: Histogram, handled: Callable[[str], Counter]) -> None:
        self._started, self._handling = started, handling
        self._make = handled
        self._handled = {"OK": handled("OK")}

    def started(self) -> None:
        """A call has reached its handler."""
        self._started.inc()

    def ended(self, code: str, seconds: float) -> None:
        """A call has ended with a status code, for example "DeadlineExceeded"."""
        handled = self._handled.get(code)
        if handled is None:
            handled = self._handled[code] = self._make(code)
        handled.inc()
        self._handling.observe(seconds)


class Metrics(RuntimeObserver):
    """Every metric of a process, on one registry; the names of the gRPC ones are the ecosystem's."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        # One more series for every counter and histogram, which no dashboard reads.
        disable_created_metrics()
        ProcessCollector(registry=self.registry)
        method = ["grpc_type", "grpc_service", "grpc_method"]
        self._started = self._counter("grpc_server_started", "Calls started on the server.", method)
        self._handled = self._counter(
            "grpc_server_handled",
            "Calls completed on the server, whatever their status.",
            [*method, "grpc_code"],
        )
        self._handling = self._histogram(
            "grpc_server_handling_seconds",
            "Time from a call's arrival to its end on the server.",
            _SECONDS,
            method,
        )
        self._refusal = self._histogram(
            "bidtrie_refusal_seconds",
            "Time from a call's arrival in its handler until RESOURCE_EXHAUSTED is handed to gRPC.",
            _SECONDS,
        )
        self._answers = self._counter(
            "bidtrie_answers",
            "Answers, by who gave them and what they are worth.",
            ["method", "source", "kind"],
        )
        self._late = self._counter(
            "bidtrie_late_answers", "Answers handed to gRPC after their budget.", ["method"]
        )
        self._slack_at_arrival = self._histogram(
            "bidtrie_slack_at_arrival_seconds",
            "Time left of a request's budget when it is submitted.",
            _SLACK,
            ["class"],
        )
        self._slack_at_dispatch = self._histogram(
            "bidtrie_slack_at_dispatch_seconds",
            "Time that a request is predicted to have left over when its first step begins.",
            _SLACK,
            ["class"],
        )
        self._shed = self._counter(
            "bidtrie_shed", "Requests that no model answered, by why.", ["class", "reason"]
        )
        self._plans = self._counter("bidtrie_plans", "Requests admitted, by how they are searched.", ["plan"])
        self._shrunk = self._counter(
            "bidtrie_plans_shrunk", "Requests that had to take a cheaper plan than they were admitted with."
        )
        self._nodes = self._counter("bidtrie_engine_nodes", "Nodes (tokens) computed.", ["level", "class"])
        self._step_seconds = self._histogram(
            "bidtrie_engine_step_seconds", "Time of one engine step.", _SECONDS
        )
        self._step_nodes = self._histogram(
            "bidtrie_engine_step_nodes", "Nodes (tokens) that one engine step computed.", _NODES
        )
        self._step_requests = self._histogram(
            "bidtrie_engine_step_requests", "Requests that shared one engine step.", _NODES[:9]
        )
        self._prediction = self._histogram(
            "bidtrie_step_prediction_ratio", "Measured over predicted time of a step.", _RATIOS, ["level"]
        )
        self._saves = self._counter(
            "bidtrie_cost_model_saves",
            "Cost models written to their files, or not: done, failed.",
            ["result"],
        )
        self._queue_requests = self._gauge(
            "bidtrie_queue_requests", "Requests waiting for the engine or running on it."
        )
        self._queue_seconds = self._histogram(
            "bidtrie_queue_seconds", "Time that a request waited before its first engine step.", _SECONDS
        )
        self.in_flight = self._gauge(
            "bidtrie_requests_in_flight", "Calls of bidtrie's services being handled, GetStatus aside."
        )
        self.ready = self._gauge(
            "bidtrie_ready", "1 where calls are taken; 0 while loading and while draining."
        )
        self._cache_requests = self._counter(
            "bidtrie_cache_requests",
            "Requests that the cache may answer: hit, stale, miss, or joined to an equal request's computation.",
            ["result"],
        )
        self._cache_entries = self._gauge("bidtrie_cache_entries", "Answers cached in memory.", ["cache"])
        self._cache_bytes = self._gauge(
            "bidtrie_cache_bytes", "Bytes that cached answers take in memory.", ["cache"]
        )
        self._cache_evictions = self._counter(
            "bidtrie_cache_evictions", "Cached answers that left for want of memory.", ["cache"]
        )
        self._cache_fills = self._counter(
            "bidtrie_cache_fills",
            "Answers computed for the cache from idle time: done, dropped, failed.",
            ["result"],
        )
        self._cache_remote = self._histogram(
            "bidtrie_cache_remote_seconds", "Time of an operation of Redis.", _SECONDS, ["operation"]
        )
        self._cache_remote_errors = self._counter(
            "bidtrie_cache_remote_errors", "Times that Redis was of no use, by why.", ["reason"]
        )
        self._target_steps = self._histogram(
            "bidtrie_target_steps", "Engine steps that a search of a catalog took.", _NODES[:7]
        )
        self._branches = self._counter(
            "bidtrie_search_branches",
            "Branches of catalogs: scored, unused (fed ahead and never needed), pruned (left out as hopeless).",
            ["outcome"],
        )
        self._approved = self._gauge(
            "bidtrie_approved_creatives", "Approved ad texts that drafts are made of."
        )
        self._approved_reads = self._counter(
            "bidtrie_approved_creatives_reads",
            "Times that the file of approved creatives was read: done, or failed (what it held before stays).",
            ["result"],
        )
        self._creative_steps = self._histogram(
            "bidtrie_creative_steps", "Engine steps that a creative request took.", _NODES[:10]
        )
        self._drafts = self._counter("bidtrie_drafts", "Draft trees that were fed ahead of a text.")
        self._draft_nodes = self._counter("bidtrie_draft_nodes", "Nodes (tokens) of those trees.")
        self._draft_accepted = self._counter(
            "bidtrie_draft_accepted_tokens", "Nodes of draft trees that became text."
        )
        self._draft_length = self._histogram(
            "bidtrie_draft_accepted_length", "Tokens of one draft tree that became text.", _ACCEPTED
        )
        self._draft_decisions = self._counter(
            "bidtrie_draft_decisions",
            "Steps of creative requests: drafted, not_worth (none would pay), or no_draft (none was known).",
            ["decision"],
        )
        self._expect_labels()

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _expect_labels(self) -> None:
        """Make series exist before their first event, so that rates over them start at 0."""
        for method in ("Target", "Generate"):
            self._late.labels(method)
        for kind in ("full", "partial", "cached", "stale"):
            self._answers.labels("Target", Source.BOTH, kind)
            self._answers.labels("Generate", Source.LLM, kind)
        for kind in ("full", "fallback"):
            self._answers.labels("Target", Source.RETRIEVER, kind)
        for each in ServiceClass:
            self._slack_at_arrival.labels(each)
            self._slack_at_dispatch.labels(each)
            for reason in ("late_on_arrival", "queue_full", "deadline", "expired", "kv_full"):
                self._shed.labels(each, reason)
        self._cached = {
            each: self._cache_requests.labels(each) for each in ("hit", "stale", "miss", "joined")
        }
        self._answered: dict[tuple[str, Source, str], Counter] = {}
        for result in ("done", "dropped", "failed"):
            self._cache_fills.labels(result)
        for cache in ("targeting", "creative"):
            self._cache_entries.labels(cache)
            self._cache_bytes.labels(cache)
            self._cache_evictions.labels(cache)
        for result in ("done", "failed"):
            self._saves.labels(result)
            self._approved_reads.labels(result)
        for decision in DECISIONS:
            self._draft_decisions.labels(decision)
        self._branch = {each: self._branches.labels(each) for each in ("scored", "unused", "pruned")}

    def method_series(self, kind: str, service: str, method: str) -> "MethodSeries":
        """The series of a gRPC method; they exist from now on, so that rates over them start at 0."""
        return MethodSeries(
            self._started.labels(kind, service, method),
            self._handling.labels(kind, service, method),
            lambda code: self._handled.labels(kind, service, method, code),
        )

    def refused(self, seconds: float) -> None:
        """A call is refused for want of time or room, so long after it reached its handler."""
        self._refusal.observe(seconds)

    def answered(self, method: str, source: Source, kind: str, *, late: bool) -> None:
        """An answer is handed to gRPC. `kind` is of `answer_kind`."""
        series = self._answered.get((method, source, kind))
        if series is None:
            series = self._answered[method, source, kind] = self._answers.labels(method, source, kind)
        series.inc()
        if late:
            self._late.labels(method).inc()

    def arrived(self, service_class: ServiceClass, slack: float) -> None:
        if math.isfinite(slack):
            self._slack_at_arrival.labels(service_class).observe(slack)

    def planned(self, plan: str) -> None:
        self._plans.labels(plan).inc()

    def shrunk(self, plan: str) -> None:
        self._shrunk.inc()

    def shed(self, service_class: ServiceClass, reason: str) -> None:
        self._shed.labels(service_class, reason).inc()

    def started(self, service_class: ServiceClass, queue_seconds: float, slack: float) -> None:
        self._queue_seconds.observe(queue_seconds)
        if math.isfinite(slack):
            self._slack_at_dispatch.labels(service_class).observe(slack)

    def step(self, level: int, seconds: float, nodes: Mapping[ServiceClass, int], jobs: int) -> None:
        self._step_seconds.observe(seconds)
        self._step_nodes.observe(sum(nodes.values()))
        self._step_requests.observe(jobs)
        for each, count in nodes.items():
            self._nodes.labels(level, each).inc(count)

    def predicted(self, level: int, ratio: float) -> None:
        self._prediction.labels(level).observe(ratio)

    def queue(self, jobs: int) -> None:
        self._queue_requests.set(jobs)

    def cost_model_saved(self, done: bool) -> None:
        self._saves.labels("done" if done else "failed").inc()

    def searched(self, steps: int, work: SearchWork) -> None:
        self._target_steps.observe(steps)
        self._branch["scored"].inc(work.scored)
        self._branch["unused"].inc(work.unused)
        self._branch["pruned"].inc(work.pruned)

    def approved_read(self, texts: int | None) -> None:
        self._approved_reads.labels("failed" if texts is None else "done").inc()
        if texts is not None:
            self._approved.set(texts)

    def creatives_written(self, steps: int, drafts: DraftCounts) -> None:
        self._creative_steps.observe(steps)
        self._drafts.inc(drafts.trees)
        self._draft_nodes.inc(drafts.nodes)
        self._draft_accepted.inc(drafts.accepted)
        for length, count in drafts.lengths.items():
            for _ in range(count):
                self._draft_length.observe(length)
        for decision, count in drafts.decisions.items():
            self._draft_decisions.labels(decision).inc(count)

    def request(self, result: str) -> None:
        self._cached[result].inc()

    def cache_size(self, cache: str, entries: int, size_bytes: int) -> None:
        self._cache_entries.labels(cache).set(entries)
        self._cache_bytes.labels(cache).set(size_bytes)

    def cache_evicted(self, cache: str) -> None:
        self._cache_evictions.labels(cache).inc()

    def fill(self, outcome: str) -> None:
        self._cache_fills.labels(outcome).inc()

    def remote_seconds(self, operation: str, seconds: float) -> None:
        self._cache_remote.labels(operation).observe(seconds)

    def remote_error(self, reason: str) -> None:
        self._cache_remote_errors.labels(reason).inc()
