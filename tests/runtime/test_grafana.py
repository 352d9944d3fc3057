"""The Grafana dashboard: Grafana's own types read it, and it asks for nothing that `serve` does not export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from irene_runtime.serve_metrics import server_reading
from tests.runtime.test_serve import FIRST, LATER, VLLM, ledger


@pytest.fixture
def dashboard(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (repository / "templates" / "grafana_dashboard.json").read_text(encoding="utf-8")
    )
    return found


def test_every_field_is_one_that_grafana_s_schema_knows(dashboard: dict[str, Any]) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))

    def kept(ours: Any, theirs: Any) -> bool:
        if isinstance(ours, dict):
            return all(key in theirs and kept(value, theirs[key]) for key, value in ours.items())
        if isinstance(ours, list):
            return len(ours) == len(theirs) and all(map(kept, ours, theirs))
        return bool(ours == theirs)

    assert kept(dashboard, read)
    assert not kept({**dashboard, "no_such_field": 1}, read)


def test_panels_ask_for_what_is_exported_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    book = ledger(watts=lambda: 300.0)
    for values, at in ((FIRST, 0.0), (LATER, 5.0)):
        book.take(server_reading(VLLM.format(**values), at))
    exported = set(re.findall(r"^(irene_\w+)\{", book.openmetrics(), re.M)) | {"irene_missing_metric"}
    asked = {
        name
        for p in dashboard["panels"]
        for t in p["targets"]
        for name in re.findall(r"irene_\w+", t["expr"])
    }
    assert asked <= exported and len(asked) >= 10
    cells = [
        (x, y)
        for p in dashboard["panels"]
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
