"""Conditions of a run that the calibration did not contain, and how much wider they make an interval."""

import math
from typing import Any, List, Mapping, Tuple

from .equations import WIDEST

#: A kernel that nobody could count may take as much as so many of the others.
UNSEEN_KERNEL = 10.0

_Ends = Tuple[float, float, float, float, int]


def unmeasured(
    data: Mapping[str, Any], head: Mapping[str, Any], root: Mapping[str, float]
) -> Tuple[float, List[str]]:
    """What a run has that no run of the calibration had: how much wider (log units), and in words.

    ``data``: an estimator; one without ``unmeasured`` (FORMAT.md) is told what it lacks, and nothing gets wider.
    ``head``, ``root``: the tree's header, and its root's features.
    """
    notes, wider = [], 0.0
    known = dict(data.get("unmeasured") or _told(data, head))
    memory = known.pop("memory", None)
    for name, entry in sorted(known.items()):
        value, seen = head.get(name), entry["known"]
        if value is not None and value not in seen:
            wider += float(entry["width"])
            before, after = {"dtype": ("in ", ""), "attention": ("with ", " attention")}.get(
                name, ("with ", "")
            )
            before += name + " " if name not in ("dtype", "attention") else ""
            text = "calibrated %s%s%s alone, not %s%s"
            notes.append(text % (before, ", ".join(map(str, seen)), after, before, value))
    if memory is not None:
        size, room = weight_bytes(head, root), float(memory["known"][0])
        if size > room:
            wider += float(memory["width"])
            text = "the weights alone take %.1f GiB, this device has %.1f GiB: it cannot hold this pass"
            notes.append(text % (size / 2.0**30, room / 2.0**30))
    unseen = root.get("unseen", 0.0)
    if unseen > 0.0:
        wider += math.log1p(UNSEEN_KERNEL * unseen / max(root.get("kernels", 0.0), unseen))
        notes.append("%g kernels could not be counted: their FLOPs or weights are not known" % unseen)
    return wider, notes


def _told(data: Mapping[str, Any], head: Mapping[str, Any]) -> Mapping[str, Any]:
    dtypes = (data.get("trained_on") or {}).get("dtypes") or [head["dtype"]]
    attention = data.get("attention")
    attentions = [head["attention"] if attention == "mixed" else attention]
    return {"dtype": {"known": dtypes, "width": 0.0}, "attention": {"known": attentions, "width": 0.0}}


def weight_bytes(head: Mapping[str, Any], root: Mapping[str, float]) -> float:
    """Bytes of a tree's parameters, as many each as its dtype, or how its weights are stored, takes."""
    each = {"float64": 8.0, "float16": 2.0, "bfloat16": 2.0}.get(head["dtype"], 4.0)
    stored = head.get("weights")
    if stored not in (None, "full"):
        each = min(each, 1.0 if "8" in str(stored) else 0.5)
    return root.get("num_parameters", 0.0) * each


def all_widened(values: List[_Ends], wider: float) -> List[_Ends]:
    """Predicted values (energy, low, high, alpha, flags) with their ends ``wider`` log units apart on each side."""
    if wider <= 0.0:
        return values
    return [(e, *widened(e, low, high, wider), alpha, flags) for e, low, high, alpha, flags in values]


def widened(energy: float, low: float, high: float, wider: float) -> Tuple[float, float]:
    """An interval's ends, ``wider`` log units further from the energy, at most WIDEST in all."""
    if energy == 0.0:
        return low, high
    factor, most = math.exp(min(wider, WIDEST)), math.exp(WIDEST)
    ends = (low / factor, high * factor) if energy > 0.0 else (low * factor, high / factor)
    caps = sorted((energy / most, energy * most))
    return max(ends[0], caps[0]), min(ends[1], caps[1])
