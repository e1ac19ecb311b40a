"""docs/operating.md against the code: the metrics that it lists, and the files that it names."""

import re

from bidtrie.server.metrics import Metrics
from bidtrie.settings import Settings
from deploy.prometheus_files import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
#: prometheus-client makes the process's own.
PROCESS = "process_"


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name -> (type, labels) of every row of the metrics table."""
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", PAGE, flags=re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def exported() -> dict[str, tuple[str, set[str]]]:
    registry = Metrics().registry
    found = {}
    for collector in set(registry._collector_to_names):
        for family in collector.describe() if hasattr(collector, "describe") else ():
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, set(getattr(collector, "_labelnames", ())))
    return found


def test_the_table_lists_every_metric_with_its_type_and_labels() -> None:
    documented_own = {name: row for name, row in documented().items() if not name.startswith(PROCESS)}
    exported_own = {name: row for name, row in exported().items() if not name.startswith(PROCESS)}
    assert len(exported_own) > 15
    assert documented_own == exported_own


def test_files_that_the_page_names_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link


def test_settings_that_the_page_names_exist() -> None:
    named = set(re.findall(r"setting `(\w+)`", PAGE))
    assert named
    assert named <= set(Settings.model_fields)
