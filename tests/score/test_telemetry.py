"""Joules in OpenTelemetry, as the official SDK exports them."""

from __future__ import annotations

from typing import Any

import pytest

from irene_build.errors import InputError
from irene_build.score.telemetry import EnergyTelemetry, span_processor
from tests.score.synthetic import DIGEST, Formula, loaded

pytest.importorskip("opentelemetry.sdk")


@pytest.fixture
def rig() -> tuple[EnergyTelemetry, Any, Any, Any]:
    """Telemetry, a tracer, its exporter and the reader of metrics, all in memory."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    reader, exporter, provider = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
    telemetry = EnergyTelemetry(loaded(), MeterProvider([reader]), {"served": "m"})
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.add_span_processor(span_processor(telemetry))
    return telemetry, provider.get_tracer("test"), exporter, reader


def sums(reader: Any) -> dict[str, float]:
    data = reader.get_metrics_data()
    metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
    return {
        m.name: sum(getattr(p, "value", None) or getattr(p, "sum", 0) for p in m.data.data_points)
        for m in metrics
    }


def test_a_span_gets_tokens_by_the_conventions_and_joules_under_our_prefix(rig: Any) -> None:
    telemetry, tracer, exporter, reader = rig
    with tracer.start_as_current_span("chat served") as span:
        found = telemetry.annotate(span, "served", 700, 90, batch_size=4)
    said = exporter.get_finished_spans()[0].attributes
    assert said["gen_ai.request.model"] == "served" and said["gen_ai.usage.output_tokens"] == 90
    assert said["irene.energy"] == found.energy_j == pytest.approx(Formula().request_j(700, 90, 4), rel=1e-3)
    assert said["irene.energy.low"] < said["irene.energy"] < said["irene.energy.high"]
    assert said["irene.energy.boundary"] == "wall" and said["irene.estimator.digest"] == DIGEST
    assert sums(reader) == {
        "gen_ai.client.token.usage": 790, "irene.request.energy": pytest.approx(found.energy_j),
        "irene.energy": pytest.approx(found.energy_j),
    }  # fmt: skip


def test_spans_of_other_instrumentations_are_counted_when_they_end(rig: Any) -> None:
    telemetry, tracer, _, reader = rig
    attributes = {
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 700,
        "gen_ai.usage.output_tokens": 90,
    }
    tracer.start_span("chat m", attributes=attributes).end()
    tracer.start_span("chat other", attributes={**attributes, "gen_ai.response.model": "other"}).end()
    tracer.start_span("GET /").end()
    assert sums(reader)["irene.energy"] == pytest.approx(telemetry.estimate("m", 700, 90).energy_j)


@pytest.mark.parametrize(
    ("model", "prompt", "output", "message"),
    [
        ("other", 1, 1, "no symbolic tree"),
        ("m", 0, 1, "expected 1 or more"),
        ("m", 5, -1, "expected 1 or more"),
    ],
)
def test_wrong_requests_are_told(rig: Any, model: str, prompt: int, output: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rig[0].estimate(model, prompt, output)
