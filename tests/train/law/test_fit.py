"""The fit of the law: it finds a device again from whole models, whatever datasheet it starts from."""

import numpy as np
import pytest

from irene_build.hardware.datasheets import datasheet
from irene_build.train.law.device import guessed, named
from irene_build.train.law.evaluate import spent
from irene_build.train.law.fit import fit, labels
from tests.train.law import models


@pytest.fixture(scope="module")
def measured():
    return models.measured()


@pytest.mark.parametrize("sheet", ["the device's", "guessed"])
def test_a_left_out_model_is_predicted(measured, sheet):
    data = labels(measured)
    device = datasheet("A100") if sheet == "the device's" else guessed(measured)
    loose = 1.0 if sheet == "the device's" else 1.5
    for left_out, bound in (("b", 0.08 * loose), ("d", 0.25 * loose)):
        law = fit(data.pick(data.model != left_out), device)
        error = spent(law, data.runs).pass_j / data.energy_j - 1.0
        assert np.abs(error[data.model == left_out]).max() < bound


def test_numbers_have_units_and_say_where_they_come_from(measured):
    law = fit(labels(measured), datasheet("A100"))
    for name, entry in law["numbers"].items():
        assert entry["unit"] and entry["meaning"] and "40 whole models" in entry["source"], name
        assert 0.0 < entry["deviation"] <= 1.01 * entry["width"]
    assert law["clock_hz"] == pytest.approx(1155e6)


def test_seconds_are_used_where_they_are_known_and_joules_alone_do(measured):
    for tree in measured[:10]:
        tree.resources[0] = np.nan
    law = fit(labels(measured), datasheet("A100"))
    error = spent(law, labels(measured).runs).pass_j / labels(measured).energy_j - 1.0
    assert np.abs(error).max() < 0.1


@pytest.mark.parametrize(
    ("text", "device"),
    [("ea-a10-bf16", "A10"), ("gw-m1-pro", "Apple M1 Pro"), ("lab-rtx-4090", "GeForce RTX 4090"), ("ea-dvfs", None),
     ("pc1", None), ("h200-host", "H200 SXM5 141GB")],
)  # fmt: skip
def test_a_device_is_read_in_a_name(text, device):
    found = named(text)
    assert (found.name if found else None) == device
