"""The page of a request (`predict --prompt --new --html`): prefill against decode, joules a token by context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from irene_build.report.figures import MUTED, SERIES, Figure, drawing_with_axes, styled
from irene_build.report.html import render
from irene_build.report.payload import forest

if TYPE_CHECKING:
    from irene_runtime.model import Estimator
    from irene_runtime.request_prediction import RequestPrediction
    from irene_runtime.symbolic import SymbolicTree

#: Contexts of the curve.
POINTS = 24


def contexts(tree: SymbolicTree, found: RequestPrediction) -> list[int]:
    """Cached tokens from few to four times the request's, within the model's positions."""
    size = found.size
    most = 4 * (size["prompt"] + size["new"])
    positions: Any = tree.header["positions"]
    if positions is not None:
        most = min(most, positions - 1)
    first = max(2, min(16, most))
    return sorted({round(first * (most / first) ** (k / (POINTS - 1))) for k in range(POINTS)})


def by_context(estimator: Estimator, tree: SymbolicTree, found: RequestPrediction) -> list[dict[str, Any]]:
    """Joules of one decoded token over cached tokens, of the request's batch and of a batch of one."""
    batch = found.size["batch_size"]
    rows = []
    for past in contexts(tree, found):
        row: dict[str, Any] = {"cached": past}
        for count in dict.fromkeys((1, batch)):
            p = estimator.predict(tree, batch_size=count, past_len=past, phase="decode", tier="static")
            row[f"batch_{count}"] = p.energy_j / count
        rows.append(row)
    return rows


@styled
def token_curve(rows: Sequence[dict[str, Any]], prompt: int, simulated: bool) -> Figure:
    """Joules a decoded token against cached tokens, a curve a batch size."""
    drawing, axes = drawing_with_axes(simulated, (5.0, 3.2))
    words = []
    for colour, name in zip(SERIES, [key for key in rows[0] if key != "cached"], strict=False):
        label = name.replace("_", " ")
        axes.plot([r["cached"] for r in rows], [r[name] for r in rows], color=colour, label=label)
        words.append(f"{label}: {rows[0][name]:.3g} J behind {rows[0]['cached']} tokens, {rows[-1][name]:.3g} J behind "
                     f"{rows[-1]['cached']}")  # fmt: skip
    axes.axvline(prompt, color=MUTED, lw=0.9, ls="--")
    axes.set(xscale="log", xlabel="cached tokens (the dashed line is the prompt)", ylabel="J a token")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return Figure(
        "token-by-context", "Joules a decoded token by context", "; ".join(words) + ".", drawing, {}
    )


@styled
def phase_bars(found: RequestPrediction, simulated: bool) -> Figure:
    """Joules of each phase, one bar."""
    drawing, axes = drawing_with_axes(simulated, (5.0, 1.6))
    left = 0.0
    words = []
    for colour, phase in zip(SERIES, found.phases.values(), strict=False):
        axes.barh([0], [phase.energy_j], left=left, color=colour, label=phase.name)
        left += phase.energy_j
        words.append(f"{phase.name} {phase.energy_j:.4g} J")
    axes.set(yticks=[], xlabel="J of the batch")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Figure("phases", "Prefill against decode", ", ".join(words) + ".", drawing, {})


def page(
    estimator: Estimator,
    tree: SymbolicTree,
    found: RequestPrediction,
    cells: Sequence[dict[str, Any]] = (),
) -> str:
    """HTML, complete in itself. ``cells``: rows of a sweep to be listed as well."""
    size = found.size
    batch, middle = size["batch_size"], size["prompt"] + size["new"] // 2
    steps = [
        estimator.predict(tree, batch_size=batch, seq_len=size["prompt"], phase="prefill", tier="static"),
        estimator.predict(tree, batch_size=batch, past_len=max(1, middle - 1), phase="decode", tier="static"),
    ]
    rows = by_context(estimator, tree, found)
    figures = [phase_bars(found, found.simulated), token_curve(rows, size["prompt"], found.simulated)]
    return render(
        "report_request.html.j2",
        title=f"{found.header['model']}: prompt {size['prompt']}, {size['new']} new tokens, batch {batch}",
        simulated=found.simulated,
        request=found.to_json(),
        modules=found.modules(2)[:40],
        contexts=rows,
        cells=cells,
        trees=forest([step.to_dict() for step in steps]),
        figures={drawn.name: drawn for drawn in figures},
    )
