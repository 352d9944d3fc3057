"""`irene-build import irene|table|aiconfigurator|kernels|serving`: measurements of others as a dataset of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from irene_build.commands import _gpus

if TYPE_CHECKING:
    from irene_build.dataset.table import Dataset

app = typer.Typer(help="Import measurements: the published IrEne dataset, or a table of whole models.")

app.command("aiconfigurator")(_gpus.aiconfigurator)
app.command("kernels")(_gpus.kernels)
app.command("serving")(_gpus.serving)

_HARDWARE = typer.Option(..., "--hardware", help="Name of the PC that was measured; any name will do.")
_FORCE = typer.Option(False, "--force", help="Replace another dataset of this hardware.")
_JSON = typer.Option(False, "--json", help="Print the result as JSON.")


@app.command("irene")
def irene(
    path: Path = typer.Argument(..., metavar="PATH", help="Folder of the four CSV files, or the JSONL file."),
    hardware: str = _HARDWARE,
    force: bool = _FORCE,
    as_json: bool = _JSON,
) -> None:
    """Import the published IrEne measurements (github.com/StonyBrookNLP/irene, datasets/device_N)."""
    from irene_build import console
    from irene_build.dataset.as_run import RAN_ON, as_run
    from irene_build.dataset.irene import read
    from irene_build.dataset.join import join_all
    from irene_build.trace import trace

    published = read(path)
    digest = _digest([*published.trees, RAN_ON])
    target = _target(hardware)
    if not _already_there(target, digest, force):
        with console.Progress(len(published.trees), "tracing", quiet=as_json) as progress:
            dataset, _ = join_all(
                hardware,
                published.trees,
                lambda model, batch, length: as_run(trace(model, batch, length, attention="eager")),
                progress.update,
            )
        dataset.info.update(
            source_digest=digest,
            rows=published.rows,
            dropped=published.dropped,
            traced_by=_tracer(dataset),
            ran_on=RAN_ON,
        )
        _save(dataset, target)
    _report(target, as_json)


@app.command("table")
def table(
    path: Path = typer.Argument(
        ...,
        metavar="FILE.csv",
        help="Columns model or config, batch_size, seq_len, "
        "energy_j, and what else is known: phase, past_len, dtype, attention, "
        "weights, freq (MHz asked for), power_limit_w, gpu, latency_s, gpu_energy_j, resource features of "
        "Table 1 by their names.",
    ),
    hardware: str = _HARDWARE,
    boundary: str = typer.Option("wall", "--boundary", help="What the joules cover: wall, gpu, ..."),
    meter: str = typer.Option(
        "table", "--meter", help="What gave the joules. With nvml, gpu_energy_j is the label and no feature."
    ),
    provenance: str = typer.Option(
        "measured", "--provenance", help="measured, integrated, estimated, simulated."
    ),
    device: str = typer.Option(
        "", "--device", help="The GPU that was measured (irene-build devices); default: by --hardware's name."
    ),
    keep_implausible: bool = typer.Option(
        False, "--keep-implausible", help="Train on runs that look failed as well."
    ),
    factory: list[str] = typer.Option(
        [],
        "--factory",
        help="A package.module:factory that the table may name (repeatable): its code is run.",
    ),
    force: bool = _FORCE,
    as_json: bool = _JSON,
) -> None:
    """Import a table of whole-model measurements; estimators then learn from root labels alone."""
    from irene_build import console
    from irene_build.dataset import whole_models
    from irene_build.dataset.table import PROVENANCES
    from irene_build.engines.quantised import launched
    from irene_build.errors import InputError
    from irene_build.hardware.datasheets import datasheet
    from irene_build.received import refuse_factories
    from irene_build.trace import trace
    from irene_build.train.law import failed

    if provenance not in PROVENANCES:
        raise InputError(f"--provenance {provenance!r}: expected one of {', '.join(PROVENANCES)}")
    if not boundary or not meter:
        raise InputError("--boundary and --meter must not be empty")
    device = datasheet(device).name if device else whole_models.device(path)
    rows, unused = whole_models.read(path)
    refuse_factories([row.run.spec for row in rows], str(path), factory, "--factory")
    digest = _digest([(row.name, row.run, row.energy_j, row.resources.tobytes()) for row in rows]
                     + [boundary, provenance, meter, device, keep_implausible])  # fmt: skip
    target = _target(hardware)
    if not _already_there(target, digest, force):
        with console.Progress(len(rows), "tracing", quiet=as_json) as progress:
            dataset, _ = whole_models.build(
                rows,
                hardware,
                lambda run: launched(
                    trace(
                        run.spec,
                        run.batch_size,
                        run.seq_len,
                        phase=run.phase,
                        past_len=run.past_len,
                        dtype=run.dtype,
                        attention=run.attention,
                        weights=run.weights or None,
                    )
                ),
                boundary,
                provenance,
                meter,
                progress.update,
            )
        dataset.info.update(source_digest=digest, unused_columns=unused, traced_by=_tracer(dataset))
        dataset.info.update({"device": device} if device else {})
        where = dataset.info["rows_of"]
        found = {key: {"row": where[key], "reason": why} for key, why in failed.find(dataset).items()}
        dataset.info["implausible"] = {} if keep_implausible else {**found, **dataset.info["implausible"]}
        _save(dataset, target)
    _report(target, as_json)


def _target(hardware: str) -> Path:
    from irene_build.paths import hardware_dir

    return hardware_dir(hardware) / "campaign.sqlite"


def _digest(content: list[Any]) -> str:
    """SHA-256 of what was read: values, not bytes, so that CSV and line endings do not matter."""
    from hashlib import sha256

    from irene_build.dataset.table import LabelledTree

    total = sha256()
    for item in content:
        if isinstance(item, LabelledTree):
            total.update(item.tree.dumps().encode())
            total.update(item.energy_j.tobytes() + item.resources.tobytes() + item.measurement.tobytes())
        else:
            total.update(repr(item).encode())
    return total.hexdigest()


def _already_there(target: Path, digest: str, force: bool) -> bool:
    """Whether the target holds this very import. Raises InputError where it holds something else."""
    import sqlite3
    from contextlib import closing

    from irene_build import console
    from irene_build.dataset.store import load_dataset
    from irene_build.errors import InputError

    if not target.is_file():
        return False
    try:
        held = load_dataset(target).info
    except InputError as error:
        with closing(sqlite3.connect(f"{target.resolve().as_uri()}?mode=ro", uri=True)) as database:
            try:
                empty = not database.execute("SELECT 1 FROM sqlite_master").fetchone()
            except sqlite3.DatabaseError:
                empty = False
        if empty or force:
            return False
        raise InputError(f"{target} is in use: {error}; take another --hardware, or --force") from None
    if held.get("source_digest") == digest:
        console.note(f"{target} holds these measurements already; nothing was changed")
        return True
    if not force:
        raise InputError(
            f"{target} holds another dataset ({held.get('source') or 'a campaign of your own'}): take "
            "another --hardware, or --force to replace it"
        )
    return False


def _tracer(dataset: Dataset) -> Any:
    return dataset.trees[0].tree.header["traced_by"]


def _save(dataset: Dataset, target: Path) -> None:
    from irene_build.dataset.store import save_dataset

    save_dataset(dataset, target)


def _report(target: Path, as_json: bool) -> None:
    """What the stored dataset holds, and what was dropped and why."""
    from irene_build import console
    from irene_build.dataset.store import load_dataset

    dataset = load_dataset(target)
    info = dataset.info
    levels: dict[str, list[int]] = {"ml": [], "module": [], "model": []}
    for tree in dataset.trees:
        for node, number in zip(tree.tree.nodes, tree.measurement.tolist(), strict=True):
            if number >= 0:
                levels[node.level].append(number)
    result = {
        "hardware": dataset.hardware, "file": str(target), "boundary": dataset.boundary,
        "provenance": dataset.provenance, "label_source": dataset.label_source, "models": dataset.models,
        "trees": len(dataset.trees),
        "labels": {level: {"nodes": len(n), "measurements": len(set(n))} for level, n in levels.items()},
        "dropped": info.get("dropped", {}), "rows_without_node": info.get("rows_without_node", {}),
        "nodes_without_row": info.get("nodes_without_row", {}),
        "labels_of_other_shapes": info.get("labels_of_other_shapes", 0),
        "ran_on": info.get("ran_on"),
        "unused_columns": info.get("unused_columns", []), "device": info.get("device"),
        "implausible": list(info.get("implausible", {}).values()), "far_apart": info.get("far_apart", []),
    }  # fmt: skip
    if as_json:
        console.emit_json(result)
        return
    total = sum(len(n) for n in levels.values())
    console.say(
        f"took {total} labels of {len(dataset.trees)} trees, {len(dataset.models)} models, into {target}"
    )
    rows = [(level, len(n), len(set(n))) for level, n in levels.items()]
    console.say(console.table(rows, ("level", "nodes", "measurements")))
    if total > sum(len(set(n)) for n in levels.values()):
        console.say("the other nodes are copies: one measurement stands for all equal nodes of a run")
    if result["labels_of_other_shapes"]:
        console.say(
            f"{result['labels_of_other_shapes']} of them are of another shape than their measurement: hints, no labels"
        )
    if result["ran_on"]:
        console.say(f"modules' own operations are those of {result['ran_on']}, which the authors ran")
    for reason, count in result["dropped"].items():
        console.say(f"dropped {count} {reason}")
    for reason, count in result["rows_without_node"].items():
        console.say(f"dropped {count} rows that have no node in the traced tree: {reason}")
    for run in result["implausible"]:
        console.say(f"implausible, kept and not trained on: {run['row']}: {run['reason']}")
    for text in result["far_apart"]:
        console.say(f"far apart: {text}")
    for column in result["unused_columns"]:
        console.say(f"column {column!r} is not used")
    if result["nodes_without_row"]:
        without = ", ".join(f"{count} {kind}" for kind, count in sorted(result["nodes_without_row"].items()))
        console.say(f"nodes without a label of their own: {without} (traced; a module's own operations)")
    if info.get("labels") == "model":
        console.say("labels at whole models only: the nodes below are inferred, their intervals say so")
