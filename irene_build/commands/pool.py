"""``irene-build pool A B C``: what hosts of one kind share, how they differ, and an estimator for the next of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from irene_build.dataset.table import Dataset

app = typer.Typer()


@app.command()
def pool(
    hosts: list[str] = typer.Argument(..., metavar="HARDWARE...", help="Two or more hosts with campaigns."),
    kind: str = typer.Option(..., "--output", "-o", metavar="KIND", help="Name of the kind, as hardware."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Fit what hosts of one kind share and how far they differ.

    Writes artifacts/KIND/estimator.json: it predicts the next host of the kind without a label, and `irene-build
    calibrate --from KIND --labels 8` draws few labels of it to what the others share. Hosts with labels of whole models
    alone are compared by the law: artifacts/KIND/law_prior.json, for `irene-build train --hardware NEW --prior KIND`.
    """
    from irene_build import console
    from irene_build.dataset.store import load_dataset
    from irene_build.errors import DatasetError, InputError
    from irene_build.paths import find_artifact, hardware_dir
    from irene_build.train import estimator_file, pooling, whole_model

    if len(set(hosts)) < 2:
        raise InputError("pool: name two or more hosts")
    if kind in hosts:
        raise InputError(f"-o {kind}: the kind needs a name of its own, that is one of the hosts")
    datasets: list[Dataset] = []
    for host in hosts:
        path = find_artifact(host, "campaign.sqlite")
        dataset = load_dataset(path)
        if dataset.boundary != (datasets or [dataset])[0].boundary:
            raise DatasetError(
                f"{host} has joules of {dataset.boundary}, {hosts[0]} of {datasets[0].boundary}: pool one boundary"
            )
        datasets.append(dataset)
    if all(whole_model.roots_alone(dataset) for dataset in datasets):
        _whole_models(datasets, kind, as_json)
        return
    estimator = estimator_file.load(find_artifact(hosts[0], "estimator.json"))
    made = pooling.pooled(estimator, datasets, kind)
    target = hardware_dir(kind) / "estimator.json"
    result: dict[str, Any] = {
        "kind": kind, "estimator": str(target), **made["trained_on"]["pool"],
        "left_out_percent": pooling.left_out(estimator, datasets),
    }  # fmt: skip
    estimator_file.save(made, target)
    if as_json:
        console.emit_json(result)
        return
    _print(result)


def _whole_models(datasets: list[Dataset], kind: str, as_json: bool) -> None:
    import json

    from irene_build import console
    from irene_build.errors import DatasetError
    from irene_build.files import write_text_atomic
    from irene_build.paths import hardware_dir
    from irene_build.train.law.device import sheet_of
    from irene_build.train.law.pooled import fitted, shared

    sheets = [sheet_of(dataset) for dataset in datasets]
    if len({sheet.name for sheet in sheets}) > 1:
        raise DatasetError(f"pool: {', '.join(sheet.name for sheet in sheets)} are devices of several kinds")
    found = shared({dataset.hardware: fitted(dataset) for dataset in datasets}, sheets[0])
    target = hardware_dir(kind) / "law_prior.json"
    result = {"format": "irene-law-prior", "version": 1, "device": sheets[0].name, "numbers": found}
    write_text_atomic(target, json.dumps(result, indent=1) + "\n")
    if as_json:
        console.emit_json({**result, "kind": kind, "file": str(target)})
        return
    hosts = [dataset.hardware for dataset in datasets]
    rows = [
        [name, *(f"{one['hosts'][h]:.3g}" if h in one["hosts"] else "-" for h in hosts),
         "-" if one["between"] is None else f"{one['between']:.2f}", f"{one['prior']:.3g}", f"{one['width']:.2f}"]
        for name, one in found.items() if one["hosts"]
    ]  # fmt: skip
    console.say(console.table(rows, ["number", *hosts, "differ by (log)", "next host", "+/- (log)"]))
    console.say(f"wrote {target}")
    console.note(f"next: irene-build train --hardware NEW --prior {kind}")


def _print(result: dict[str, Any]) -> None:
    from irene_build import console

    def row(name: str, numbers: dict[str, Any], errors: dict[str, Any] | None, *more: str) -> list[str]:
        ends = [f" +/- {errors[key]:.2g}" if errors else "" for key in ("loss", "watts", "curve")]
        cells = (f"{numbers['loss']:.4f}", f"{numbers['watts']:.2f}", f"{numbers['curve']:.2g}")
        return [name, *(cell + end for cell, end in zip(cells, ends, strict=True)), *more]

    off = result["left_out_percent"]
    rows = [
        row(h["hardware"], h, h["errors"], str(h["labels"]), f"{off[h['hardware']]:.2f}")
        for h in result["hosts"]
    ]
    rows.append(row("differ by", result["between"], None, "", ""))
    rows.append(row(result["kind"], result["mean"], result["deviation"], "", ""))
    heads = ["host", "loss", "watts (W)", "curve (1/W)", "labels", "error without its labels, %"]
    console.say(console.table(rows, heads))
    console.say(f"wrote {result['estimator']}")
    console.note(f"next: irene-build calibrate --from {result['kind']} --labels 8 --hardware NEW")
