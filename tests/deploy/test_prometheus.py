"""A real Prometheus scrapes a real server under load: every rule and every panel has something to show."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from bidtrie.client import Client
from bidtrie.client.errors import RequestFailed
from bidtrie.serving.own_server import Ports, own_server
from bidtrie.v1.creative_pb2 import Product
from deploy.prometheus_files import metric_names, panel_queries, rules_of
from deploy.prometheus_server import Prometheus, free_port, prometheus, wait_for
from e2e.product_home import product_home

#: Panels that have nothing to show, as this server has no Redis: whether one answers in time depends on the machine.
OF_REDIS = {"Redis latency", "Redis errors"}
REDIS_METRICS = {"bidtrie_cache_remote_errors_total", "bidtrie_cache_remote_seconds_bucket"}
#: Panels of quantiles of what does not happen here: their series are there, without a value.
WITHOUT_VALUES = {"Time to refuse"}
#: What Grafana would put in.
VARIABLES = {
    "$__rate_interval": "30s",
    "$instance": ".*",
    "$method": ".*",
    "$job": "bidtrie",
}
SECONDS_FOR_EVERYTHING_TO_SHOW = 40.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Ports]:
    """A server with the default model and the IAB catalog."""
    home = product_home(tmp_path_factory.mktemp("deploy"), smollm2_path)
    with home, own_server("smollm2-135m", ["iab-content"]) as ports:
        yield ports


def ask(client: Client, number: int) -> None:
    """One of everything: a new question, an old one, a wrong one, one without time, and a creative."""
    client.target(title=f"Sourdough bread, part {number}", timeout_ms=60_000)
    client.target(title="Electric cars on long roads", timeout_ms=60_000)
    with suppress(RequestFailed):
        client.target(title="x", top_k=0)
    with suppress(RequestFailed):
        client.target(title=f"Too late {number}", timeout_ms=60_000, tmax_ms=1)
    client.generate(product=Product(company="Kettle", description=f"A kettle, model {number}"))


@contextmanager
def load(address: str) -> Iterator[list[Exception]]:
    """Ask again and again in the background. The list has what went wrong."""
    stop, errors = threading.Event(), list[Exception]()

    def run() -> None:
        with Client(address) as client:
            number = 0
            while not stop.wait(0.1):
                try:
                    ask(client, number)
                except Exception as error:
                    errors.append(error)
                    return
                number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield errors
    finally:
        stop.set()
        thread.join()


def shows(server: Prometheus, expression: str, *, value: bool = True) -> bool:
    """Whether an expression has a sample, which is a number where `value` is asked for."""
    samples = server.query(expression)
    return any(not value or math.isfinite(float(sample["value"][1])) for sample in samples)


def missing(server: Prometheus) -> list[str]:
    """The names of the rules and panels that show nothing."""
    return [
        name
        for name, query in QUERIES.items()
        if not shows(server, query, value=name.partition(":")[0] not in WITHOUT_VALUES)
    ]


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


QUERIES = {rule["record"]: rule["record"] for rule in rules_of("rules.yml")} | {
    f"{title}: {expression}": filled_in(expression)
    for title, expression in panel_queries()
    if title not in OF_REDIS
}


@pytest.fixture(scope="module")
def watched(server: Ports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, str]]:
    """Prometheus, once every query shows something or time is up; and the address of a target that is down."""
    down = f"127.0.0.1:{free_port()}"
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        prometheus(folder, [f"127.0.0.1:{server.http}", down]) as found,
        load(f"127.0.0.1:{server.grpc}") as errors,
    ):
        end = time.monotonic() + SECONDS_FOR_EVERYTHING_TO_SHOW
        while not errors and time.monotonic() < end:
            if not missing(found):
                break
            time.sleep(1)
        assert not errors
        yield found, down


def test_every_recording_rule_and_every_panel_shows_something(watched: tuple[Prometheus, str]) -> None:
    found, _ = watched
    assert len(QUERIES) > 60
    assert missing(found) == []


def test_a_query_of_what_there_is_not_shows_nothing(watched: tuple[Prometheus, str]) -> None:
    found, _ = watched
    assert not shows(found, "bidtrie_no_such_metric")
    assert not shows(found, 'bidtrie_shed_total{reason="no_such_reason"}')


def test_prometheus_evaluates_every_rule_without_an_error(watched: tuple[Prometheus, str]) -> None:
    found, _ = watched

    def rules() -> list[dict[str, Any]]:
        return [rule for group in found.get("rules")["groups"] for rule in group["rules"]]

    wait_for(lambda: all(rule["health"] != "unknown" for rule in rules()), "rules are not evaluated")
    assert len(rules()) == len(rules_of("rules.yml")) + len(rules_of("alerts.yml"))
    assert [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"] == []


def test_alerts_ask_for_metrics_that_there_are(watched: tuple[Prometheus, str]) -> None:
    found, _ = watched
    known = set(found.get("label/__name__/values")) | REDIS_METRICS
    for alert in rules_of("alerts.yml"):
        names = metric_names(alert["expr"])
        assert names, alert["alert"]
        assert names <= known, alert["alert"]


def test_the_metrics_of_redis_are_announced_before_they_have_series(watched: tuple[Prometheus, str]) -> None:
    found, _ = watched
    used = {name for title, query in panel_queries() if title in OF_REDIS for name in metric_names(query)}
    assert used == REDIS_METRICS
    # Prometheus keeps the names of families, which are the metrics' without their endings.
    announced = set(found.get("metadata"))
    for name in REDIS_METRICS:
        assert announced & {name, name.removesuffix("_bucket"), name.removesuffix("_total")}, name


def test_a_target_that_is_down_is_noticed_and_a_healthy_one_is_not_blamed(
    watched: tuple[Prometheus, str],
) -> None:
    found, down = watched
    pending = 'ALERTS{alertname="BidtrieTargetDown"}'
    wait_for(lambda: bool(found.query(pending)), "the alert does not become pending")
    assert {sample["metric"]["instance"] for sample in found.query(pending)} == {down}
    assert not found.query('ALERTS{alertname=~"BidtrieAbsent|BidtrieNotReady|BidtrieCostModelNotSaved"}')


def test_what_was_asked_is_what_is_counted(watched: tuple[Prometheus, str]) -> None:
    found, _ = watched
    for selector in (
        'grpc_server_handled_total{grpc_method="Target", grpc_code="InvalidArgument"}',
        'grpc_server_handled_total{grpc_method="Target", grpc_code="OK"}',
        'grpc_server_handled_total{grpc_method="Generate", grpc_code="OK"}',
        'bidtrie_cache_requests_total{result="hit"}',
        'bidtrie_answers_total{kind="cached"}',
    ):
        wait_for(lambda selector=selector: bool(found.query(f"{selector} > 0")), selector)  # type: ignore[misc]
