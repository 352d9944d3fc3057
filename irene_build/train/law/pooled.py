"""Partial pooling of the law's numbers over hosts of one kind whose labels are of whole models.

A host's fit says a number (its logarithm) with a deviation that holds its prior as well; what the labels alone say is
that without the prior. Over hosts these are taken as drawn from one normal distribution (``moments``). What comes of it
is the prior of the next host: the number where the hosts and the datasheet put it, as wide as hosts differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.hardware.datasheets import Datasheet
from irene_build.train.law.device import sheet_of
from irene_build.train.law.fit import fit, labels
from irene_build.train.law.numbers import Number, numbers
from irene_build.train.moments import moments

#: Hosts of one kind usually differ by this share of what a datasheet leaves open; it counts as one host.
HOST_SHARE = 0.5
#: Labels that say less of a number than this share of its prior are not heard on it.
HEARD = 0.25


def fitted(dataset: Dataset) -> dict[str, Any]:
    """The law of a host by all its whole-model labels, failed runs left out. Raises DatasetError where it has none."""
    failed = dataset.info.get("implausible") or {}
    trees = [t for t in dataset.trees if t.energy_j[0] > 0.0 and str(int(t.measurement[0])) not in failed]
    if not trees:
        raise DatasetError(f"the dataset of {dataset.hardware} has no tree with a whole-model label")
    return fit(labels(trees), sheet_of(dataset))


def read_prior(path: Path) -> dict[str, dict[str, Any]]:
    """The numbers of a file that `irene-build pool` wrote. Raises DatasetError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, dict[str, Any]] = data["numbers"]
        good = data["format"] == "irene-law-prior" and all(
            entry["prior"] > 0.0 and entry["width"] > 0.0 for entry in found.values()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        good = False
    if not good:
        raise DatasetError(
            f"{path} is no law_prior.json: `irene-build pool A B -o KIND` writes one of whole models"
        )
    return found


def shared(laws: Mapping[str, Mapping[str, Any]], sheet: Datasheet) -> dict[str, dict[str, Any]]:
    """Per number ``{prior, width, between, hosts}`` for the next host of the kind; ``laws``: per host its fitted law.

    ``hosts``: what each host's labels say alone. Raises DatasetError where there is no fitted law.
    """
    if not laws:
        raise DatasetError("pooling wants the campaign of at least one host")
    out = {}
    for name, number in numbers(sheet).items():
        said: dict[str, tuple[float, float]] = {}
        for host, law in laws.items():
            fitted = law["numbers"][name]
            before, width = math.log(fitted["prior"]), fitted["width"]
            precision = fitted["deviation"] ** -2.0 - width**-2.0
            if precision > HEARD * width**-2.0:
                value = (
                    math.log(fitted["value"]) * fitted["deviation"] ** -2.0 - before * width**-2.0
                ) / precision
                said[host] = (value, precision**-0.5)
        out[name] = _expected(said, number)
    return out


def _expected(said: Mapping[str, tuple[float, float]], number: Number) -> dict[str, Any]:
    hosts = {host: math.exp(value) for host, (value, _) in said.items()}
    if not said:
        return {"prior": number.prior, "width": number.width, "between": None, "hosts": hosts}
    values, errors = np.array(list(said.values())).T[:, :, None]
    mean, between, unsure = (float(part[0]) for part in moments(values, errors))
    count = len(said) - 1.0
    usual = HOST_SHARE * number.width
    spread = math.sqrt((count * between**2 + usual**2) / (count + 1.0))
    told = unsure**-2.0 if count else 1.0 / (unsure**2 + spread**2)
    held = number.width**-2.0
    middle = (mean * told + math.log(number.prior) * held) / (told + held)
    width = math.sqrt(spread**2 + 1.0 / (told + held)) if count else spread
    return {
        "prior": math.exp(middle), "width": min(width, number.width), "hosts": hosts,
        "between": between if count else None,
    }  # fmt: skip


def prior_of(dataset: Dataset, sheet: Datasheet) -> dict[str, Number] | None:
    """The prior that a dataset was given (``info["law_prior"]``, as ``shared`` makes it); None where it has none."""
    given = dataset.info.get("law_prior")
    if not given:
        return None
    return {
        name: number._replace(prior=float(given[name]["prior"]), width=float(given[name]["width"]))
        for name, number in numbers(sheet).items()
        if name in given
    } | {name: number for name, number in numbers(sheet).items() if name not in given}
