"""The figures, drawn once with matplotlib: inlined into the pages as SVG, and written as PNG and SVG files.

Why matplotlib: it is the library that people have, one description gives both file formats and the page's
drawing, and its output carries no script and no licence text into the page. Inlined figures take the page's
colours: each colour below is replaced by the CSS variable of its name, so light and dark both read well.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from html import escape
from typing import Any

from irene_build.errors import RunError
from irene_build.report.breakdown import KINDS, kind_of
from irene_build.report.predictions import Prediction, folded, spans

#: Colour -> CSS variable in ``templates/report.css.j2``. Chosen to differ for the colour-blind (Okabe-Ito).
PALETTE = {
    "#1f2429": "--ink", "#6a7078": "--muted", "#d5d9de": "--line",
    "#0069a8": "--c1", "#c94f00": "--c2", "#00805f": "--c3", "#a8478a": "--c4",
    "#fffefd": "--on",
}  # fmt: skip
INK, MUTED, LINE, *SERIES, ON_COLOUR = PALETTE
#: Shades of a heat map from little to much, and the ink on each; a page in the dark has others under the same names.
SHADES = ("#fff7e3", "#fde3ae", "#f9b768", "#e27a2b", "#a8450f", "#6a2506")
INKS = ("#201000", "#201001", "#201002", "#201003", "#fffff4", "#fffff5")
PALETTE.update({colour: f"--h{k}" for k, colour in enumerate(SHADES)})
PALETTE.update({colour: f"--i{k}" for k, colour in enumerate(INKS)})
_MARKS = "osD^"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "irene-build",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.titlecolor": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "grid.color": LINE, "axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titlelocation": "left",
    "legend.frameon": False, "lines.linewidth": 1.8,
}  # fmt: skip
#: Errors beyond this (percent) are drawn on an axis of decades.
_LARGEST_LINEAR = 300.0
#: Five inches are about a phone's width at the font's own size; wider screens set figures side by side.
_SIZE = (5.0, 3.5)


class Figure:
    """A drawn figure: ``name`` (file stem), ``title``, ``description`` (for who cannot see it)."""

    def __init__(
        self, name: str, title: str, description: str, drawing: Any, hints: Mapping[str, str]
    ) -> None:
        self.name, self.title, self.description = name, title, description
        self._drawing, self._hints = drawing, dict(hints)
        # A layout that is solved again for each file would move things between PNG, SVG and page.
        drawing.draw_without_rendering()
        drawing.set_layout_engine("none")

    def png(self) -> bytes:
        """The figure as PNG on white, 160 dpi."""
        return self._save("png", dpi=160, facecolor="white", metadata={"Software": "irene-build"})

    def svg(self) -> str:
        """The figure as a standalone SVG file on white."""
        paper = '<rect width="100%" height="100%" fill="white"/>'
        return re.sub(r"(<svg[^>]*>)", lambda m: m[1] + paper, self._drawn_svg, count=1)

    def inline(self) -> str:
        """The figure as an ``<svg>`` element with an accessible name, in the page's colours."""
        text = self._drawn_svg
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
        # ids are unique in one file, not in a page with several.
        text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.name}-", text)
        text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
        text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", text)
        for colour, variable in PALETTE.items():
            text = text.replace(colour, f"var({variable})")
        name, what = escape(self.title), escape(self.description)
        label = f'<title id="{self.name}-t">{name}</title><desc id="{self.name}-d">{what}</desc>'
        text = text.replace("<svg", f'<svg role="img" aria-labelledby="{self.name}-t {self.name}-d"', 1)
        text = re.sub(r"(<svg[^>]*>)", lambda m: m[1] + label, text, count=1)
        for gid, hint in self._hints.items():
            opening = f'<g id="{self.name}-{gid}">'
            text = text.replace(opening, f"{opening}<title>{escape(hint)}</title>")
        return text.strip()

    @cached_property
    def _drawn_svg(self) -> str:
        return self._save("svg", transparent=True, metadata={"Date": None}).decode("utf-8")

    def _save(self, kind: str, **options: Any) -> bytes:
        from matplotlib import rc_context

        buffer = io.BytesIO()
        with rc_context(_STYLE):
            self._drawing.savefig(buffer, format=kind, **options)
        return buffer.getvalue()


def drawing_with_axes(simulated: bool, size: tuple[float, float] = _SIZE) -> tuple[Any, Any]:
    """A figure and its axes, with SIMULATED across them where the joules are."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=size, layout="constrained")
    axes = drawing.add_subplot()
    if simulated:
        drawing.text(
            0.55,
            0.5,
            "SIMULATED",
            color=SERIES[1],
            alpha=0.22,
            fontsize=34,
            rotation=24,
            ha="center",
            va="center",
        )
    return drawing, axes


def styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws under the house style; matplotlib is imported when a figure is, and missed by name."""

    @wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Figure:
        try:
            from matplotlib import rc_context
        except ImportError as error:
            raise RunError(
                "figures need matplotlib, which is not installed: pip install matplotlib"
            ) from error
        with rc_context(_STYLE):
            return function(*args, **kwargs)

    return inside


