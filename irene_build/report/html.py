"""Pages: one self-contained HTML file each, rendered from ``templates/report*.j2``.

The tree explorer (icicle and outline) is hand-written SVG and HTML, a few hundred lines: the partition
layouts of d3-hierarchy and its like need children that add up to their parent. Those of a prediction do not
(equation 3), so what such a library offers would have to be undone first. Charts come from matplotlib
(figures.py says why). A page loads nothing: its Content-Security-Policy forbids every request.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irene_build.paths import templates_dir
from irene_build.report.breakdown import bottlenecks, marked
from irene_build.report.payload import forest
from irene_build.report.predictions import Prediction, check, is_simulated, size_label
from irene_build.report.still import icicle

if TYPE_CHECKING:
    from irene_build.report.figures import Figure


def joules(value: float | None) -> str:
    """Three significant digits with a unit: ``12.3 J``, ``812 mJ``; a dash where there is none."""
    if value is None:
        return "–"
    for factor, unit in ((1e-6, "MJ"), (1e-3, "kJ"), (1.0, "J"), (1e3, "mJ"), (1e6, "µJ")):
        if abs(value) * factor >= 1 or unit == "µJ":
            return f"{value * factor:#.3g}".rstrip(".") + f" {unit}"
    raise AssertionError("unreachable")


def share(value: float | None) -> str:
    """A fraction as percent: ``31.2 %``."""
    return "–" if value is None else f"{100 * value:.1f} %" if abs(value) >= 0.001 else f"{100 * value:.2f} %"


def spread(energy_j: float, interval_j: Sequence[float]) -> str:
    """How far the ends of an interval lie from the value: ``± 8.1 %``, ``−4.0 %, +9.2 %``, or ``÷ 3.1 to × 4.2``."""
    low, high = interval_j
    if energy_j <= 0:
        return ""
    down, up = (energy_j - low) / energy_j, (high - energy_j) / energy_j
    if up > 1 or down > 0.67:
        below = f"÷ {_factor(energy_j / low)}" if low > 0 else "0"
        return f"{below} to × {_factor(high / energy_j)}"
    if abs(up - down) <= 0.1 * max(up, down):
        return f"± {share((up + down) / 2)}"
    return f"−{share(down)}, +{share(up)}"


def _factor(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:#.2g}".rstrip(".")


def based_on(data: Mapping[str, Any]) -> str:
    """What predictions rest on: ``calibrated on measured wall energy``."""
    if data["provenance"] == "datasheet":
        return f"from a datasheet alone; nothing was measured; {data['boundary']} energy"
    return f"calibrated on {data['provenance']} {data['boundary']} energy"


def command_of(prediction: Prediction) -> str:
    """The call that prints the very numbers of a page."""
    size = f"--batch {prediction.get('batch_size')} --seq {prediction.get('seq_len')}"
    phase = prediction.get("phase") or "forward"
    if phase != "forward":
        size += f" --phase {phase}"
    if prediction.get("past_len"):
        size += f" --past {prediction['past_len']}"
    for name in ("dtype", "attention", "tier"):
        if prediction.get(name):
            size += f" --{name} {prediction[name]}"
    return f"irene-build predict OUT {shlex.quote(str(prediction['model']))} {size} --json"


def number(value: Any, digits: int = 2) -> str:
    """A number for a table cell; whole numbers as they are, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def render(template: str, **context: Any) -> str:
    """Render ``templates/<template>``; text is escaped, only figures and data blocks are trusted markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(templates_dir()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(joules=joules, share=share, number=number, spread=spread)
    environment.globals["figure"] = lambda drawn: Markup(drawn.inline())
    environment.globals["still"] = lambda prediction: Markup(icicle(prediction))
    environment.globals["based_on"] = based_on
    # Without sorting the data keep the order that their makers chose (models, tiers, sizes).
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment.get_template(template).render(**context)


def render_prediction(prediction: Prediction) -> str:
    """The page of one prediction (`irene-build predict --html`): tree explorer and bottleneck table."""
    check(prediction)
    return render(
        "report_prediction.html.j2",
        title=f"{prediction['model']}, {size_label(prediction)}: where the energy goes",
        simulated=is_simulated(prediction),
        prediction=prediction,
        size=size_label(prediction),
        command=command_of(prediction),
        marked=marked(prediction),
        trees=forest([prediction]),
        bottlenecks=bottlenecks([prediction]),
    )


def render_report(report: dict[str, Any], trees: dict[str, Any], figures: Sequence[Figure]) -> str:
    """The page of one PC (`irene-build report`); ``report`` as in ``collect.report_data``."""
    return render(
        "report_hardware.html.j2",
        title=f"Where the energy goes on {report['hardware']}",
        simulated=is_simulated(report),
        report=report,
        trees=trees,
        figures={drawn.name: drawn for drawn in figures},
    )


def render_compare(
    result: dict[str, Any], predictions: Sequence[Prediction], figures: Sequence[Figure]
) -> str:
    """The page of `irene-build compare`; ``result`` as its ``--json``."""
    return render(
        "report_compare.html.j2",
        title=f"{len(result['rows'])} models on {result['hardware']}",
        simulated=is_simulated(result),
        result=result,
        trees=forest(predictions),
        figures={drawn.name: drawn for drawn in figures},
    )


def render_sweep(result: dict[str, Any], predictions: Sequence[Prediction], figures: Sequence[Figure]) -> str:
    """The page of `irene-build sweep`; ``result`` as its ``--json``."""
    return render(
        "report_sweep.html.j2",
        title=f"{result['model']} over batch size and sequence length on {result['hardware']}",
        simulated=is_simulated(result),
        result=result,
        trees=forest(predictions),
        figures={drawn.name: drawn for drawn in figures},
    )
