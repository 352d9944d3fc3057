"""Records of predicted energy: what the official libraries read back."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from typing import Any

import pytest

from irene_build.card import cyclonedx, model_card, spdx
from irene_build.card.facts import Facts, of_prediction

PREDICTION = {
    "model": "org/model", "batch_size": 2, "seq_len": 64, "phase": "decode", "past_len": 63, "dtype": "float16",
    "energy_j": 7.2, "interval_j": [6.0, 9.0], "flags": ["extrapolates"], "hardware": "lab", "boundary": "wall",
    "provenance": "measured", "digest": "ab" * 32,
}  # fmt: skip


def facts(**more: Any) -> Facts:
    made = datetime(2024, 5, 10, tzinfo=timezone.utc)
    return of_prediction(PREDICTION, 1000, "best", created=made, tool_version="0.1.0", **more)


def test_spdx_reads_back_with_the_energy_of_inference() -> None:
    spdx_python_model = pytest.importorskip("spdx_python_model")
    v = spdx_python_model.v3_0_1
    written = spdx.text(facts())
    objects = v.SHACLObjectSet()
    v.JSONLDDeserializer().read(io.BytesIO(written.encode()), objects)
    (package,) = list(objects.foreach_type(v.ai_AIPackage))
    (energy,) = package.ai_energyConsumption.ai_inferenceEnergyConsumption
    assert energy.ai_energyQuantity == pytest.approx(7200.0 / 3.6e6)
    assert energy.ai_energyUnit == v.ai_EnergyUnitType.kilowattHour
    assert {entry.key: entry.value for entry in package.ai_metric}["irene:interval90_high_j"] == "9000.0"
    assert "Estimate, not a measurement" in package.comment and "boundary wall" in package.comment
    (document,) = list(objects.foreach_type(v.SpdxDocument))
    assert [str(p).rsplit("/", 1)[-1] for p in document.profileConformance] == ["core"]
    assert written == spdx.text(facts())


def test_spdx_claims_the_ai_profile_where_all_that_it_asks_for_is_known() -> None:
    pytest.importorskip("spdx_python_model")
    known = {"supplier": "Lab", "model_version": "1", "download": "https://example.org/m"}
    written = spdx.text(facts(released=datetime(2024, 5, 1, tzinfo=timezone.utc), **known))
    assert '"ai"' in written and "2024-05-01" in written


@pytest.mark.parametrize("version", cyclonedx.VERSIONS)
def test_cyclonedx_passes_the_official_schema(version: str) -> None:
    pytest.importorskip("cyclonedx")
    written = cyclonedx.text(facts(co2_g_per_kwh=400.0, supplier="Lab", licence="mit"), version)
    component = json.loads(written)["components"][0]
    (energy,) = component["modelCard"]["considerations"]["environmentalConsiderations"]["energyConsumptions"]
    assert energy["activity"] == "inference"
    assert energy["activityEnergyCost"] == {"value": pytest.approx(0.002), "unit": "kWh"}
    assert energy["co2CostEquivalent"]["value"] == pytest.approx(0.002 * 400e-6)
    assert {p["name"]: p["value"] for p in energy["properties"]}["irene:boundary"] == "wall"
    with pytest.raises(Exception, match="refuses the document"):
        cyclonedx.check(written.replace('"kWh"', '"kJ"'), version)


def test_the_front_matter_reads_back() -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(model_card.text(facts(licence="mit"))).data
    (result,) = data.eval_results
    assert data.license == "mit" and result.metric_value == pytest.approx(0.002) and result.verified is False
    assert (
        result.dataset_args["boundary"] == "wall"
        and "batch 2, 64 tokens, float16, decode" in result.dataset_name
    )


def test_every_record_says_that_it_is_simulated() -> None:
    simulated = of_prediction(
        {**PREDICTION, "provenance": "simulated"}, 1, "best", created=facts().created, tool_version="0"
    )
    assert "SIMULATED" in simulated.sentence
    assert "SIMULATED" in model_card.text(simulated) and "SIMULATED" not in facts().sentence
