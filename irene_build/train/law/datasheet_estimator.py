"""An estimator of a datasheet alone: the law with its priors, nothing measured, intervals to match.

Half-widths are what the priors' errors on public tables of whole models came to (nine in ten runs of an A10, two A100s,
an M1 Pro and an RTX 4090D lie within 0.45 in natural-log units), wider by half for devices that are none of these.
"""

from __future__ import annotations

import re
from typing import Any

from irene_build.hardware.datasheets import Datasheet
from irene_build.train.estimator_file import FORMAT, VERSION, compact, package_versions
from irene_build.train.law.fit import from_datasheet
from irene_build.train.unmeasured import WIDTHS
from irene_runtime.features import FEATURES, PRIMITIVES

#: Half-widths in natural-log units: whole models, modules, leaves, and the wait for the host.
_MODEL, _MODULE, _LEAF, _HOST = 0.65, 0.9, 1.2, 1.2


def estimator(sheet: Datasheet) -> dict[str, Any]:
    """The estimator (FORMAT.md) of a device that nobody measured, for GPU joules; ``provenance`` is ``datasheet``."""
    leaf = {"terms": [{"name": "law", "columns": [0], "weight": 1.0}], "floor": 0.0}
    tier = {
        "columns": [{"feature": "law_energy"}],
        "leaf": dict.fromkeys(PRIMITIVES, leaf),
        "fallback": leaf,
        "aggregation": None,
        "interval": {
            "levels": {"model": {"q": _MODEL}, "module": {"q": _MODULE}, "ml": {"q": _LEAF}},
            "primitives": {"Host": {"q": _HOST}, "fallback": {"q": _LEAF}},
        },
        "ranges": {},
    }
    return compact({
        "format": FORMAT, "version": VERSION,
        "hardware": re.sub(r"[^a-z0-9]+", "-", sheet.name.lower()).strip("-"),
        "method": "law", "boundary": "gpu", "provenance": "datasheet", "label_source": "datasheet",
        "cost_model": "analytic", "attention": "mixed", "created_by": package_versions(), "fingerprint": {},
        "trained_on": {"models": [], "trees": 0, "nodes": 0, "distinct": 0,
                       "dtypes": ["float32", "float16", "bfloat16"], "labels": "none"},
        "evaluation": {},
        "unmeasured": {"memory": {"known": [sheet.memory_bytes], "width": WIDTHS["memory"]}},
        "law": from_datasheet(sheet), "tiers": {"static": tier},
        "features": [name for name in FEATURES if name in ("batch_size", "seq_len", "law_energy")],
        "primitives": list(PRIMITIVES),
    })  # fmt: skip
