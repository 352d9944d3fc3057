"""SPDX 3.0.1: an AI package with its inference energy, by the official bindings (spdx-python-model)."""

from __future__ import annotations

import io
from typing import Any

from irene_build.card.facts import Facts
from irene_build.errors import InputError, RunError

_NAMESPACE = "https://spdx.org/spdxdocs/irene-build/"


def text(facts: Facts) -> str:
    """The document as JSON-LD. Raises InputError where the bindings are not installed."""
    v = _bindings()
    namespace = f"{_NAMESPACE}{facts.digest[:16]}/{_slug(facts.model)}/{facts.created:%Y%m%dT%H%M%SZ}"
    maker = v.SoftwareAgent(name=f"irene-build {facts.tool_version}")
    info = v.CreationInfo(specVersion="3.0.1", created=facts.created, createdBy=[maker])
    info.set_id("_:created")

    def made(kind: Any, place: str, **fields: Any) -> Any:
        thing = kind(creationInfo=info, **fields)
        thing.set_id(f"{namespace}#{place}")
        return thing

    maker.creationInfo = info
    maker.set_id(f"{namespace}#irene-build")
    energy = v.ai_EnergyConsumption(ai_inferenceEnergyConsumption=[
        v.ai_EnergyConsumptionDescription(
            ai_energyQuantity=facts.kwh, ai_energyUnit=v.ai_EnergyUnitType.kilowattHour
        )
    ])  # fmt: skip
    package = made(
        v.ai_AIPackage, "model", name=facts.model, comment=facts.sentence, ai_energyConsumption=energy,
        software_primaryPurpose=v.software_SoftwarePurpose.model, ai_informationAboutApplication=facts.work,
        ai_metric=[v.DictionaryEntry(key=key, value=value) for key, value in facts.named.items() if value],
        ai_limitation=f"The energy is an estimate for {facts.boundary} on {facts.hardware} and for this size.",
    )  # fmt: skip
    elements: list[Any] = [maker, package]
    if facts.model_version:
        package.software_packageVersion = facts.model_version
    if facts.download:
        package.software_downloadLocation = facts.download
    if facts.released is not None:
        package.releaseTime = facts.released
    if facts.supplier:
        supplier = made(v.Organization, "supplier", name=facts.supplier)
        package.suppliedBy = supplier
        elements.append(supplier)
    profiles = [v.ProfileIdentifierType.core]
    if facts.model_version and facts.download and facts.released is not None and facts.supplier:
        # What the AI profile asks of every package; without it the document does not claim that profile.
        profiles += [v.ProfileIdentifierType.software, v.ProfileIdentifierType.ai]
    document = made(
        v.SpdxDocument, "document", name=f"Energy of {facts.model}", profileConformance=profiles,
        rootElement=[package], element=elements,
    )  # fmt: skip
    objects = v.SHACLObjectSet([document, *elements])
    out = io.BytesIO()
    try:
        v.JSONLDSerializer(indent=1).write(objects, out)
    except (ValueError, TypeError) as error:
        raise RunError(f"the SPDX bindings refuse the document: {error}") from None
    return out.getvalue().decode("utf-8") + "\n"


def _slug(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-._" else "-" for sign in name)


def _bindings() -> Any:
    try:
        from spdx_python_model import v3_0_1
    except ImportError:
        raise InputError("SPDX needs its bindings: pip install 'irene-build[cards]'") from None
    return v3_0_1
