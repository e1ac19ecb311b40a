"""Rules and alerts: valid, unit-tested, and each alert explained to whoever gets it."""

import re
import subprocess
from pathlib import Path
from shutil import copytree

import grpc
import pytest
from deploy.prometheus_files import FOLDER, ROOT, load_yaml, metric_names, panel_queries, rules_of

ALERTS = rules_of("alerts.yml")


def promtool(*arguments: str | Path, folder: Path = FOLDER) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_promtool_accepts_the_configuration_and_its_rules() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules_of('rules.yml'))} rules found" in done.stdout
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_alerts_fire_and_do_not_fire_as_the_unit_tests_say() -> None:
    done = promtool("test", "rules", "tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (":ratio_rate1h > 14.4 * 0.005", ":ratio_rate1h > 144 * 0.005"),
        (
            "min_over_time(bidtrie_queue_requests[5m]) > 16",
            "min_over_time(bidtrie_queue_requests[5m]) > 1600",
        ),
        ('up{job="bidtrie"} == 0', 'up{job="bidtrie"} == 1'),
    ],
)
def test_the_unit_tests_notice_an_alert_that_is_wrong(good: str, bad: str, tmp_path: Path) -> None:
    folder = copytree(FOLDER, tmp_path / "prometheus")
    text = (folder / "alerts.yml").read_text()
    assert good in text
    (folder / "alerts.yml").write_text(text.replace(good, bad))
    assert promtool("check", "rules", "alerts.yml", folder=folder).returncode == 0
    assert promtool("test", "rules", "tests.yml", folder=folder).returncode == 1


def test_every_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    firing = [
        [sample["labels"] for sample in check["exp_samples"]]
        for test in load_yaml("tests.yml")["tests"]
        for check in test.get("promql_expr_test", ())
        if check["expr"] == 'sum by (alertname) (ALERTS{alertstate="firing"})'
    ]
    assert [] in firing
    tested = set(re.findall(r'alertname="(\w+)"', str(firing)))
    assert tested == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(alert: dict[str, dict[str, str]]) -> None:
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(text.strip() for text in alert["annotations"].values())
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert len(alert["annotations"]["summary"]) <= 80
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert anchor == str(alert["alert"]).lower()
    assert anchor in anchors(ROOT / page)


def anchors(page: Path) -> set[str]:
    """The anchors that a heading gets on the usual hosts: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert re.findall(r"^#+ (Bidtrie\w+)$", page, flags=re.MULTILINE) == [each["alert"] for each in ALERTS]


def test_recorded_names_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules_of("rules.yml")}
    everything = [rule["expr"] for name in ("rules.yml", "alerts.yml") for rule in rules_of(name)]
    everything += [expression for _, expression in panel_queries()]
    used = {name for expression in everything for name in metric_names(expression) if ":" in name}
    assert used
    assert used <= recorded


def test_status_codes_in_rules_are_spelled_as_the_ecosystem_spells_them() -> None:
    texts = [(FOLDER / name).read_text() for name in ("rules.yml", "alerts.yml")]
    texts += [expression for _, expression in panel_queries()]
    codes = {
        code
        for text in texts
        for value in re.findall(r'grpc_code[!=]=?~?"([\w|]+)"', text)
        for code in value.split("|")
    }
    spelled = {code.name.title().replace("_", "") for code in grpc.StatusCode} - {"Ok", "Cancelled"}
    # As Go, whose names the ecosystem's dashboards know, spells them; test_prometheus.py sees that the server does.
    assert {"OK", "Canceled", "Unavailable"} <= codes <= spelled | {"OK", "Canceled"}
