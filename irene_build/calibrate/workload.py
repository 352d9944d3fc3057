"""What `calibrate` puts together: tracer and replay (trace), meter and campaign (measure), fit (train)."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build.errors import InputError

if TYPE_CHECKING:
    from irene_build.dataset.table import Dataset
    from irene_build.hardware import HardwareProfile
    from irene_build.measure.plan import Target
    from irene_build.meters.base import Meter

#: Captured models may fill this share of the memory that is free when a campaign starts.
MEMORY_SHARE = 0.4
#: Miniatures of BERT at small sizes: four widths, two depths, and the primitives of BERT-base at 8 x 128.
SMALL_PLAN = (
    ("bert_uncased_L-2_H-128_A-2", "8x32", "all"),
    ("bert_uncased_L-4_H-128_A-2", "8x32", "all"),
    ("bert_uncased_L-2_H-256_A-4", "4x64", "all"),
    ("bert_uncased_L-4_H-256_A-4", "4x64", "all"),
    ("bert_uncased_L-2_H-512_A-8", "1x128", "all"),
    ("bert_uncased_L-2_H-768_A-12", "8x128", "leaves"),
)
SMALL_GRID = ("2x32", "8x64", "4x128", "16x32")
SMALL_MODELS = (
    "bert_uncased_L-2_H-128_A-2", "bert_uncased_L-4_H-256_A-4", "bert_uncased_L-4_H-512_A-8",
    "bert_uncased_L-2_H-768_A-12",
)  # fmt: skip
PAPER_MODELS = (
    "bert-base-uncased", "roberta-base", "distilbert-base-uncased", "gpt2", "distilgpt2", "openai-gpt",
)  # fmt: skip
PAPER_GRID = ("8x32", "8x128", "16x64", "16x256", "24x128", "32x64", "32x512")


def parse_seconds(text: str) -> float:
    """``90``, ``90s``, ``30m``, ``1h`` as seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    if not match or float(match[1]) <= 0.0:
        raise InputError(f"time {text!r}: write it as 90s, 30m or 1h")
    return float(match[1]) * {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}[match[2] or "s"]


def parse_grid(text: str) -> list[tuple[int, int]]:
    """``8x32,16x64`` as (batch size, sequence length) pairs."""
    cells = [cell.strip() for cell in text.split(",") if cell.strip()]
    if not cells:
        raise InputError("the grid is empty: write batch x length pairs, as in --grid 8x32,16x64")
    found = []
    for cell in cells:
        match = re.fullmatch(r"(\d{1,7})[xX×](\d{1,7})", cell)
        if not match or not int(match[1]) or not int(match[2]):
            raise InputError(f"grid {cell!r}: write batch x length, both at least 1, as in --grid 8x32,16x64")
        found.append((int(match[1]), int(match[2])))
    return found


