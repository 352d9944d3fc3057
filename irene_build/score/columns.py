"""Which column of a request log holds what: names that are known, presets of public logs, and what the user maps."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from irene_build.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

#: What a column may be. prompt and output: tokens of the request; batch: requests in flight with it; time, end: when
#: it began and ended; duration: seconds.
ROLES = ("model", "prompt", "output", "batch", "time", "end", "duration", "host")
NEEDED = ("prompt", "output")

#: Per preset and role the names looked for, first found first taken. A dot reaches into a struct where no column has
#: that very name. Sources: Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md, ...2024.md), HPMLL/BurstGPT,
#: vLLM's ``SpanAttributes`` (vllm/tracing), OpenAI's API reference (chat completions, responses).
PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "azure-2023": {"time": ("TIMESTAMP",), "prompt": ("ContextTokens",), "output": ("GeneratedTokens",)},
    "azure-2024": {"time": ("TIMESTAMP",), "prompt": ("ContextTokens",), "output": ("GeneratedTokens",)},
    "burstgpt": {
        "time": ("Timestamp",), "model": ("Model",), "prompt": ("Request tokens",),
        "output": ("Response tokens",), "duration": ("Elapsed time",),
    },
    "vllm": {
        "model": ("gen_ai.response.model", "gen_ai.request.model"),
        "prompt": ("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens"),
        "output": ("gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens"),
        "duration": ("gen_ai.latency.e2e",),
        "time": ("start_time", "arrival_time", "timestamp"), "end": ("end_time",), "host": ("host.name", "host"),
    },
    "openai": {
        "model": ("model",), "prompt": ("usage.prompt_tokens", "usage.input_tokens", "prompt_tokens", "input_tokens"),
        "output": ("usage.completion_tokens", "usage.output_tokens", "completion_tokens", "output_tokens"),
        "time": ("created", "created_at"), "host": ("host",),
    },
    "": {
        "model": ("model", "model_name"), "prompt": ("prompt", "prompt_tokens", "input_tokens"),
        "output": ("output", "output_tokens", "completion_tokens", "generated_tokens"),
        "batch": ("batch", "batch_size", "concurrency"), "time": ("time", "timestamp", "start", "start_time"),
        "end": ("end", "end_time"), "duration": ("duration", "duration_s"), "host": ("host", "hostname"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """The name of the column of every role; empty where the log has none."""

    model: str = ""
    prompt: str = "prompt"
    output: str = "output"
    batch: str = ""
    time: str = ""
    end: str = ""
    duration: str = ""
    host: str = ""

    def named(self) -> dict[str, str]:
        """Role -> column, of those that the log has."""
        return {role: name for role, name in asdict(self).items() if name}


def parse_mapping(pairs: Iterable[str]) -> dict[str, str]:
    """``prompt=ContextTokens`` as a mapping. Raises InputError that names the pair."""
    out: dict[str, str] = {}
    for pair in pairs:
        role, equals, name = pair.partition("=")
        if not equals or role not in ROLES:
            raise InputError(
                f"--column {pair!r}: expected ROLE=COLUMN with one of the roles {', '.join(ROLES)}"
            )
        out[role] = name
    return out


def resolve(schema: pa.Schema, preset: str = "", mapped: Mapping[str, str] | None = None) -> Columns:
    """The columns of a log by its schema: what is mapped, then what the preset calls for, then usual names.

    ``mapped`` ``role=""`` says that the log has none. Raises InputError that names the columns that are there.
    """
    if preset not in PRESETS:
        raise InputError(f"--preset {preset!r}: known are {', '.join(sorted(PRESETS))[2:]}")
    mapped = dict(mapped or {})
    found: dict[str, str] = {}
    for role in ROLES:
        if role in mapped:
            if mapped[role] and not has(schema, mapped[role]):
                raise InputError(
                    f"--column {role}={mapped[role]}: the log has no such column{_hint(schema, mapped[role])}"
                )
            found[role] = mapped[role]
            continue
        names = PRESETS[preset].get(role, ())
        found[role] = next((name for name in names if has(schema, name)), "")
    missing = [role for role in NEEDED if not found[role]]
    if missing:
        role = missing[0]
        wanted = ", ".join(PRESETS[preset].get(role, ()))
        raise InputError(
            f"the log has no column of {role} tokens (looked for {wanted}); it has {_listed(schema.names)}: "
            f"say {_fitting(schema) or f'--column {role}=NAME'}"
        )
    return Columns(**found)


def _fitting(schema: pa.Schema) -> str:
    """The option of the presets that this log fits; empty where there is none."""
    fit = [
        name for name, roles in PRESETS.items()
        if name and all(any(has(schema, column) for column in roles[role]) for role in NEEDED)
    ]  # fmt: skip
    return " or ".join(f"--preset {name}" for name in fit)


def has(schema: pa.Schema, name: str) -> bool:
    """Whether the log has a column of this name, or a field under a dotted name."""
    return path_of(schema, name) is not None


def path_of(schema: pa.Schema, name: str) -> list[str] | None:
    """The column, and the fields below it, that a name means; None where there is none."""
    import pyarrow as pa

    if name in schema.names:
        return [name]
    head, dot, rest = name.partition(".")
    while dot:
        if head in schema.names and pa.types.is_struct(schema.field(head).type):
            below = path_of(pa.schema(list(schema.field(head).type)), rest)
            if below is not None:
                return [head, *below]
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def column(batch: pa.RecordBatch, name: str) -> Any:
    """The values of a column, or of a field under a dotted name."""
    import pyarrow.compute as pc

    path = path_of(batch.schema, name)
    if path is None:
        raise InputError(f"the log has no column {name!r}{_hint(batch.schema, name)}")
    values = batch.column(path[0])
    return pc.struct_field(values, path[1:]) if path[1:] else values


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _hint(schema: pa.Schema, name: str) -> str:
    near = difflib.get_close_matches(name, schema.names, 1)
    return f"; did you mean {near[0]}?" if near else f"; it has {_listed(schema.names)}"
