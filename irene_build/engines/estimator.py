"""The estimator of a device that serves: its kernels' law, and the numbers that whole runs add; one JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset.serving import ServingRun
from irene_build.engines import aggregate
from irene_build.engines.kernel_fit import kernel_of
from irene_build.engines.stack import Layout, Stack, stack_of, trace_for
from irene_build.engines.step import class_of, cost
from irene_build.errors import EstimatorError, InputError
from irene_build.files import write_text_atomic

FORMAT, VERSION = "irene-kernels", 1
#: Kinds of runs whose errors differ -> logarithmic 90 % half width of joules and of time, where nothing was measured.
_UNKNOWN = {"plain": (0.30, 0.30), "experts": (0.50, 0.40), "state": (0.50, 0.40), "quantised": (0.60, 0.45)}
Report = Callable[[float], None]


def save(data: Mapping[str, Any], path: Path) -> None:
    write_text_atomic(path, json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n")


def load(path: Path) -> dict[str, Any]:
    """An estimator of kernels. Raises EstimatorError."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EstimatorError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise EstimatorError(f"{path} is no estimator of kernels and servers; `irene-build train` makes one")
    if data.get("version") != VERSION:
        raise EstimatorError(f"{path}: version {data.get('version')}; this program reads {VERSION}")
    return data


def is_kernels(path: Path) -> bool:
    """Whether ``path`` is such an estimator; reads no further than it must."""
    try:
        return f'"{FORMAT}"' in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


class Server:
    """A device's estimator at work: traces each model once, sums kernels, says joules and seconds."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.device: dict[str, Any] = data["device"]
        self.limit_w = float(self.device["power_limit_w"])
        self.kernel = kernel_of(self.device)
        self._trees: dict[str, Any] = {}
        self._stacks: dict[tuple[str, Layout], Stack] = {}

    @property
    def numbers(self) -> dict[str, float]:
        return {**aggregate.start(), **(self.data.get("serving") or {}).get("numbers", {})}

    def stack(self, model: str, layout: Layout) -> Stack:
        """The launches of ``model``; traced at the first call. Raises ModelError, InputError."""
        if (model, layout) not in self._stacks:
            from irene_build.models.specs import named

            name = named(model, quantised=True) or model
            if name not in self._trees:
                self._trees[name] = trace_for(name)
            self._stacks[model, layout] = stack_of(self._trees[name], layout)
        return self._stacks[model, layout]

    def sums(self, run: ServingRun, exact_prompt: bool = False) -> aggregate.RunSums:
        """What the kernels of ``run`` cost. Its prompt's length is that of its task, unless ``exact_prompt``."""
        stack = self.stack(run.model, Layout(run.gpus, run.ep, run.dp, run.weights))
        rate = run.batch / max(run.new, 1.0)
        some = max(1.0, rate)
        lengths = aggregate.GRID
        mixed = [cost(stack, self.kernel, run.batch, run.context, some, length) for length in lengths]
        task: str | float = run.prompt
        if not exact_prompt and f"prompt_{run.task}" in aggregate.PRIORS:
            task = run.task
        return aggregate.RunSums(
            cost(stack, self.kernel, run.batch, run.context), mixed, some, rate, run.batch, stack.vocabulary,
            run.gpus, task, run.weights, run.model, kind_of(stack) == "plain",
        )  # fmt: skip

    def all_sums(self, runs: Sequence[ServingRun], report: Report | None = None) -> aggregate.Sums:
        out = []
        for i, run in enumerate(runs):
            out.append(self.sums(run))
            if report:
                report((i + 1) / len(runs))
        return aggregate.Sums(out)

    def kinds(self, runs: Sequence[ServingRun]) -> np.ndarray:
        return np.array([kind_of(self.stack(r.model, Layout(r.gpus, r.ep, r.dp, r.weights))) for r in runs])

    def widths(self, kind: str, run: ServingRun | None = None) -> tuple[float, float]:
        """Logarithmic 90 % half widths of joules and of time a token; of ``run`` wider the farther it lies outside."""
        serving = self.data.get("serving") or {}
        joules, seconds = serving.get("widths", {}).get(kind, _UNKNOWN[kind])
        factor = 1.0 + (sum(self.outside(run).values()) if run else 0.0)
        return joules * factor, seconds * factor

    def outside(self, run: ServingRun) -> dict[str, float]:
        """How far, in natural logarithms, the batch or the context of ``run`` lies outside twice the measured range."""
        ranges = (self.data.get("serving") or {}).get("ranges", {})
        out = {}
        for name, value in (("batch", run.batch), ("context", run.context)):
            low, high = ranges.get(name, (value, value))
            away = max(np.log(low / max(value, 1e-9)), np.log(max(value, 1e-9) / high))
            if away > np.log(2.0):
                out[name] = float(away - np.log(2.0))
        return out


