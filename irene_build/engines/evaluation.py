"""How well a server's estimator says what it did not see: models left out, or runs of somebody else's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irene_build.dataset.serving import ServingRun
from irene_build.engines import aggregate
from irene_build.engines.estimator import _UNKNOWN, Report, Server, half_widths, labels_of, log_errors
from irene_build.engines.stack import Layout
from irene_build.engines.step import CLASSES
from irene_runtime.kernels import work


def against(server: Server, runs: Sequence[ServingRun], report: Report | None = None) -> dict[str, Any]:
    """Errors of the estimator as it is on ``runs`` that it never saw, and of the baselines fitted to none of them."""
    sums, labels = server.all_sums(runs, report), labels_of(runs)
    says = aggregate.step(sums, server.numbers, server.limit_w)
    kinds = server.kinds(runs)
    widths = np.array([server.widths(str(kind)) for kind in kinds])
    seen = set((server.data.get("serving") or {}).get("models", []))
    out = _result(server, runs, says, labels, widths, "against")
    out["runs_of_trained_models"] = sum(r.model in seen for r in runs)
    out["baselines"] = _baselines(server, runs, sums, labels, None)
    return out


def leave_models_out(
    server: Server,
    runs: Sequence[ServingRun],
    around: Mapping[str, float] | None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Each model's runs said by numbers, widths and baselines of the other models' alone."""
    sums, labels = server.all_sums(runs, report), labels_of(runs)
    says = aggregate.leave_models_out(sums, labels, server.limit_w, around)
    kinds, models = server.kinds(runs), np.array([r.model for r in runs])
    errors = np.abs(log_errors(says, labels))
    widths = np.zeros_like(errors)
    for model in np.unique(models):
        own = models == model
        for kind in np.unique(kinds[own]):
            rest = ~own & (kinds == kind)
            wide = np.array(_UNKNOWN[str(kind)])
            if rest.sum() >= 8:
                wide = half_widths(errors[rest], models[rest])
            widths[own & (kinds == kind)] = wide
    out = _result(server, runs, says, labels, widths, "model-out")
    out["baselines"] = _baselines(server, runs, sums, labels, models)
    return out


def _result(
    server: Server,
    runs: Sequence[ServingRun],
    says: Mapping[str, np.ndarray],
    labels: np.ndarray,
    widths: np.ndarray,
    protocol: str,
) -> dict[str, Any]:
    errors = log_errors(says, labels)
    kinds = server.kinds(runs)
    out: dict[str, Any] = {"hardware": server.data["hardware"], "protocol": protocol, **_both(errors, widths)}
    host = says["host_s"] > 0.8 * says["pure_s"]
    groups = {str(kind): kinds == kind for kind in np.unique(kinds)}
    groups["host_bound"] = host
    out["groups"] = {name: _both(errors[rows], widths[rows]) for name, rows in groups.items() if rows.any()}
    models = np.array([r.model for r in runs])
    out["models"] = {str(m): _both(errors[models == m], widths[models == m]) for m in np.unique(models)}
    worst = np.argsort(-np.abs(errors).max(1))[:8]
    out["worst"] = [_row(runs[i], says, labels, i) for i in worst]
    return out


def _both(errors: np.ndarray, widths: np.ndarray) -> dict[str, Any]:
    names = ("energy_per_token_j", "itl_s")
    return {name: metrics(errors[:, i], widths[:, i]) for i, name in enumerate(names)}


def metrics(errors: np.ndarray, widths: np.ndarray | None = None) -> dict[str, Any]:
    """mape, p50 and max in percent, coverage90 in percent (None without intervals), n; of logarithmic errors."""
    percent = 100.0 * np.abs(np.expm1(errors))
    cover = None if widths is None else round(100.0 * float((np.abs(errors) <= widths).mean()), 2)
    return {"mape": round(float(percent.mean()), 3), "p50": round(float(np.median(percent)), 3),
            "max": round(float(percent.max()), 3), "coverage90": cover, "n": len(errors)}  # fmt: skip


def _row(run: ServingRun, says: Mapping[str, np.ndarray], labels: np.ndarray, i: int) -> dict[str, Any]:
    """One bad row, and the part that is likeliest off: the largest share of what the error is about."""
    joules, seconds = says["class_j"][i], says["class_s"][i]
    wrong_j = float(np.log(says["energy_j"][i] / labels[i, 0]))
    wrong_s = float(np.log(says["itl_s"][i] / labels[i, 2]))
    if says["host_s"][i] > 0.8 * says["pure_s"][i] or (
        wrong_s < -0.25 and says["sampling_s"][i] > 0.2 * says["pure_s"][i]
    ):
        part = "host or sampling"
    elif abs(wrong_s) > abs(wrong_j):
        part = f"time of {CLASSES[int(np.argmax(seconds))]}"
    else:
        part = f"joules of {CLASSES[int(np.argmax(joules))]}"
    return {
        "where": run.where, "model": run.model, "batch": run.batch, "gpus": run.gpus, "part": part,
        "energy_per_token_j": [float(says["energy_j"][i] / run.batch), run.energy_per_token_j],
        "itl_s": [float(says["itl_s"][i]), run.itl_s],
    }  # fmt: skip


def _baselines(
    server: Server,
    runs: Sequence[ServingRun],
    sums: aggregate.Sums,
    labels: np.ndarray,
    models: np.ndarray | None,
) -> dict[str, Any]:
    """Joules a token by simple formulas, fitted like ours: to the other models where models are left out.

    Against runs of others nothing is fitted: published constants (EcoLogits'), the datasheet's peak, the board's limit.
    """
    flops, weights = np.zeros(len(runs)), np.zeros(len(runs))
    for i, run in enumerate(runs):
        stack = server.stack(run.model, Layout(run.gpus, run.ep, run.dp, run.weights))
        for launch, kind, dtype, shape in stack.at(1.0, 1.0, run.context):
            flop, _, data = work(np, kind, dtype, [float(x) for x in shape])
            flops[i] += float(flop) * launch.count * run.gpus
            weights[i] += float(data) * launch.count * run.gpus
    batch = np.array([r.batch for r in runs])
    gpus = np.array([float(r.gpus) for r in runs])
    truth = np.log(labels[:, 0] / batch)
    power = server.limit_w * gpus
    active = flops / 2.0
    kernels_s = sums.pure_t.sum(1)
    near = np.log(sums.pure_e.sum(1) * gpus / batch)
    forms = {
        # EcoLogits: kWh a token = 8.91e-8 x billions of active parameters + 1.43e-6, whatever the batch
        "active_parameters": np.log((8.91e-8 * active / 1e9 + 1.43e-6) * 3600.0 * 1e3),
        "flops_x_constant": np.log(flops / server.device["peak_flops_per_s"]["bfloat16"] * server.limit_w * 2.0),
        "latency_x_constant_power": np.log(np.array([r.itl_s for r in runs]) * 0.7 * power / batch),
        "kernels_alone": near, "kernel_latency_x_limit": np.log(kernels_s * power / batch),
    }  # fmt: skip
    out = {}
    for name, says in forms.items():
        errors = says - truth
        if models is not None:
            errors = errors - np.array(
                [np.median(errors[models != m]) if (models != m).any() else 0.0 for m in models]
            )
        out[name] = metrics(errors)
    return out
