"""Reads whole runs of servers: joules a token, time a token, batch; sums over all GPUs of a run.

Columns as in the ML.ENERGY benchmark's LLM runs: model (a name on the hub, or of ours), weight_dtype, num_gpus,
expert_parallel, data_parallel, avg_batch_size, avg_output_tokens, output_tokens_sq_over_mean, energy_per_token_j,
output_tokens_per_s, median_itl_ms; task or prompt_tokens. Prompts that are not said: chat 100, code 600, GPQA 300.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from irene_build.dataset.rows import read_csv
from irene_build.errors import DatasetError, ModelError
from irene_build.files import write_text_atomic

FILE = "serving.json"
PROMPTS = {"lm-arena-chat": 100.0, "sourcegraph-fim": 600.0, "gpqa": 300.0}
#: No GPU board of today draws more (GB300: 1,400 W); and how far the file's own mean power may be from the joules a
#: token times the tokens a second.
MOST_W, POWER_TOLERANCE = 2000.0, 0.05
_NEEDED = ("model", "avg_batch_size", "avg_output_tokens", "energy_per_token_j", "output_tokens_per_s")


@dataclass(frozen=True)
class ServingRun:
    """One run. ``context``: mean tokens in the cache of a decode step. Labels are sums over the GPUs."""

    where: str
    model: str
    weights: str
    gpus: int
    ep: int
    dp: int
    batch: float
    prompt: float
    new: float
    context: float
    energy_per_token_j: float
    tokens_per_s: float
    itl_s: float
    task: str = ""

    @property
    def step_s(self) -> float:
        """Mean seconds of a step: every request in flight gets a token in it."""
        return self.batch / self.tokens_per_s


def read(path: Path) -> list[ServingRun]:
    """The runs of a CSV file. Raises DatasetError that names the file and the line."""
    return [_run(row.where, row.cells) for row in read_csv(path, _NEEDED)]


def is_serving(path: Path) -> bool:
    """Whether the first line of ``path`` is that of a serving file."""
    try:
        with path.open(encoding="utf-8") as file:
            return {"energy_per_token_j", "avg_batch_size"} <= set(file.readline().strip().split(","))
    except (OSError, UnicodeDecodeError):
        return False


def _run(where: str, row: Mapping[str, str]) -> ServingRun:
    from irene_build.models.specs import named, resolve

    def number(name: str, default: float | None = None) -> float:
        text = (row.get(name) or "").strip()
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0.0 < value < math.inf:
            raise DatasetError(f"{where}: {name} is {text!r}, expected a number above 0")
        return value

    model = row["model"]
    try:
        if named(model, quantised=True) is None:
            resolve(model)
    except ModelError as error:
        raise DatasetError(
            f"{where}: unknown model {model!r} ({error}); put the path of its config.json into the column model"
        ) from None
    task = row.get("task") or ""
    new = number("avg_output_tokens")
    prompt = number("prompt_tokens", PROMPTS.get(task, 100.0))
    spread = number("output_tokens_sq_over_mean", new)
    rate = number("output_tokens_per_s")
    batch = number("avg_batch_size")
    gpus, joules = int(number("num_gpus", 1.0)), number("energy_per_token_j")
    watts = joules * rate
    if watts > MOST_W * gpus:
        raise DatasetError(
            f"{where}: energy_per_token_j x output_tokens_per_s is {watts:,.0f} W over {gpus} GPUs, more than "
            "boards draw: correct the row, or take it out"
        )
    told = number("avg_power_w", watts)
    if abs(watts / told - 1.0) > POWER_TOLERANCE:
        raise DatasetError(
            f"{where}: energy_per_token_j x output_tokens_per_s is {watts:,.0f} W, but avg_power_w says {told:,.0f}: "
            "one of the three is wrong (all are sums over the GPUs)"
        )
    return ServingRun(
        where, model, weights_of(row.get("weight_dtype") or "bfloat16", model), gpus,
        int(number("expert_parallel", 1.0)), int(number("data_parallel", 1.0)), batch, prompt, new,
        prompt + spread / 2.0, joules, rate,
        1e-3 * number("median_itl_ms", 1e3 * batch / rate), task,
    )  # fmt: skip


def weights_of(dtype: str, model: str = "") -> str:
    """Our name of a file's or a command's weight dtype; fp8 of Qwen and DeepSeek is by blocks."""
    dtype = dtype.lower().replace("-", "_")
    same = {"bf16": "bfloat16", "fp16": "bfloat16", "float16": "bfloat16", "float8": "fp8", "int4": "int4_wo",
            "gptq": "int4_wo", "awq": "int4_wo", "int8": "int8", "fp4": "nvfp4", "": "bfloat16"}  # fmt: skip
    dtype = same.get(dtype, dtype)
    name = model.lower()
    if dtype == "fp8" and ("qwen" in name or "deepseek" in name):
        return "fp8_block"
    if "gpt-oss" in name and dtype != "bfloat16":
        return "mxfp4"
    return dtype


def save(runs: list[ServingRun], path: Path) -> None:
    write_text_atomic(path, json.dumps([asdict(run) for run in runs], indent=0) + "\n")


def load(path: Path) -> list[ServingRun]:
    """What ``save`` wrote. Raises DatasetError."""
    try:
        return [ServingRun(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} is not a file of serving runs: {error}") from None
