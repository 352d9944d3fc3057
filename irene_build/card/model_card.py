"""A Hugging Face model card: front matter by huggingface_hub's own classes, and a section of text.

The Hub has a field for the emissions of training (``co2_eq_emissions``), none for the energy of inference: that stands
in ``model-index``, as a result that is not verified.
"""

from __future__ import annotations

from typing import Any

from irene_build.card.facts import Facts
from irene_build.errors import InputError


def text(facts: Facts) -> str:
    """The card: YAML front matter between lines of dashes, then a section `Energy`."""
    return f"---\n{front_matter(facts)}\n---\n\n# {facts.model}\n\n{section(facts)}"


def front_matter(facts: Facts) -> str:
    """The YAML alone. Raises InputError where huggingface_hub is not installed."""
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError:
        raise InputError("the model card needs huggingface_hub: pip install huggingface_hub") from None
    args: dict[str, Any] = {key.removeprefix("irene:"): value for key, value in facts.named.items() if value}
    source: dict[str, Any] = {
        "source_name": f"irene-build {facts.tool_version}",
        "source_url": facts.download,
    }
    result = EvalResult(
        task_type="energy-estimation", task_name="Predicted energy of inference", dataset_type="synthetic",
        dataset_name=f"{facts.runs:,} inferences of {facts.work}", dataset_args=args, metric_type="energy",
        metric_name=f"kWh of {facts.runs:,} inferences (estimate)", metric_value=facts.kwh, verified=False,
        **(source if facts.download else {}),
    )  # fmt: skip
    data = ModelCardData(
        model_name=facts.model, eval_results=[result], tags=["energy-estimate"], license=facts.licence or None,
        ignore_metadata_errors=False,
    )  # fmt: skip
    return str(data.to_yaml())


def section(facts: Facts) -> str:
    """The section of text."""
    rows = [
        ("Energy (estimate)", f"{facts.energy_j:.4g} J, {facts.kwh:.4g} kWh"),
        ("90 % interval", f"{facts.low_j:.4g} to {facts.high_j:.4g} J"),
        ("Of", f"{facts.runs:,} inferences of {facts.work}"),
        ("Boundary", f"{facts.boundary} on {facts.hardware}"),
        ("Method", f"irene-build {facts.tool_version}, estimator `{facts.digest[:12]}` ({facts.method})"),
        ("Labels of the estimator", facts.provenance),
    ]
    if facts.co2_t is not None:
        rows.append(("CO2", f"{facts.co2_t * 1e6:.4g} g at {facts.co2_g_per_kwh:g} g/kWh"))
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## Energy\n\n{facts.sentence}\n\n| | |\n|---|---|\n{lines}\n"
