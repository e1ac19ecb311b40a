"""What deploy/prometheus and deploy/grafana hold, read once for all tests."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARD_FILE = ROOT / "deploy" / "grafana" / "bidtrie.json"


def load_yaml(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def rules_of(name: str) -> list[dict[str, Any]]:
    """Every rule of a file, whatever its group."""
    return [rule for group in load_yaml(name)["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD_FILE.read_text(encoding="utf-8"))
    return found


def panel_queries() -> list[tuple[str, str]]:
    """(panel's title, expression) of every target of the dashboard."""
    return [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def metric_names(expression: str) -> set[str]:
    """The names of metrics and recorded series in an expression: those of bidtrie, gRPC, the process, and `up`."""
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    return set(
        re.findall(
            r"\b(?:[a-z_]+:)?(?:bidtrie|grpc_server|process)_\w+(?::\w+)?|\bup\b(?=[{\[]|$)", without_strings
        )
    )
