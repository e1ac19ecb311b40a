"""The Prometheus metrics. Labels hold names of methods and codes only, never anything from a request."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from bidtrie.scheduling.batcher import Observer

_SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0),
)
_NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics(Observer):
    """Every metric of a process, on one registry; the names of the gRPC ones are the ecosystem's."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        # One more series for every counter and histogram, which no dashboard reads.
        disable_created_metrics()
        ProcessCollector(registry=self.registry)
        method = ["grpc_type", "grpc_service", "grpc_method"]
        self._started = Counter(
            "grpc_server_started", "Calls started on the server.", method, registry=self.registry
        )
        self._handled = Counter(
            "grpc_server_handled",
            "Calls completed on the server, whatever their status.",
            [*method, "grpc_code"],
            registry=self.registry,
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "Time from a call's arrival to its end on the server.",
            method,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._step_seconds = Histogram(
            "bidtrie_engine_step_seconds",
            "Time of one engine step.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._step_nodes = Histogram(
            "bidtrie_engine_step_nodes",
            "Nodes (tokens) that one engine step computed.",
            buckets=_NODES,
            registry=self.registry,
        )
        self._step_requests = Histogram(
            "bidtrie_engine_step_requests",
            "Requests that shared one engine step.",
            buckets=_NODES[:9],
            registry=self.registry,
        )
        self._queue_requests = Gauge(
            "bidtrie_queue_requests",
            "Requests waiting for the engine or running on it.",
            registry=self.registry,
        )
        self._queue_seconds = Histogram(
            "bidtrie_queue_seconds",
            "Time that a request waited before its first engine step.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "bidtrie_requests_in_flight",
            "Calls of bidtrie's services being handled, GetStatus aside.",
            registry=self.registry,
        )

    def call_started(self, kind: str, service: str, method: str) -> None:
        """A gRPC call has reached its handler."""
        self._started.labels(kind, service, method).inc()

    def call_ended(self, kind: str, service: str, method: str, code: str, seconds: float) -> None:
        """A gRPC call has ended with a status code, for example "DeadlineExceeded"."""
        self._handled.labels(kind, service, method, code).inc()
        self._handling.labels(kind, service, method).observe(seconds)

    def expect_method(self, kind: str, service: str, method: str) -> None:
        """Make a method's series exist before its first call, so that rates over them start at 0."""
        self._started.labels(kind, service, method)
        self._handled.labels(kind, service, method, "OK")
        self._handling.labels(kind, service, method)

    def step(self, seconds: float, nodes: int, jobs: int) -> None:
        self._step_seconds.observe(seconds)
        self._step_nodes.observe(nodes)
        self._step_requests.observe(jobs)

    def started(self, queue_seconds: float) -> None:
        self._queue_seconds.observe(queue_seconds)

    def queue(self, jobs: int) -> None:
        self._queue_requests.set(jobs)