@styled
def error_cdf(errors: Mapping[str, Sequence[float]], level: str, simulated: bool) -> Figure:
    """Figure 3: the share of nodes whose absolute error (percent) is at most x, one curve a tier."""
    drawing, axes = drawing_with_axes(simulated)
    words, end = [], 0.0
    for (tier, values), colour, dash in zip(errors.items(), SERIES, ("-", "--", "-.", ":"), strict=False):
        ordered = sorted(values)
        axes.step(
            [0.0, *ordered], [i / len(ordered) for i in range(len(ordered) + 1)],
            where="post", color=colour, linestyle=dash, label=tier,
        )  # fmt: skip
        half, most = (
            ordered[(len(ordered) - 1) // 2],
            ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        )
        words.append(
            f"{tier}: half within {half:.2g} %, 99 % within {most:.2g} %, all within {ordered[-1]:.3g} %"
        )
        end = max(end, 1.25 * most)
    if end > _LARGEST_LINEAR:
        axes.set_xscale("symlog", linthresh=1.0)
    axes.set(xlabel="absolute error (%)", ylabel="share of predictions", xlim=(0, end or 1.0), ylim=(0, 1.01))
    axes.legend(loc="lower right")
    what = {"model": "whole models", "module": "modules", "ml": "ML primitives"}.get(level, level)
    return Figure(f"error-cdf-{level}", f"How large errors are: {what}", "; ".join(words) + ".", drawing, {})


@styled
def predicted_against_measured(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]], tier: str, simulated: bool
) -> Figure:
    """Measured (x) against predicted (y) joules on log axes, one mark a level."""
    drawing, axes = drawing_with_axes(simulated)
    names = {"ml": "ML primitives", "module": "modules", "model": "whole models"}
    ends: list[float] = []
    for (level, (measured, predicted)), colour, mark in zip(points.items(), SERIES, _MARKS, strict=False):
        both = [(m, p) for m, p in zip(measured, predicted, strict=True) if m > 0 and p > 0]
        if not both:
            continue
        xs, ys = zip(*both, strict=True)
        ends += [min(xs), max(xs)]
        # Thousands of marks: as pixels they cost kilobytes, as vectors megabytes.
        label = f"{names.get(level, level)} ({len(both)})"
        axes.plot(xs, ys, mark, ms=3, mew=0, alpha=0.55, color=colour, label=label, rasterized=True)
    if ends:
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=INK, lw=0.8, label="equal")
    axes.set(xscale="log", yscale="log", xlabel="measured (J)", ylabel="predicted (J)")
    axes.legend(loc="upper left", fontsize=8)
    drawing.set_dpi(200)
    count = sum(len(m) for m, _ in points.values())
    words = f"{count} nodes; the closer to the line, the better. The numbers are in the error table."
    return Figure(
        f"predicted-measured-{tier}", f"Predicted against measured, tier {tier}", words, drawing, {}
    )


@styled
def coverage(observed: Mapping[str, Mapping[str, float]], nominal: float, simulated: bool) -> Figure:
    """Empirical coverage of the intervals, percent, per tier (mark) and level (row)."""
    drawing, axes = drawing_with_axes(simulated, (5.0, 2.4))
    levels = list(dict.fromkeys(level for row in observed.values() for level in row))
    words = []
    for k, (tier, row) in enumerate(observed.items()):
        heights = [levels.index(level) + (k - (len(observed) - 1) / 2) * 0.2 for level in row]
        axes.plot(list(row.values()), heights, _MARKS[k % 4], color=SERIES[k % 4], label=tier)
        words.append(f"{tier}: " + ", ".join(f"{level} {value:.1f} %" for level, value in row.items()))
    axes.axvline(nominal, color=INK, lw=0.9, ls="--")
    axes.axvspan(nominal - 2, nominal + 2, color=LINE, alpha=0.6, lw=0)
    low = min([nominal - 8, *(v for row in observed.values() for v in row.values())]) - 1
    axes.set(
        yticks=range(len(levels)),
        yticklabels=levels,
        xlabel="nodes inside their interval (%)",
        xlim=(low, 100.5),
    )
    axes.set_ylim(-0.6, len(levels) - 0.4)
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Figure("coverage", f"Do {nominal:g} % intervals hold?", "; ".join(words) + ".", drawing, {})