def read_plan_file(path: Path) -> list[Target]:
    """Targets of a TOML file: ``[[target]]`` tables with model, grid and any other field of ``Target``."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    from irene_build.measure.plan import Target

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"plan {path}: {error}") from None
    tables = data.get("target")
    if not isinstance(tables, list) or not tables:
        raise InputError(f"plan {path}: expected [[target]] tables with model = ... and grid = ...")
    known = {"model", "phase", "past_len", "dtype", "attention", "parts"}
    targets = []
    for number, table in enumerate(tables, 1):
        unknown = sorted(set(table) - known - {"grid"})
        if unknown or not isinstance(table.get("model"), str) or not isinstance(table.get("grid"), str):
            what = f"unknown {', '.join(unknown)}" if unknown else "model and grid must be text"
            raise InputError(
                f"plan {path}, target {number}: {what}; known are grid, {', '.join(sorted(known))}"
            )
        fields = {key: table[key] for key in known if key in table}
        targets += [Target(batch_size=b, seq_len=s, **fields) for b, s in parse_grid(table["grid"])]
    return targets


def default_targets(device: str, budget_s: float | None, models: Sequence[str], grid: str) -> list[Target]:
    """Targets where none, or only models or only a grid, were named."""
    from irene_build.measure.plan import Target

    gpu = device != "cpu"
    if models or grid:
        chosen = list(models) or list(PAPER_MODELS if gpu else SMALL_MODELS)
        sizes = parse_grid(grid or ",".join(PAPER_GRID if gpu else SMALL_GRID))
        return [Target(model, b, s) for model in chosen for b, s in sizes]
    if gpu:
        return [Target(m, b, s) for m in PAPER_MODELS for b, s in parse_grid(",".join(PAPER_GRID))]
    targets = [Target(m, *parse_grid(size)[0], parts=parts) for m, size, parts in SMALL_PLAN]
    if budget_s is None or budget_s > 600.0:
        targets += [Target(m, b, s) for m in SMALL_MODELS for b, s in parse_grid(",".join(SMALL_GRID))]
    return targets


def trace_target(target: Target) -> tuple[Any, list[str | None]]:
    """The tree of a target and the work keys of its nodes."""
    from irene_build.trace import trace
    from irene_build.trace.keys import work_keys

    tree = trace(**_settings(target))
    return tree, list(work_keys(tree))


def _settings(target: Target) -> dict[str, Any]:
    fields = asdict(target)
    fields.pop("parts")
    return fields


class ReplayWorkload:
    """Nodes captured from one real forward pass of each target, kept while memory lasts."""

    def __init__(self, device: str, free_bytes: int) -> None:
        self._device, self._room = device, MEMORY_SHARE * free_bytes
        self._kept: OrderedDict[Target, Any] = OrderedDict()

    def holds(self, sizes: Sequence[int]) -> bool:
        """Do models of these sizes (bytes) fit at the same time?"""
        return sum(sizes) <= self._room

    def runner(self, target: Target, node: int, wanted: list[int]) -> Callable[[], None]:
        """A callable that runs the node once on the device."""
        captured = self._kept.get(target)
        if captured is None or node not in captured.runners:
            captured = self._capture(target, wanted)
        self._kept.move_to_end(target)
        if node not in captured.runners:
            raise RuntimeError("the forward pass on this device did not reach it")
        runner: Callable[[], None] = captured.runners[node]
        return runner

    def _capture(self, target: Target, wanted: list[int]) -> Any:
        from irene_build.trace.replay import capture

        self._kept.pop(target, None)
        while self._kept and not self.holds([self._bytes(t) for t in (*self._kept, target)]):
            self._kept.popitem(last=False)
        captured = capture(**_settings(target), device=self._device, only=wanted)
        self._kept[target] = captured
        return captured

    def _bytes(self, target: Target) -> int:
        from irene_build.measure.plan import memory_bytes

        kept = self._kept.get(target)
        return 0 if kept is None else memory_bytes(kept.tree)


def free_bytes(device: str) -> int:
    """Memory that captured models can use on the device."""
    if device != "cpu":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 << 30


def choose_hardware(hardware: str, listen_s: float = 6.0) -> tuple[HardwareProfile, list[str]]:
    """The profile that was asked for, else one around the best real meter, else the simulated PC."""
    from irene_build.hardware import load_profile
    from irene_build.meters import best_profile

    if hardware:
        return load_profile(hardware), []
    profile, findings = best_profile(listen_s)
    return profile, [f"{f.name}: {f.reason}" for f in findings if not f.available]


def idle_noise(meter: Meter) -> tuple[float, float]:
    """(standard deviation, mean) of ten idle readings, W; a counter's steps are not noise."""
    import time
    from statistics import fmean, pstdev

    values: list[float] = []
    deadline = time.monotonic() + min(15.0, max(3.0, 12.0 * meter.info.period_s))
    while len(values) < 10 and time.monotonic() < deadline:
        values += [reading.value for reading in meter.read_new(0.25)]
    if meter.info.kind == "energy" or len(values) < 3:
        return 0.0, 0.0
    # Other work only adds, so the quieter half is nearer to the meter's own noise.
    values.sort()
    half = values[: max(3, len(values) // 2)]
    return pstdev(half), fmean(half)


def fingerprint(profile: HardwareProfile) -> dict[str, str]:
    """What tells this PC from another, as the runtime will ask for it."""
    from irene_runtime.monitor import machine_fingerprint
    from irene_runtime.sampler import Sampler

    with_gpu = Sampler().open()
    try:
        return {**machine_fingerprint(with_gpu.gpu_name), "profile": profile.name}
    finally:
        with_gpu.close()


def torch_threads() -> int:
    """Threads that torch computes with."""
    import torch

    return int(torch.get_num_threads())


def fit(
    dataset: Dataset, method: str, origin: str, seed: int
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The estimator of a campaign, with its errors on models left out where there are several.

    With ``origin`` it is carried over from that hardware's estimator by the labels of the campaign, and
    ``transfer_errors`` come with it; else nothing does.
    """
    from irene_build.train import api

    if origin:
        from irene_build.paths import find_artifact
        from irene_build.train.transfer import carry_over

        source = api.load(find_artifact(origin, "estimator.json"))
        carried: dict[str, Any] = carry_over(source, dataset)
        return carried, transfer_errors(source, dataset)
    estimator = api.fit(dataset, method=method, seed=seed)
    if len(dataset.models) > 1:
        from irene_build.evaluate.run import evaluate, summary

        found = evaluate(dataset, method, tiers=tuple(estimator["tiers"]), seed=seed, baselines=False)
        estimator["evaluation"] = summary(found)
    return estimator, {}


def transfer_errors(source: Mapping[str, Any], dataset: Dataset) -> dict[str, dict[str, float]]:
    """Per tier, mean error of an estimator of another PC on the labels of this one, %.

    ``no_label``: as it came. ``carried``: carried over by all labels but the one that it is asked for, in turn
    (from two labels on). ``labels``: how many there are. The live tier is left out: it reads the root's run,
    which few labels need not hold.
    """
    from irene_build.train.transfer import carry_over

    labels = sorted({int(m) for tree in dataset.trees for m in tree.measurement if m >= 0})
    result: dict[str, dict[str, float]] = {}
    others = {m: carry_over(source, _without(dataset, m)) for m in labels} if len(labels) > 1 else {}
    for tier in ("static", "profile"):
        if tier not in source["tiers"]:
            continue
        found = {
            "labels": float(len(labels)),
            "no_label": _mean_error(dict.fromkeys(labels, source), dataset, tier),
        }
        if others:
            found["carried"] = _mean_error(others, dataset, tier)
        result[tier] = found
    return result


def _without(dataset: Dataset, measurement: int) -> Dataset:
    """The same nodes and readings with one label hidden."""
    import numpy as np

    trees = []
    for tree in dataset.trees:
        hidden = tree.measurement == measurement
        energy, own = np.where(hidden, np.nan, tree.energy_j), np.where(hidden, -1, tree.measurement)
        trees.append(replace(tree, energy_j=energy, measurement=own))
    return replace(dataset, trees=trees)


def _mean_error(estimators: Mapping[int, Mapping[str, Any]], dataset: Dataset, tier: str) -> float:
    """Mean over measurements of |prediction / label - 1|, %, each by its own estimator."""
    from statistics import fmean

    from irene_build.train import arithmetic

    errors = {}
    for tree in dataset.trees:
        predicted: dict[int, Any] = {}
        for node, measurement in enumerate(tree.measurement):
            if measurement < 0 or measurement in errors:
                continue
            estimator = estimators[int(measurement)]
            if id(estimator) not in predicted:
                predicted[id(estimator)] = arithmetic.predict(estimator, [tree], tier)[0].energy_j
            errors[measurement] = abs(predicted[id(estimator)][node] / tree.energy_j[node] - 1.0)
    return 100.0 * float(fmean(errors.values()))
