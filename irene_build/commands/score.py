"""``irene-build score OUT LOG... -o SCORED``: joules of every request of a log, by an exported bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from irene_build import console
from irene_build.errors import InputError

app = typer.Typer()


@app.command()
def score(
    out: Path = typer.Argument(..., metavar="OUT", help="A bundle that `irene-build export` wrote."),
    logs: list[str] = typer.Argument(
        ..., metavar="LOG...", help="Parquet, CSV or JSON-lines files, patterns, or folders (day=2024-05-10/)."
    ),
    target: Path = typer.Option(..., "--output", "-o", metavar="SCORED", help="Folder to write (Parquet parts)."),
    tree: list[str] = typer.Option(
        [], "--tree", metavar="FILE", help="A symbolic tree, a folder of them, or MODEL=FILE (beside the bundle's)."
    ),
    model: str = typer.Option("", "--model", help="The model of all rows, where no column says it."),
    alias: list[str] = typer.Option([], "--alias", metavar="NAME=MODEL", help="A name in the log, and its model."),
    preset: str = typer.Option("", "--preset", help="azure-2023, azure-2024, burstgpt, vllm or openai."),
    column: list[str] = typer.Option(
        [], "--column", metavar="ROLE=COLUMN",
        help="Where the log has model, prompt, output, batch, time, end, duration or host.",
    ),
    batch_size: float = typer.Option(
        0.0, "--batch", "-b", help="Requests in flight (default: the log's column, else overlap of its times, else 1)."
    ),
    max_batch: float = typer.Option(256.0, "--max-batch", help="Most requests that a host takes at once (overlap)."),
    failed: str = typer.Option(
        "prefill", "--failed", help="Requests without an output token: charge their prefill, or nothing."
    ),
    by: str = typer.Option("", "--by", metavar="COLUMNS", help="Totals by these: model,host,day (or hour)."),
    co2: float = typer.Option(None, "--co2", metavar="G_PER_KWH", help="Grams of CO2 of one kWh."),
    price: float = typer.Option(None, "--price", metavar="PER_KWH", help="What one kWh costs."),
    currency: str = typer.Option("EUR", "--currency", help="Of --price."),
    csv: Path = typer.Option(None, "--csv", metavar="FILE", help="Also write the totals as CSV."),
    html: Path = typer.Option(None, "--html", metavar="FILE", help="Also write the totals as a page with charts."),
    runner: str = typer.Option("local", "--runner", help="local, spark or ray."),
    master: str = typer.Option("", "--master", help="Of Spark (spark://host:7077) or Ray (ray://host:10001)."),
    force: bool = typer.Option(False, "--force", help="Replace SCORED where it is there already."),
    as_json: bool = typer.Option(False, "--json", help="Print the totals as JSON."),
) -> None:  # fmt: skip
    """Predict the energy of every request of a log: the same rows with joules, interval, parts and flags.

    Rows that are wrong go to SCORED/_rejects.jsonl with the reason. What was broken off goes on when it is run again.
    """
    from irene_build.files import check_writable, write_text_atomic
    from irene_build.report import scored
    from irene_build.score.columns import parse_mapping
    from irene_build.score.run import Options, score_logs
    from irene_build.score.sources import load
    from irene_build.score.totals import Rates

    for name, value in (("--co2", co2), ("--price", price)):
        if value is not None and not 0.0 <= value < 1e9:
            raise InputError(f"{name} {value}: expected a number per kWh")
    for path in (csv, html):
        if path is not None:
            check_writable(path)
    options = Options(
        preset=preset, columns=parse_mapping(column), model=model, aliases=_aliases(alias), batch_size=batch_size,
        max_batch=max_batch, failed=failed, by=tuple(key.strip() for key in by.split(",") if key.strip()),
        rates=Rates(co2, price, currency), runner=runner, master=master, force=force,
    )  # fmt: skip
    loaded = load(out, tree)
    if loaded.about["provenance"] == "simulated":
        console.note("SIMULATED: this estimator was calibrated on simulated energy.")
    with console.Progress(1, "scoring") as progress:
        result = score_logs(
            loaded, logs, target, options, lambda share, what: progress.update(share, _detail(what))
        )
    if csv is not None:
        write_text_atomic(csv, scored.as_csv(result))
    if html is not None:
        write_text_atomic(html, scored.page(result))
    if as_json:
        console.emit_json(result)
        return
    _print(result)


def _aliases(pairs: list[str]) -> dict[str, str]:
    out = {}
    for pair in pairs:
        name, equals, model = pair.partition("=")
        if not equals or not name or not model:
            raise InputError(f"--alias {pair!r}: expected NAME=MODEL, the name in the log first")
        out[name] = model
    return out


def _detail(what: str) -> str:
    return "finding requests in flight" if what == "overlap" else ""


def _print(result: dict[str, Any]) -> None:
    from irene_build.report import scored

    said = {
        "option": "as given", "column": "by the log's column", "one": "1: the log has neither a batch nor a time",
        "overlap": "by overlap of the log's times",
    }  # fmt: skip
    console.note(f"requests in flight: {said[result['concurrency']]}")
    rejected = sum(result["rejected"].values())
    console.say(scored.table(result))
    if rejected:
        console.note(f"{rejected:,} rows rejected, with reasons in {result['out']}/_rejects.jsonl:")
        for reason, count in list(result["rejected"].items())[:5]:
            console.note(f"  {count:,} x {reason}")
    console.note(f"wrote {result['out']}")