@styled
def energy_accuracy(rows: Sequence[dict[str, Any]], front: Sequence[int], simulated: bool) -> Figure:
    """Figure 4: energy (x, with its interval) against accuracy (y) and the Pareto front."""
    from matplotlib.ticker import LogLocator

    drawing, axes = drawing_with_axes(simulated, (5.4, 3.9))
    hints = {}
    xs = [row["energy_j"] for row in rows]
    axes.step([xs[i] for i in front], [rows[i]["accuracy"] for i in front], where="post",
              color=SERIES[1], lw=1.3, label="Pareto front", zorder=1)  # fmt: skip
    for index, row in enumerate(rows):
        low, high = row["interval_j"]
        on = index in front
        axes.plot([low, high], [row["accuracy"]] * 2, color=MUTED, lw=0.8, zorder=1)
        (mark,) = axes.plot(
            [row["energy_j"]], [row["accuracy"]], "D" if on else "o", ms=6 if on else 4.5, mew=0,
            color=SERIES[1] if on else SERIES[0], zorder=2,
        )  # fmt: skip
        mark.set_gid(f"point-{index}")
        hints[f"point-{index}"] = f"{row['model']}: {row['energy_j']:.4g} J, accuracy {row['accuracy']:g}"
    for order, index in enumerate(front):
        row = rows[index]
        place = {"xytext": (5, -10), "ha": "left"} if order % 2 else {"xytext": (-4, 6), "ha": "right"}
        axes.annotate(
            _short(row["model"]), (row["energy_j"], row["accuracy"]), textcoords="offset points", fontsize=7,
            **place,
        )  # fmt: skip
    if xs and min(xs) > 0 and max(xs) / min(xs) > 20:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="predicted energy of one pass (J)", ylabel="accuracy")
    axes.margins(0.1)
    axes.legend(loc="lower right", fontsize=8)
    best = ", ".join(
        f"{_short(rows[i]['model'])} ({rows[i]['energy_j']:.3g} J, {rows[i]['accuracy']:g})" for i in front
    )
    return Figure(
        "energy-accuracy", "Energy against accuracy", f"On the Pareto front: {best}.", drawing, hints
    )


def _short(model: str) -> str:
    """A label that fits beside its mark: the miniatures as ``L4 H256``."""
    found = re.search(r"L-(\d+)_H-(\d+)", model)
    return f"L{found[1]} H{found[2]}" if found else model.rsplit("/", 1)[-1][:22]


@styled
def heat_map(
    batches: Sequence[int],
    seqs: Sequence[int],
    cells: Mapping[tuple[int, int], dict[str, Any]],
    per: str,
    simulated: bool,
) -> Figure:
    """Joules per ``per`` (token or sequence) over batch size (columns) and sequence length (rows).

    Cells that extrapolate carry a star and a dashed frame.
    """
    drawing, axes = drawing_with_axes(
        simulated, (max(4.2, 1.2 + 0.72 * len(batches)), max(2.4, 1.1 + 0.42 * len(seqs)))
    )
    from matplotlib.patches import Rectangle

    key = f"energy_per_{per}_j"
    flat = [cell[key] for cell in cells.values() if cell[key] > 0]
    least, most = (math.log(min(flat)), math.log(max(flat))) if flat else (0.0, 0.0)
    axes.grid(False)
    hints = {}
    for r, seq in enumerate(seqs):
        for c, batch in enumerate(batches):
            cell = cells.get((batch, seq))
            if cell is None:  # a size that the model does not take
                continue
            place = (math.log(cell[key]) - least) / (most - least) if cell[key] > 0 and most > least else 0.0
            shade = min(len(SHADES) - 1, int(place * len(SHADES)))
            star, ink = "*" if cell["extrapolates"] else "", INKS[shade]
            axes.add_patch(Rectangle((c - 0.5, r - 0.5), 1.0, 1.0, fc=SHADES[shade], ec=ON_COLOUR, lw=0.8))
            text = axes.text(c, r, _joules(cell[key]) + star, ha="center", va="center", fontsize=8,
                             color=ink)  # fmt: skip
            text.set_gid(f"cell-{r}-{c}")
            low, high = cell[f"interval_per_{per}_j"]
            note = "; extrapolates" if star else ""
            hints[f"cell-{r}-{c}"] = (
                f"batch {batch}, {seq} tokens: {_joules(cell[key])} ({_joules(low)} to {_joules(high)}){note}"
            )
            if star:
                axes.add_patch(Rectangle((c - 0.46, r - 0.44), 0.92, 0.88, fill=False, ls="--", lw=1, ec=ink))
    axes.set(xlim=(-0.5, len(batches) - 0.5), ylim=(len(seqs) - 0.5, -0.5))
    axes.set(xticks=range(len(batches)), xticklabels=batches, yticks=range(len(seqs)), yticklabels=seqs,
             xlabel="batch size", ylabel="sequence length")  # fmt: skip
    words = (
        f"{len(flat)} cells from {_joules(min(flat))} to {_joules(max(flat))} per {per}."
        if flat
        else "no cells"
    )
    return Figure(f"energy-per-{per}", f"Energy per {per} (* extrapolates)", words, drawing, hints)


