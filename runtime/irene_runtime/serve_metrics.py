"""What a serving engine says of itself: Prometheus text, and the names that vLLM and SGLang have had for one thing."""

import re
from typing import Dict, List, Mapping, NamedTuple, Sequence

from .errors import InputError

#: What is looked for, under every name that it has had; newer names first. vLLM renamed ``gpu_cache_usage_perc`` and
#: ``gpu_prefix_cache_hits`` and drops an old name two versions later (vllm/v1/metrics/loggers.py); SGLang:
#: python/sglang/srt/metrics/collector.py.
SERVER_NAMES: Mapping[str, Sequence[str]] = {
    "prompt_tokens": ("vllm:prompt_tokens_total", "vllm:prompt_tokens", "sglang:prompt_tokens_total"),
    "generation_tokens": (
        "vllm:generation_tokens_total", "vllm:generation_tokens", "sglang:generation_tokens_total",
    ),
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs"),
    "steps": ("vllm:iteration_tokens_total_count",),
    "prompts": (
        "vllm:request_prompt_tokens_count", "vllm:time_to_first_token_seconds_count", "vllm:request_success_total",
        "sglang:time_to_first_token_seconds_count", "sglang:num_requests_total",
    ),
    "cached_tokens": (
        "vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits", "sglang:cached_tokens_total",
    ),
    "cache_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "cache_tokens": ("sglang:max_total_num_tokens",),
    "used_tokens": ("sglang:num_used_tokens",),
}  # fmt: skip
_LINE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?\s*$")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')


class MetricLine(NamedTuple):
    """One sample of Prometheus text."""

    name: str
    labels: Dict[str, str]
    value: float


class ServerReading(NamedTuple):
    """What one scrape said: counters and gauges by the keys of SERVER_NAMES, added over engines.

    ``missing``: keys that the server does not say, with all names looked for.
    """

    time_s: float
    values: Dict[str, float]
    missing: Dict[str, str]


def metric_lines(text: str) -> List[MetricLine]:
    """Prometheus or OpenMetrics text as samples; lines that are none of it are passed over."""
    out = []
    for line in text.splitlines():
        found = None if line.startswith("#") else _LINE.match(line.strip())
        if found is None:
            continue
        try:
            value = float(found.group(3))
        except ValueError:
            continue
        labels = {
            key: raw.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
            for key, raw in _LABEL.findall(found.group(2) or "")
        }
        out.append(MetricLine(found.group(1), labels, value))
    return out


def server_reading(text: str, time_s: float, model: str = "") -> ServerReading:
    """Read a scrape. ``model``: of several that the server serves the one that is meant.

    Raises InputError where the text is of no server that is known here, or serves no such model.
    """
    lines = [line for line in metric_lines(text) if line.name.startswith(("vllm:", "sglang:"))]
    if not lines:
        raise InputError("no metric of vLLM or SGLang there: is it the server's own /metrics?")
    served = sorted(set(filter(None, map(_model_of, lines))))
    if model and served and model not in served:
        raise InputError("the server serves %s, not %s" % (", ".join(served), model))
    sums: Dict[str, float] = {}
    fullest: Dict[str, float] = {}  # of an engine's kinds of cache the fullest
    capacity = 0.0
    for name, labels, value in lines:
        if (model and labels.get("model_name", model) != model) or _is_repeated(labels):
            continue
        sums[name] = sums.get(name, 0.0) + value
        if name in SERVER_NAMES["cache_usage"]:
            engine = name + labels.get("engine", "") + labels.get("dp_rank", "")
            fullest[engine] = max(fullest.get(engine, 0.0), value)
        elif name == "vllm:cache_config_info":
            blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
            whole = labels.get("kv_cache_size_tokens", "")
            if whole.isdigit():
                capacity = capacity + float(whole)
            elif blocks.isdigit() and size.isdigit():
                capacity = capacity + float(blocks) * float(size)
    values, missing = {}, {}
    for key, names in SERVER_NAMES.items():
        known = [name for name in names if name in sums]
        if known:
            values[key] = sums[known[0]]
        else:
            missing[key] = " or ".join(names)
    capacity = values.get("cache_tokens", capacity)
    if fullest and capacity and "used_tokens" in missing:
        usage = 0.0
        for share in fullest.values():
            usage = usage + share
        values["used_tokens"] = capacity * usage / len(fullest)
        del missing["used_tokens"]
    missing.pop("cache_tokens" if capacity else "", None)
    return ServerReading(time_s, values, missing)


def _model_of(line: MetricLine) -> str:
    return line.labels.get("model_name", "")


def _is_repeated(labels: Mapping[str, str]) -> bool:
    """SGLang says some things once a rank of a group, and once a priority beside the sum of them."""
    return bool(
        labels.get("tp_rank", "0") != "0" or labels.get("pp_rank", "0") != "0" or labels.get("priority")
    )
