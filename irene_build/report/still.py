"""The energy tree as a still icicle in plain SVG, for readers without JavaScript; no library is needed."""

from __future__ import annotations

from html import escape

from irene_build.report.predictions import Prediction, folded, spans

_WIDTH, _ROW = 1000.0, 24
#: Boxes below this share of the width are left out: they cannot be seen.
_LEAST = 0.002


def icicle(prediction: Prediction) -> str:
    """An ``<svg>`` element: width is joules, parts lie under what they belong to, equal layers are one box."""
    nodes = folded(prediction["nodes"])
    places = spans([n["parent"] for n in nodes], [n["energy_j"] for n in nodes])
    whole = places[0][1] or 1.0
    depth: list[int] = []
    boxes = []
    for node, (start, width) in zip(nodes, places, strict=True):
        depth.append(0 if node["parent"] < 0 else depth[node["parent"]] + 1)
        if width / whole < _LEAST:
            continue
        x, wide, y = _WIDTH * start / whole, _WIDTH * width / whole, _ROW * depth[-1]
        share = node["energy_j"] / whole
        tone = 22 + round(58 * min(1.0, max(0.0, share)) ** 0.5)
        name = str(node["type"])
        room = int((wide - 8) / 6.5)
        text = f"{name} {100 * share:.1f} %"
        text = text if len(text) <= room else name[:room] if room >= 4 else ""
        boxes.append(
            f'<g><title>{escape(name)}: {100 * share:.2f} %</title><rect x="{x:.1f}" y="{y}" width="{wide:.1f}" '
            f'height="{_ROW - 1}" rx="2" fill="color-mix(in srgb, var(--c2) {tone}%, var(--panel))"/>'
            f'<text x="{x + 4:.1f}" y="{y + 15}" fill="var(--ink)">{escape(text)}</text></g>'
        )
    high = _ROW * (max(depth) + 1)
    return (
        f'<svg class="still" role="img" aria-label="Energy tree, a still picture" viewBox="0 0 {_WIDTH:g} {high}">'
        + "".join(boxes)
        + "</svg>"
    )
