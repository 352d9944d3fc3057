"""Figure 3 as a picture (matplotlib, an optional extra)."""

from __future__ import annotations

from pathlib import Path

from irene_build.errors import InputError


def draw_cdf(cdf: dict[str, list[float]], path: Path) -> None:
    """Write the CDF of model-level errors as PNG or SVG, by the suffix.

    Raises InputError where matplotlib is missing or the suffix is another.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{path}: a figure is written as .png or .svg")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("figures need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.step([0.0, *cdf["error_percent"]], [0.0, *cdf["share_percent"]], where="post")
    axes.set_xlabel("error at model level (%)")
    axes.set_ylabel("predictions up to it (%)")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