def _joules(value: float) -> str:
    for factor, unit in ((1.0, "J"), (1e3, "mJ"), (1e6, "µJ")):
        if abs(value) * factor >= 1 or unit == "µJ":
            return f"{value * factor:.3g} {unit}"
    raise AssertionError


@styled
def tree(prediction: Prediction, simulated: bool) -> Figure:
    """Figure 5 as a still icicle: width is joules, colour the share of the model's energy.

    Abridged as in the paper: runs of equal layers are one box.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    nodes = folded(prediction["nodes"])
    where = spans([n["parent"] for n in nodes], [n["energy_j"] for n in nodes])
    depth: list[int] = []
    for node in nodes:
        depth.append(0 if node["parent"] < 0 else depth[node["parent"]] + 1)
    drawing, axes = drawing_with_axes(simulated, (9.0, 0.9 + 0.42 * (max(depth) + 1)))
    shades = colormaps["YlOrBr"]
    whole = where[0][1] or 1.0
    for node, (start, width), level in zip(nodes, where, depth, strict=True):
        share = width / whole
        if share < 0.0005:
            continue
        tone = min(1.0, 0.08 + 0.85 * share**0.5)
        axes.add_patch(Rectangle((start, level), width, 0.94, fc=shades(tone), ec="#fffffe", lw=0.4))
        room = int(share * 118)
        if room >= 4:
            name = str(node["type"])
            text = name if len(name) <= room else name[: room - 1] + "…"
            text = f"{text} {100 * share:.1f} %" if len(text) + 7 <= room else text
            axes.text(start + width / 2, level + 0.48, text, ha="center", va="center", fontsize=7,
                      color="#fffffe" if tone > 0.62 else "#201000")  # fmt: skip
    axes.set(xlim=(0, whole), ylim=(max(depth) + 1, 0), yticks=[], xlabel="predicted energy (J)")
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    top = sorted((n for n in nodes if n["parent"] == 0), key=lambda n: -n["energy_j"])[:4]
    words = ", ".join(f"{n['type']} {n['energy_j']:.3g} J" for n in top)
    return Figure(
        "tree", f"Energy tree of {prediction['model']}", f"Largest below the root: {words}.", drawing, {}
    )


@styled
def bottleneck_bars(tables: Mapping[str, Sequence[dict[str, Any]]], simulated: bool) -> Figure:
    """Tables 10 and 12 as bars: per model the shares of its largest units, coloured by kind of part."""
    from matplotlib.patches import Patch

    drawing, axes = drawing_with_axes(simulated, (5.4, 1.4 + 0.62 * max(1, len(tables))))
    tones = dict(zip((*KINDS, "other"), (*SERIES, MUTED), strict=True))
    kinds: set[str] = set()
    for y, rows in enumerate(tables.values()):
        left = 0.0
        big = [r for r in rows if r["kind"] != "rest" and r["share"] > 0]
        for row in big[:5]:
            wide = 100 * row["share"]
            kind = kind_of(row["module"])
            kinds.add(kind)
            axes.barh(y, wide, left=left, height=0.62, color=tones[kind], edgecolor=ON_COLOUR, linewidth=0.8)
            room = int(wide / 2.1)
            if room >= 5:
                label = row["module"] if len(row["module"]) <= room else row["module"][: room - 1] + "…"
                # Shares of a bad fit can pass 100 %: what lies beyond the axes must not push them together.
                axes.text(left + wide / 2, y, label, ha="center", va="center", fontsize=7.5, color=ON_COLOUR,
                          clip_on=True)  # fmt: skip
            left += wide
    axes.set(
        yticks=range(len(tables)),
        yticklabels=list(tables),
        xlabel="share of the model's energy (%)",
        xlim=(0, 101),
    )
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.legend(
        handles=[Patch(color=tones[kind], label=kind) for kind in tones if kind in kinds],
        ncols=5, fontsize=7.5, loc="lower left", bbox_to_anchor=(0.0, 1.0), handlelength=1.0, columnspacing=1.0,
    )  # fmt: skip
    words = "; ".join(f"{m}: {r[0]['module']} {100 * r[0]['share']:.1f} %" for m, r in tables.items() if r)
    return Figure("bottlenecks", "The largest consumers of each model", f"Largest: {words}.", drawing, {})
