"""CycloneDX 1.6 and 1.7: a machine-learning component with the energy of its inference.

cyclonedx-python-lib has no classes for model cards, so that the document is written here, and its validator judges it
against the official schema.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from irene_build.card.facts import Facts
from irene_build.errors import InputError, RunError

VERSIONS = ("1.6", "1.7")


def text(facts: Facts, version: str = "1.6") -> str:
    """The document as JSON. Raises InputError where the library is not installed, RunError where the schema refuses."""
    if version not in VERSIONS:
        raise InputError(f"--cyclonedx {version!r}: {' or '.join(VERSIONS)}")
    written = json.dumps(document(facts, version), indent=1, allow_nan=False) + "\n"
    check(written, version)
    return written


def document(facts: Facts, version: str) -> dict[str, Any]:
    properties = [{"name": key, "value": value} for key, value in facts.named.items() if value]
    energy: dict[str, Any] = {
        "activity": "inference",
        "energyProviders": [{
            "description": "Not known; the estimate is of energy, whoever provides it.",
            "organization": {"name": "unknown"}, "energySource": "unknown",
            "energyProvided": {"value": facts.kwh, "unit": "kWh"},
        }],
        "activityEnergyCost": {"value": facts.kwh, "unit": "kWh"},
        "properties": properties,
    }  # fmt: skip
    if facts.co2_t is not None:
        energy["co2CostEquivalent"] = {"value": facts.co2_t, "unit": "tCO2eq"}
    component: dict[str, Any] = {
        "type": "machine-learning-model", "bom-ref": "model", "name": facts.model, "description": facts.sentence,
        "modelCard": {"considerations": {"environmentalConsiderations": {
            "energyConsumptions": [energy], "properties": properties,
        }}},
    }  # fmt: skip
    if facts.model_version:
        component["version"] = facts.model_version
    if facts.supplier:
        component["supplier"] = {"name": facts.supplier}
    if facts.licence:
        component["licenses"] = [{"license": {"name": facts.licence}}]
    if facts.download:
        component["externalReferences"] = [{"type": "distribution", "url": facts.download}]
    stamp = facts.created.strftime("%Y-%m-%dT%H:%M:%SZ")
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{facts.digest}/{facts.model}/{facts.work}/{facts.runs}/{stamp}")
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{version}.schema.json", "bomFormat": "CycloneDX",
        "specVersion": version, "serialNumber": f"urn:uuid:{serial}", "version": 1,
        "metadata": {
            "timestamp": stamp,
            "tools": {"components": [{"type": "application", "name": "irene-build", "version": facts.tool_version}]},
        },
        "components": [component],
    }  # fmt: skip


def check(written: str, version: str) -> None:
    """Validate against the official schema that cyclonedx-python-lib carries. Raises InputError, RunError."""
    try:
        from cyclonedx.exception import MissingOptionalDependencyException
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        raise InputError("CycloneDX needs its validator: pip install 'irene-build[cards]'") from None
    try:
        found = JsonStrictValidator(SchemaVersion.from_version(version)).validate_str(written)
    except MissingOptionalDependencyException:
        raise InputError("CycloneDX needs its validator: pip install 'irene-build[cards]'") from None
    if found is not None:
        raise RunError(
            f"the CycloneDX {version} schema refuses the document: {str(found).splitlines()[0][:200]}"
        )
