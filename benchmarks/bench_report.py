"""The pages: their size, how long they take to make, and how fluent they are with a large tree in a browser.

    python benchmarks/bench_report.py [--model DeepSeek-V3] [--json]

Traces the model (no weights), lays made-up joules over it (only sizes and times matter here), renders the
page and drives it in headless Chromium: time until the tree is drawn, frames while zooming through the layers,
search, expanding all. Frame times are between animation frames, so 16.7 ms is the best there is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
ZOOM = """async () => {
  const frames = [];
  let last = performance.now(), on = true;
  const tick = (now) => { frames.push(now - last); last = now; if (on) requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
  const svg = document.querySelector('.icicle');
  for (let k = 0; k < 12; k++) {
    const boxes = [...document.querySelectorAll('.icicle g.node')].filter((g) => g.node.children.length);
    const target = k % 3 === 2 ? boxes.find((g) => !g.node.parent) : boxes[Math.floor(boxes.length * 0.6)];
    target.dispatchEvent(new MouseEvent('click', {bubbles: true}));
    await new Promise((done) => setTimeout(done, 320));
  }
  on = false;
  return frames.slice(2);
}"""
TIMED = """async ([selector, value]) => {
  const element = document.querySelector(selector), start = performance.now();
  if (value === null) element.click();
  else { element.value = value; element.dispatchEvent(new Event('input', {bubbles: true})); }
  await new Promise((done) => setTimeout(() => requestAnimationFrame(done), value === null ? 0 : 121));
  return performance.now() - start - (value === null ? 0 : 121);
}"""


def prediction_of(model: str) -> dict[str, Any]:
    """A prediction of ``model`` at 1 x 512: energy follows bytes and FLOPs, flags and intervals as usual."""
    from irene_build.trace import trace

    nodes = trace(model, 1, 512).nodes
    energy = [0.0] * len(nodes)
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        own = 1e-4 + 1e-4 * node.features.get("mem_bytes", 0.0) + 1e-7 * node.features.get("flops", 0.0)
        energy[index] = energy[index] or own
        if node.parent >= 0:
            energy[node.parent] += energy[index]
    rows = [
        {
            "index": k, "scope": n.scope, "type": n.type, "call": n.call, "level": n.level,
            "parent": n.parent, "primitive": n.primitive, "energy_j": e, "interval_j": [0.9 * e, 1.1 * e],
            "share": e / energy[0], "alpha": 1.0, "tier": "static",
            "flags": ["extrapolates"] if k % 50 == 49 else [],
        }
        for k, (n, e) in enumerate(zip(nodes, energy, strict=True))
    ]  # fmt: skip
    return {
        "format": "irene-prediction", "version": 1, "model": model, "batch_size": 1, "seq_len": 512,
        "phase": "forward", "past_len": 0, "hardware": "made-up", "boundary": "wall",
        "provenance": "simulated", "digest": "", "tier": "static", "energy_j": energy[0],
        "interval_j": rows[0]["interval_j"],
        "coverage": 0.9, "flags": ["simulated"], "notes": ["made-up joules: a benchmark of the page"],
        "nodes": rows,
    }  # fmt: skip


def drive(path: Path) -> dict[str, Any]:
    """Times in ms of the page in Chromium; empty where there is no browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        tab.goto(path.as_uri())
        tab.wait_for_selector(".icicle g.node")
        opened = 1000 * (time.perf_counter() - start)
        tab.locator("[name=fold]").uncheck()
        boxes = tab.locator(".icicle g.node").count()
        frames = tab.evaluate(ZOOM)
        search = tab.evaluate(TIMED, ["[name=search]", "mlp linear"])
        tab.evaluate(TIMED, ["[name=search]", ""])
        expand = tab.evaluate(TIMED, ["[name=expand]", None])
        browser.close()
    frames.sort()
    return {
        "open_ms": opened, "boxes_drawn": boxes, "frames": len(frames),
        "frame_ms_median": statistics.median(frames),
        "frame_ms_p95": frames[int(0.95 * len(frames))], "frame_ms_max": frames[-1], "search_ms": search,
        "expand_all_ms": expand,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="DeepSeek-V3")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from irene_build.report.html import render_prediction
    from irene_build.report.payload import forest

    prediction = prediction_of(options.model)
    data = len(json.dumps(forest([prediction]), separators=(",", ":")))
    start = time.perf_counter()
    page = render_prediction(prediction)
    result = {
        "model": options.model, "nodes": len(prediction["nodes"]), "page_bytes": len(page.encode()),
        "data_bytes": data, "render_ms": 1000 * (time.perf_counter() - start),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8")
        result.update(drive(path))
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        for key, value in result.items():
            print(f"{key:16} {value:.1f}" if isinstance(value, float) else f"{key:16} {value}")
        if "open_ms" not in result:
            print("no chromium or no playwright: nothing was measured in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
