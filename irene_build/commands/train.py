"""`irene-build train`: a dataset becomes an estimator file."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.command()
def train(
    hardware: str = typer.Option(..., "--hardware", help="The PC whose dataset is learned from."),
    method: str = typer.Option("best", "--method", help="best, or paper (IrEne as published)."),
    recipe: str | None = typer.Option(
        None, "--recipe", help="With --method paper: converged (default) or authors (Adam, 8 epochs)."
    ),
    tier: list[str] = typer.Option(
        [], "--tier", help="static, live or profile; may be repeated (default: all)."
    ),
    prior: str = typer.Option(
        "",
        "--prior",
        metavar="KIND",
        help="What hosts of its kind share (irene-build pool; whole-model labels).",
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of what is random (recipe authors)."),
    check: bool = typer.Option(
        True,
        "--evaluate/--no-evaluate",
        help="Leave each model out once and keep the errors in the estimator.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train the estimator of a PC from its dataset."""
    from irene_build import console
    from irene_build.dataset.store import load_dataset
    from irene_build.engines import build
    from irene_build.paths import find_artifact, hardware_dir
    from irene_build.train import api, estimator_file

    if build.has_measurements(hardware):
        from irene_build.commands import _gpus

        _gpus.train(hardware, as_json)
        return
    dataset = load_dataset(find_artifact(hardware, "campaign.sqlite"))
    if prior:
        from irene_build.train.law.pooled import read_prior

        dataset.info["law_prior"] = read_prior(find_artifact(prior, "law_prior.json"))
    if dataset.provenance == "simulated":
        console.note(f"{hardware}: labels are simulated; so is everything that is learned from them")
    console.note(f"training ({method}) on {len(dataset.trees)} trees")
    estimator = api.fit(dataset, method, recipe, tuple(tier) or estimator_file.TIERS, seed)
    if check and len(dataset.models) > 1:
        from irene_build.evaluate.run import evaluate, summary

        with console.Progress(1.0, "leaving models out", quiet=as_json) as progress:
            result = evaluate(
                dataset, method, tiers=tuple(estimator["tiers"]), recipe=recipe, seed=seed, baselines=False,
                report=progress.update, counts="irene2021",
            )  # fmt: skip
        estimator["evaluation"] = summary(result)
    target = hardware_dir(hardware) / "estimator.json"
    estimator_file.save(estimator, target)
    from irene_runtime.equations import estimator_digest

    info = {
        "hardware": hardware, "method": method, "file": str(target), "digest": estimator_digest(estimator),
        "provenance": dataset.provenance, "tiers": list(estimator["tiers"]),
        "trained_on": estimator["trained_on"], "evaluation": estimator["evaluation"],
    }  # fmt: skip
    if as_json:
        console.emit_json(info)
        return
    about = estimator["trained_on"]
    console.say(
        f"trained {method} on {about['nodes']} labels ({about['distinct']} measurements) of "
        f"{about['trees']} trees, {len(about['models'])} models; wrote {target}"
    )
    rows = []
    for name, protocols in estimator["evaluation"].items():
        for level, found in protocols.get("model-out", {}).items():
            cover = found["coverage90"]
            rows.append(
                (name, level, f"{found['mape']:.2f}", "" if cover is None else f"{cover:.1f}", found["n"])
            )
    if rows:
        console.say("error on models left out, percent:")
        console.say(console.table(rows, ("tier", "level", "mean", "in 90% interval", "nodes")))
    elif check:
        console.say("one model only: no error on unseen models can be given")
