"""Totals of scored logs as table, CSV and page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from irene_build.report import scored
from irene_build.score.run import Options, score_logs
from irene_build.score.totals import Rates
from tests.score.synthetic import Formula, loaded


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scored")
    rows = [
        f"{model},2024-05-1{day} 08:00:00,{100 * (day + 1)},50,1"
        for day in range(3)
        for model in ("=a()", "b<")
    ]
    (folder / "log.csv").write_text(
        "\n".join(["model,time,prompt,output,batch", *rows, "b<,2024-05-10,-1,5,1", ""])
    )
    options = Options(by=("model", "day"), rates=Rates(400.0, 0.25))
    have = loaded(**{"=a()": Formula(), "b<": Formula(scale=9.0)})
    return score_logs(have, [str(folder / "log.csv")], folder / "out", options)


def test_the_table_has_the_dearest_group_first_and_the_sum_last(result: dict[str, Any]) -> None:
    lines = scored.table(result).splitlines()
    assert (
        lines[0].split()[:3] == ["model", "day", "requests"]
        and "g CO2" in lines[0]
        and "cost (EUR)" in lines[0]
    )
    assert lines[1].split()[:2] == ["b<", "2024-05-12"] and lines[-1].split()[:2] == ["all", "6"]


def test_csv_reads_back_and_runs_nothing_in_a_spreadsheet(result: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(scored.as_csv(result))))
    assert [float(row["energy_j"]) for row in rows] == [row["energy_j"] for row in result["rows"]]
    assert {row["model"] for row in rows} == {"'=a()", "b<"}


def test_the_page_has_a_chart_for_every_key_and_says_that_it_is_simulated(
    result: dict[str, Any], tmp_path: Path
) -> None:
    page = scored.page(result)
    assert page.count("<svg") == 2 and "Energy by model" in page and "Energy by day" in page
    assert "SIMULATED" in page and "b&lt;" in page and "b<<" not in page
    assert "1 rows were rejected" in page and "kWh" in page
