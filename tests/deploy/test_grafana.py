"""The dashboard's JSON, without Grafana; test_prometheus.py runs its queries."""

import re
from typing import Any

import pytest
from deploy.prometheus_files import dashboard

DASHBOARD = dashboard()
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Grafana sets these itself.
BUILT_IN = {"__rate_interval"}
GRID = 24

each_graph = pytest.mark.parametrize("panel", GRAPHS, ids=lambda panel: panel["title"])


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    grid = panel["gridPos"]
    return {
        (x, y)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    }


def test_the_frame() -> None:
    assert DASHBOARD["title"] == "bidtrie"
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    assert DASHBOARD.get("id") is None  # a number would be one installation's own
    assert list(VARIABLES) == ["datasource", "job", "instance", "method"]
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for name in ("job", "instance", "method"):
        assert VARIABLES[name]["datasource"] == DATASOURCE


def test_panels_have_ids_and_titles_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert len(GRAPHS) > 20


def test_panels_do_not_overlap_and_stay_on_the_grid() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        for cell in cells(panel):
            assert 0 <= cell[0] < GRID
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


def test_rows_are_in_the_order_of_the_page() -> None:
    assert [panel["gridPos"]["y"] for panel in PANELS] == sorted(panel["gridPos"]["y"] for panel in PANELS)
    assert PANELS[0]["type"] == "row"


@each_graph
def test_a_panel_is_complete(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("timeseries", "stat")
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == DATASOURCE
    assert panel["targets"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    for target in panel["targets"]:
        assert target["datasource"] == DATASOURCE
        assert target["expr"].strip()
        if panel["type"] == "timeseries":
            assert target["legendFormat"]


@each_graph
def test_a_panel_uses_variables_that_there_are(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        used = set(re.findall(r"\$\{?(\w+)", target["expr"]))
        assert used <= set(VARIABLES) | BUILT_IN
        assert {"job", "instance"} <= used


@each_graph
def test_legends_name_labels_that_the_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = {
            label.strip()
            for group in re.findall(r"by \(([^)]*)\)", target["expr"])
            for label in group.split(",")
        }
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


@each_graph
def test_overrides_match_a_legend(panel: dict[str, Any]) -> None:
    legends = [target["legendFormat"] for target in panel["targets"]]
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["id"] == "byRegexp"
        re.compile(override["matcher"]["options"].strip("/"))
        # The expression is about the label that the legend begins with.
        assert all(legend.startswith("{{") for legend in legends)
