"""What `import`, `train`, `evaluate` and `predict` say of kernels and servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from irene_build import console

_HARDWARE = typer.Option(..., "--hardware", help="Name of the GPU that was measured; any name will do.")
_JSON = typer.Option(False, "--json", help="Print the result as JSON.")
_POWER = typer.Option(
    None, "--power-from", metavar="NAME", help="Whose power law says the joules of rows without watts."
)


def aiconfigurator(
    path: Path = typer.Argument(
        ..., metavar="PATH", help="A checkout of aiconfigurator, or its package's folder."
    ),
    system: str = typer.Option(..., "--system", help="Its name of the device, as h200_sxm."),
    framework: str = typer.Option("vllm", "--framework", help="Whose kernels: vllm, sglang, trtllm."),
    version: str | None = typer.Option(
        None, "--version", help="Of the framework (default: each table's newest)."
    ),
    hardware: str = _HARDWARE,
    power_from: str | None = _POWER,
    as_json: bool = _JSON,
) -> None:
    """Import AIConfigurator's measured kernels (github.com/ai-dynamo/aiconfigurator): time, and power if there."""
    from irene_build.dataset.aiconfigurator import read

    _keep(read(path, system, framework, version), hardware, power_from, as_json)


def kernels(
    path: Path = typer.Argument(
        ...,
        metavar="FILE",
        help="CSV or Parquet: primitive, dtype, its shape by name, latency_s, energy_j or power_w.",
    ),
    hardware: str = _HARDWARE,
    device: str = typer.Option(
        "", "--device", help="Datasheet of the device (default: the hardware's name)."
    ),
    power_from: str | None = _POWER,
    as_json: bool = _JSON,
) -> None:
    """Import measured kernels of one's own."""
    from irene_build.dataset.aiconfigurator import plain_device
    from irene_build.dataset.kernels import PROVENANCE, KernelTable, read_generic
    from irene_build.hardware.datasheets import datasheet

    info = {"source": path.name, "file": path.name, "provenance": PROVENANCE, "boundary": "gpu board",
            "device": plain_device(datasheet(device or hardware))}  # fmt: skip
    _keep(KernelTable(read_generic(path), info), hardware, power_from, as_json)


def serving(
    path: Path = typer.Argument(
        ..., metavar="FILE.csv", help="One line a run, columns as in docs/servers.md."
    ),
    hardware: str = _HARDWARE,
    as_json: bool = _JSON,
) -> None:
    """Import whole runs of a server: joules a token, time a token, batch."""
    from irene_build.dataset.serving import FILE, read, save
    from irene_build.paths import hardware_dir

    runs = read(path)
    target = hardware_dir(hardware) / FILE
    save(runs, target)
    models = sorted({run.model for run in runs})
    result = {"hardware": hardware, "file": str(target), "runs": len(runs), "models": models}
    if as_json:
        console.emit_json(result)
    else:
        console.say(f"imported {len(runs)} runs of {len(models)} models; wrote {target}")


def _keep(table: Any, hardware: str, power_from: str | None, as_json: bool) -> None:
    from irene_build.dataset.kernels import FILE, save
    from irene_build.paths import hardware_dir

    if power_from:
        table.info["power_from"] = power_from
    target = hardware_dir(hardware) / FILE
    save(table, target)
    kinds: dict[str, int] = {}
    for group in table.groups:
        kinds[group.kind] = kinds.get(group.kind, 0) + len(group.latency_s)
    result = {
        "hardware": hardware, "file": str(target), "rows": table.rows, "with_power": table.powered, "kinds": kinds,
        "power_from": power_from, "tables": table.info.get("tables", {}), "provenance": table.info["provenance"],
    }  # fmt: skip
    if as_json:
        console.emit_json(result)
        return
    console.say(f"imported {table.rows} kernels, {table.powered} of them with power; wrote {target}")
    console.say(console.table([(k, str(n)) for k, n in sorted(kinds.items())], ("kind", "rows")))
    if not table.powered:
        source = (
            f"carried from {power_from}"
            if power_from
            else "missing: --power-from NAME carries another's power law"
        )
        console.note(f"no row has power; joules are {source}")


