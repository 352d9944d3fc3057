"""`irene-build calibrate`: plan a campaign, measure it, make a dataset of it, train."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer()


@app.command()
def calibrate(
    hardware: str = typer.Option("", "--hardware", help="Hardware profile (default: best meter here)."),
    meter: str = typer.Option("", "--meter", help="Energy source, instead of the profile's own."),
    model: list[str] = typer.Option([], "--model", help="Model to measure; may be repeated."),
    grid: str | None = typer.Option(None, "--grid", help="Batch x length pairs, as in 8x32,16x64."),
    plan_file: Path | None = typer.Option(None, "--plan", help="TOML file of [[target]] tables."),
    budget: str = typer.Option("", "--budget", help="Measuring time (default: 30m; simulated 3m)."),
    precision: float = typer.Option(0.01, "--precision", help="Wanted 95 % half-width of a node, relative."),
    seed: int = typer.Option(0, "--seed", help="Seed of the random order."),
    device: str = typer.Option("", "--device", help="cpu, cuda or cuda:N (default: the profile's)."),
    threads: int = typer.Option(0, "--threads", help="CPU threads of torch (default: torch's own choice)."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the plan and its length."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the plan in the journal."),
    new: bool = typer.Option(False, "--new", help="Keep an earlier campaign aside and start another."),
    stop_after: str = typer.Option("", "--stop-after", help="Stop after this time; run again to go on."),
    train: bool = typer.Option(True, "--train/--no-train", help="Train an estimator at the end."),
    method: str = typer.Option("best", "--method", help="Training method: best or paper."),
    origin: str = typer.Option("", "--from", help="Carry this hardware's estimator over; needs --labels."),
    labels: int = typer.Option(
        0, "--labels", help="With --from: how many nodes to measure (of imported measurements: to take)."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Measure this PC and train its estimator. Interrupted, run it again: it goes on."""
    from irene_build.calibrate.request import Request
    from irene_build.calibrate.run import calibrate as run

    asked = Request(
        hardware=hardware, meter=meter, models=tuple(model), grid=grid, plan_file=plan_file, budget=budget,
        precision=precision, seed=seed, device=device, threads=threads, dry_run=dry_run, resume=resume,
        new=new, stop_after=stop_after, train=train, method=method, origin=origin, labels=labels,
        as_json=as_json,
    )  # fmt: skip
    run(asked)
