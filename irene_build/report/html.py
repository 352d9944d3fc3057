"""Pages: one self-contained HTML file each, rendered from ``templates/report*.j2``.

The tree explorer (icicle and outline) is hand-written SVG and HTML, a few hundred lines: the partition
layouts of d3-hierarchy and its like need children that add up to their parent. Those of a prediction do not
(equation 3), so what such a library offers would have to be undone first. Charts come from matplotlib
(figures.py says why). A page loads nothing: its Content-Security-Policy forbids every request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from irene_build.paths import templates_dir
from irene_build.report.breakdown import bottlenecks
from irene_build.report.payload import forest
from irene_build.report.predictions import Prediction, check, is_simulated, size_label

if TYPE_CHECKING:
    from irene_build.report.figures import Figure


def joules(value: float | None) -> str:
    """Three significant digits with a unit: ``12.3 J``, ``812 mJ``; a dash where there is none."""
    if value is None:
        return "–"
    for factor, unit in ((1e-3, "kJ"), (1.0, "J"), (1e3, "mJ"), (1e6, "µJ")):
        if abs(value) * factor >= 1 or unit == "µJ":
            return f"{value * factor:#.3g}".rstrip(".") + f" {unit}"
    raise AssertionError("unreachable")


def share(value: float | None) -> str:
    """A fraction as percent: ``31.2 %``."""
    return "–" if value is None else f"{100 * value:.1f} %" if abs(value) >= 0.001 else f"{100 * value:.2f} %"


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
    environment.filters.update(joules=joules, share=share, number=number)
    environment.globals["figure"] = lambda drawn: Markup(drawn.inline())
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
