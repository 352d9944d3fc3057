"""Joules of requests in OpenTelemetry: attributes of spans and metrics, through the official SDK.

Tokens and models bear the names of the GenAI semantic conventions; these have none for energy, so that ours stand under
one prefix, ``irene.``:

    span       gen_ai.operation.name, gen_ai.request.model, gen_ai.usage.input_tokens, gen_ai.usage.output_tokens
               irene.energy (J), irene.energy.low, irene.energy.high (J, 90 % interval), irene.energy.prefill,
               irene.energy.decode (J), irene.energy.boundary, irene.energy.provenance, irene.estimator.digest,
               irene.batch_size, irene.flags
    metrics    gen_ai.client.token.usage ({token}, by gen_ai.token.type), irene.request.energy (J, histogram),
               irene.energy (J, counter, by irene.phase)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from irene_build.errors import InputError
from irene_build.score.batches import no_tree
from irene_build.score.loaded import Loaded
from irene_build.score.tables import MAX_TOKENS, RequestTable
from irene_runtime.equations import FLAGS

_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_MODEL = ("gen_ai.response.model", "gen_ai.request.model")
#: Advised by the conventions for gen_ai.client.token.usage.
_TOKEN_BUCKETS = [float(4**power) for power in range(14)]
_JOULE_BUCKETS = [float(10.0 ** (power / 2)) for power in range(-6, 15)]


class RequestEnergy(NamedTuple):
    """Joules of one request (its share of a batch), with the ends of its 90 % interval."""

    energy_j: float
    low_j: float
    high_j: float
    prefill_j: float
    decode_j: float
    flags: tuple[str, ...]


class EnergyTelemetry:
    """Estimates requests and says so in spans and metrics. Raises InputError where OpenTelemetry is not installed.

    ``loaded``: ``sources.load(bundle, trees)``; ``meter_provider``: the global one unless given; ``aliases``: names
    that spans have -> names of trees.
    """

    def __init__(
        self, loaded: Loaded, meter_provider: Any = None, aliases: Mapping[str, str] | None = None
    ) -> None:
        try:
            from opentelemetry import metrics
        except ImportError:
            raise InputError("OpenTelemetry is not installed: pip install 'irene-build[otel]'") from None
        self._loaded, self._aliases = loaded, dict(aliases or {})
        self._table = RequestTable(loaded.sources)
        meter = metrics.get_meter("irene_build", meter_provider=meter_provider)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", unit="{token}", description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )  # fmt: skip
        self._request = meter.create_histogram(
            "irene.request.energy", unit="J", description="Predicted energy of a request.",
            explicit_bucket_boundaries_advisory=_JOULE_BUCKETS,
        )  # fmt: skip
        self._energy = meter.create_counter(
            "irene.energy", unit="J", description="Predicted energy of all requests."
        )

    def estimate(
        self, model: str, input_tokens: int, output_tokens: int, batch_size: float = 1.0
    ) -> RequestEnergy:
        """Joules of a request. Raises InputError for a model without a tree and for wrong counts."""
        name = self._aliases.get(model, model)
        if name not in self._loaded.sources:
            raise InputError(no_tree(name, self._loaded.sources))
        if (
            input_tokens < 1
            or output_tokens < 0
            or input_tokens + output_tokens > MAX_TOKENS
            or batch_size < 1.0
        ):
            raise InputError(
                f"{input_tokens} input and {output_tokens} output tokens, batch {batch_size:g}: expected 1 or more, "
                f"0 or more, together at most {MAX_TOKENS:,}, and a batch of 1 or more"
            )
        values, flags = self._table.requests(
            np.array([self._table.models.index(name)]), np.array([float(batch_size)]), np.array([input_tokens]),
            np.array([output_tokens]),
        )  # fmt: skip
        row = values[0].tolist()
        if not np.isfinite(row[0] + row[4]):
            raise InputError(
                f"{input_tokens + output_tokens} tokens are more than the tree of {name} goes to"
            )
        names = tuple(word for bit, word in FLAGS.items() if int(flags[0]) & bit)
        return RequestEnergy(row[0] + row[4], row[1] + row[5], row[2] + row[6], row[0], row[4], names)

    def annotate(
        self, span: Any, model: str, input_tokens: int, output_tokens: int, batch_size: float = 1.0,
        operation: str = "chat",
    ) -> RequestEnergy:  # fmt: skip
        """Put the estimate into a span that has not ended, and into the metrics; tokens as well."""
        found = self.estimate(model, input_tokens, output_tokens, batch_size)
        about = self._loaded.about
        span.set_attributes({
            "gen_ai.operation.name": operation, "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": input_tokens, "gen_ai.usage.output_tokens": output_tokens,
            "irene.energy": found.energy_j, "irene.energy.low": found.low_j, "irene.energy.high": found.high_j,
            "irene.energy.prefill": found.prefill_j, "irene.energy.decode": found.decode_j,
            "irene.energy.boundary": about.get("boundary", ""), "irene.energy.provenance": about.get("provenance", ""),
            "irene.estimator.digest": self._loaded.digest, "irene.batch_size": float(batch_size),
            "irene.flags": list(found.flags),
        })  # fmt: skip
        common = {"gen_ai.operation.name": operation, "gen_ai.request.model": model}
        self._tokens.record(input_tokens, {**common, "gen_ai.token.type": "input"})
        self._tokens.record(output_tokens, {**common, "gen_ai.token.type": "output"})
        self.record(found, common)
        return found

    def record(self, found: RequestEnergy, attributes: Mapping[str, str]) -> None:
        """Into the metrics alone."""
        self._request.record(found.energy_j, dict(attributes))
        for phase, joules in (("prefill", found.prefill_j), ("decode", found.decode_j)):
            self._energy.add(joules, {**attributes, "irene.phase": phase})


def span_processor(telemetry: EnergyTelemetry) -> Any:
    """A processor that records the energy of every span that an instrumentation gave GenAI token counts.

    Add it to the ``TracerProvider``. Spans of models without a tree are passed over; spans themselves cannot be
    changed any more when they end.
    """
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

    class EnergySpanProcessor(SpanProcessor):  # type: ignore[misc, unused-ignore]
        def on_end(self, span: ReadableSpan) -> None:
            said = dict(span.attributes or {})
            model, prompt, output = (_first(said, names) for names in (_MODEL, _INPUT, _OUTPUT))
            if model is None or prompt is None or "irene.energy" in said:
                return
            try:
                found = telemetry.estimate(str(model), int(prompt), int(output or 0))
            except (InputError, ValueError):
                return
            operation = str(said.get("gen_ai.operation.name", "chat"))
            telemetry.record(found, {"gen_ai.operation.name": operation, "gen_ai.request.model": str(model)})

    return EnergySpanProcessor()


def _first(said: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((said[name] for name in names if name in said), None)