def kind_of(stack: Stack) -> str:
    """plain, experts, state (a recurrent state) or quantised: what its errors are like."""
    if stack.layout.weights in aggregate.QUANTISED:
        return "quantised"
    if any(x.kind == "memory" and x.shape[1] for x in stack.launches):
        return "state"
    return "experts" if any(x.kind == "experts" for x in stack.launches) else "plain"


def ranges_of(runs: Sequence[ServingRun]) -> dict[str, list[float]]:
    """Which batches and contexts (tokens that a step has cached, mean) were measured: ``[least, most]`` each."""
    return {
        name: [round(min(getattr(r, name) for r in runs), 3), round(max(getattr(r, name) for r in runs), 3)]
        for name in ("batch", "context")
    }


def joined(one: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The ranges that hold both."""
    return {k: [min(one[k][0], other[k][0]), max(one[k][1], other[k][1])] for k in one if k in other}


def labels_of(runs: Sequence[ServingRun]) -> np.ndarray:
    """float64[n, 3]: joules of a step over all GPUs, mean and median seconds of it."""
    return np.array([[r.energy_per_token_j * r.batch, r.step_s, r.itl_s] for r in runs])


def fit_serving(
    server: Server,
    runs: Sequence[ServingRun],
    around: Mapping[str, float] | None,
    report: Report | None = None,
) -> dict[str, Any]:
    """The file's part ``serving``: numbers, widths from models left out, and what they were trained on."""
    sums, labels = server.all_sums(runs, report), labels_of(runs)
    numbers = aggregate.fit(sums, labels, server.limit_w, around)
    models = sorted({r.model for r in runs})
    out: dict[str, Any] = {
        "numbers": numbers, "runs": len(runs), "models": models, "widths": {}, "ranges": ranges_of(runs),
        "boundary": "gpu boards, all GPUs of a run",
        "priors": "another device's runs" if around else "start values",
    }  # fmt: skip
    if len(models) > 2:
        left = aggregate.leave_models_out(sums, labels, server.limit_w, around)
        errors = log_errors(left, labels)
        kinds, runs_models = server.kinds(runs), np.array([r.model for r in runs])
        for kind in _UNKNOWN:
            own = np.abs(errors[kinds == kind])
            if len(own) >= 8:
                out["widths"][kind] = [
                    round(float(x), 4) for x in half_widths(own, runs_models[kinds == kind])
                ]
    return out


def half_widths(errors: np.ndarray, models: np.ndarray) -> np.ndarray:
    """float64[2]: logarithmic 90 % half widths from ``errors`` of models left out; wider, the fewer models there are.

    A new model differs from those seen as they do from each other: 1 + 1 / their number.
    """
    wide: np.ndarray = np.quantile(errors, 0.9, axis=0) * (1.0 + 1.0 / len(np.unique(models)))
    return wide


def log_errors(says: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """float64[n, 2]: logarithms of predicted over measured joules and median seconds."""
    out: np.ndarray = np.log(np.column_stack([says["energy_j"] / labels[:, 0], says["itl_s"] / labels[:, 2]]))
    return out


def request(
    server: Server, model: str, layout: Layout, batch: float, prompt: float, new: float
) -> dict[str, Any]:
    """Joules and seconds of requests of ``prompt`` + ``new`` tokens, ``batch`` in flight, with intervals and parts."""
    if batch <= 0 or prompt < 0 or new < 1:
        raise InputError("--batch and --new must be at least 1, --prompt at least 0")
    run = ServingRun("request", model, layout.weights, layout.gpus, layout.ep, layout.dp, batch, prompt, new,
                     prompt + new / 2.0, 1.0, 1.0, 1.0)  # fmt: skip
    sums = aggregate.Sums([server.sums(run, exact_prompt=True)])
    says = aggregate.step(sums, server.numbers, server.limit_w)
    stack = server.stack(model, layout)
    one = {name: float(values[0]) for name, values in says.items() if values.ndim == 1}
    token_j = one["energy_j"] / batch
    wide_j, wide_s = server.widths(kind_of(stack), run)
    prefill_j = one["prefill_j"] / batch * new
    return {
        "model": model, "engine": "vllm", "hardware": server.data["hardware"], "gpus": layout.gpus,
        "weights": layout.weights,
        "batch_size": batch, "prompt": prompt, "new": new, "outside": server.outside(run),
        "energy_per_token_j": token_j, "interval_j": [token_j * np.exp(-wide_j), token_j * np.exp(wide_j)],
        "energy_per_request_j": token_j * new, "prefill": {"energy_j": prefill_j},
        "decode": {"energy_j": max(0.0, token_j * new - prefill_j)},
        "itl_s": one["itl_s"], "interval_itl_s": [one["itl_s"] * np.exp(-wide_s), one["itl_s"] * np.exp(wide_s)],
        "step_s": one["step_s"], "tokens_per_s": batch / one["step_s"], "power_w": one["energy_j"] / one["step_s"],
        "parts": _parts(stack, server, run, says, one), "provenance": provenance(server),
    }  # fmt: skip


def _parts(
    stack: Stack, server: Server, run: ServingRun, says: Mapping[str, np.ndarray], one: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Joules a token of a decode step by module; sampling, gaps and the host in one leaf of their own, ``Host``."""
    nodes = stack.tree.nodes
    joules = np.zeros(len(nodes))
    reduce_j = 0.0
    numbers = server.numbers
    for launch, kind, dtype, shape in stack.at(run.batch, 1.0, run.context):
        joule = server.kernel(kind, dtype, tuple(round(float(x), 6) for x in shape))[1] * stack.layout.gpus
        joule *= numbers[f"energy_{class_of(launch, kind)}"]
        if kind == "all_reduce":
            reduce_j += joule * launch.count
            continue
        for node, share in launch.members:
            joules[node] += joule * share
    for i in range(len(nodes) - 1, 0, -1):
        joules[nodes[i].parent] += joules[i]
    known = joules[0] + reduce_j
    scale = one["kernels_j"] / known if known else 0.0
    depths = stack.tree.depths
    out = [
        {"scope": nodes[i].scope or "model", "type": nodes[i].type, "depth": depths[i],
         "energy_per_token_j": float(joules[i] * scale / run.batch)}
        for i in range(len(nodes)) if depths[i] <= 2 and joules[i] > 0
    ]  # fmt: skip
    if reduce_j:
        out.append(
            {
                "scope": "AllReduce",
                "type": "AllReduce",
                "depth": 1,
                "energy_per_token_j": reduce_j * scale / run.batch,
            }
        )
    host = (one["energy_j"] - one["prefill_j"] - one["kernels_j"]) / run.batch
    out.append({"scope": "Host", "type": "Host", "depth": 1, "energy_per_token_j": max(0.0, host)})
    out.append(
        {
            "scope": "Prefill",
            "type": "Prefill",
            "depth": 1,
            "energy_per_token_j": one["prefill_j"] / run.batch,
        }
    )
    return out


def provenance(server: Server) -> dict[str, str]:
    """What every output says of its numbers."""
    serving = server.data.get("serving")
    power = server.device["power"].get("provenance", "measured")
    step = str((serving or {}).get("priors", "estimated: start values, no run of any device"))
    if serving and serving["runs"]:
        step = f"measured: {serving['runs']} whole runs of {len(serving['models'])} models"
    return {
        "kernel_time": "measured (AIConfigurator)" if server.device["kernels"] else "datasheet",
        "kernel_power": f"{power} (from {server.data['power_from']})" if server.data.get("power_from") else power,
        "bytes_moved_by_norms_and_activations": "datasheet",
        "step": step,
        "boundary": "gpu boards",
    }  # fmt: skip