def train(hardware: str, as_json: bool) -> None:
    """`train` where kernels or serving runs were imported."""
    from irene_build.engines import build, estimator
    from irene_build.paths import hardware_dir

    with console.Progress(1.0, "fitting", quiet=as_json) as progress:
        data = build.train(hardware, progress.update)
    target = hardware_dir(hardware) / "estimator.json"
    estimator.save(data, target)
    about = estimator.provenance(estimator.Server(data))
    served = data["serving"] or {}
    result = {"hardware": hardware, "method": "kernels", "file": str(target), "provenance": about,
              "kernels": len(data["device"]["kernels"]),
              "runs": served.get("runs", 0), "priors": served.get("priors")}  # fmt: skip
    if as_json:
        console.emit_json(result)
        return
    console.say(
        f"trained {len(data['device']['kernels'])} kernel laws and {served.get('runs', 0)} runs; wrote {target}"
    )
    console.say(console.table(list(about.items()), ("what", "provenance")))


def export(path: Path, out: Path, as_json: bool) -> None:
    """`export` of an estimator of kernels: its file, and what it is good for. It holds numbers, no program."""
    from irene_build.engines import estimator
    from irene_build.files import write_text_atomic

    data = estimator.load(path)
    about = estimator.provenance(estimator.Server(data))
    estimator.save(data, out / "estimator.json")
    lines = [f"# Estimator of kernels and servers: {data['hardware']}", ""]
    lines += [f"- {name}: {text}" for name, text in about.items()]
    lines += [
        "",
        f"    irene-build predict {out.name} Llama-3.1-8B --engine vllm --batch 32 --prompt 100 --new 400",
        "",
    ]
    write_text_atomic(out / "README.md", "\n".join(lines))
    sizes = {file.name: file.stat().st_size for file in (out / "estimator.json", out / "README.md")}
    if as_json:
        console.emit_json({"folder": str(out), "estimator": str(path), "files": sizes, "provenance": about})
        return
    console.say(f"{out}: kernels and servers of {data['hardware']}; {about['step']}")
    console.say(console.table([[name, f"{size / 1000:.1f} KB"] for name, size in sizes.items()]))


def evaluate(hardware: str, against: Path | None, as_json: bool) -> None:
    """`evaluate` of a server's estimator: models and shapes left out, or a file of somebody else."""
    import json

    from irene_build.engines import build
    from irene_build.files import write_text_atomic
    from irene_build.paths import hardware_dir

    with console.Progress(1.0, "evaluating", quiet=as_json) as progress:
        if against is not None:
            result = build.against(hardware, against, progress.update)
        else:
            result = build.evaluate(hardware, progress.update)
            target = hardware_dir(hardware) / "evaluation.json"
            write_text_atomic(target, json.dumps(result, sort_keys=True, allow_nan=False) + "\n")
    if as_json:
        console.emit_json(result)
    else:
        _say(result)


def _say(result: dict[str, Any]) -> None:
    if "energy_per_token_j" in result:
        rows = [_line(name, result[name]) for name in ("energy_per_token_j", "itl_s")]
        for group, found in result["groups"].items():
            rows += [_line(f"  {group}: {name}", found[name]) for name in ("energy_per_token_j", "itl_s")]
        rows += [_line(f"baseline: {name}", found) for name, found in result["baselines"].items()]
        console.say(f"{result['hardware']}, {result['protocol']}: errors in percent")
        console.say(console.table(rows, ("what", "mean", "median", "max", "in 90 %", "runs")))
        console.say("worst:")
        both = "energy_per_token_j"
        worst = [(row["where"], row["model"], f"{row['batch']:.0f}", row["part"],
                  f"{row[both][0]:.3g} for {row[both][1]:.3g} J") for row in result["worst"]]  # fmt: skip
        console.say(console.table(worst, ("where", "model", "batch", "part that is off", "joules a token")))
    if "kernels" in result:
        rows = []
        for kind, found in result["kernels"].items():
            for name in ("time", "energy", "nearest_time", "nearest_energy", "constant_power_energy"):
                if name in found:
                    rows.append(
                        (
                            kind,
                            name,
                            f"{found[name]['p50']:.1f}",
                            f"{found[name]['mape']:.1f}",
                            str(found["n"]),
                        )
                    )
        console.say("kernels of shapes left out: errors in percent")
        console.say(console.table(rows, ("kind", "what", "median", "mean", "kernels")))


def _line(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    cover = "" if found["coverage90"] is None else f"{found['coverage90']:.0f}"
    return (
        name,
        f"{found['mape']:.1f}",
        f"{found['p50']:.1f}",
        f"{found['max']:.0f}",
        cover,
        str(found["n"]),
    )
