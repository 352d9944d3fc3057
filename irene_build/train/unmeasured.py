"""What a calibration did not contain (a dtype, a phase, ...): how much wider each makes an interval, and from where."""

from __future__ import annotations

from irene_build.dataset.table import Dataset
from irene_build.errors import IreneError
from irene_build.train.schema import Condition

#: Half-widths in natural-log units that an unmeasured condition adds: by how much nine in ten runs move that differ in
#: it alone. Sources lie in the public tables that METHOD.md names.
WIDTHS = {
    # float32 against bfloat16, 44 pairs of runs of an A100 (ea-dvfs): 90th percentile of |ln(ratio)|
    "dtype": 1.60,
    # products of at most 64 rows (decode) by the rates of those of 512 and more (prefill): H200, bfloat16 GEMMs
    "phase": 1.02,
    # fused attention by the rates of GEMMs, H200: a factor of 3.8, on the tenth of a layer's FLOPs that attention has
    "attention": 0.25,
    # NF4 and INT8 against float16, 9 pairs of runs of an RTX 4090D (eco-generate)
    "weights": 0.43,
    # sums of kernels against whole runs of a vLLM server, H100: 45 % too low
    "engine": 0.60,
    # more memory than there is: offloaded over a link a tenth as fast, or not run at all (set by hand)
    "memory": 2.30,
}
#: Phases that launch the same kernels.
_ALIKE = {"forward", "prefill"}


def conditions(dataset: Dataset) -> dict[str, Condition]:
    """The ``unmeasured`` object of an estimator (FORMAT.md): what the dataset has of each condition, and WIDTHS."""
    headers = [tree.tree.header for tree in dataset.trees]
    known: dict[str, set[str]] = {name: set() for name in WIDTHS if name != "memory"}
    for header in headers:
        known["dtype"].add(str(header["dtype"]))
        known["phase"].add(str(header["phase"]))
        known["attention"].add(str(header["attention"]))
        known["weights"].add(str(header.get("weights") or "full"))
        known["engine"].add(str(header.get("engine") or "transformers"))
    if known["phase"] & _ALIKE:
        known["phase"] |= _ALIKE
    out: dict[str, Condition] = {
        name: {"known": sorted(values), "width": WIDTHS[name]} for name, values in known.items()
    }
    memory = memory_bytes(dataset.hardware)
    if memory:
        out["memory"] = {"known": [memory], "width": WIDTHS["memory"]}
    return out


#: The same where a physical law stands below: it knows what a dtype and a phase change, as far as the priors of its
#: rates go (0.5 in natural-log units, `train.law.numbers`); 16-bit dtypes have one rate.
BY_LAW = {"dtype": 0.5, "phase": 0.5}
_SIXTEEN = {"float16", "bfloat16"}


def conditions_of_law(dataset: Dataset, memory: float) -> dict[str, Condition]:
    """As ``conditions``, of whole models predicted by the law of a device with so many bytes of memory."""
    out = conditions(dataset)
    for name, width in BY_LAW.items():
        out[name]["width"] = width
    if _SIXTEEN & set(out["dtype"]["known"]):
        out["dtype"]["known"] = sorted({*map(str, out["dtype"]["known"]), *_SIXTEEN})
    out["memory"] = {"known": [memory], "width": WIDTHS["memory"]}
    return out


def memory_bytes(hardware: str) -> float | None:
    """Memory of the GPU of a hardware profile, its own word or the datasheet's; None where it is not known."""
    from irene_build.hardware.datasheets import datasheet
    from irene_build.hardware.profile import load_profile

    try:
        gpu = load_profile(hardware).gpu
        if "memory_gib" in gpu:
            return float(gpu["memory_gib"]) * 2.0**30
        return datasheet(str(gpu["model"])).memory_bytes if "model" in gpu else None
    except IreneError:
        return None
