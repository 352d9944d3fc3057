"""The ``[meter]`` table of a profile: what is misspelt or cannot be is named before anything is opened."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import irene_build
from irene_build.errors import HardwareError
from irene_build.hardware import load_profile
from irene_build.meters import DRIVERS, open_meter
from irene_build.meters.settings import SETTINGS


@pytest.mark.parametrize(
    ("meter", "message"),
    [
        ({"driver": "emonpi", "ct_turn": 3}, r"meter\.ct_turn is no setting of emonpi: it has .*ct_turns"),
        ({"driver": "emonpi", "ct_turns": 0}, r"meter\.ct_turns is 0: must be a whole number from 1"),
        ({"driver": "emonpi", "baud": "fast"}, r"meter\.baud is 'fast': must be auto or a baud rate"),
        ({"driver": "rapl", "poll_s": "fast"}, r"meter\.poll_s is 'fast': must be a number from 0\.001"),
        ({"driver": "rapl", "poll_s": math.nan}, r"meter\.poll_s is nan: must be a number"),
        ({"driver": "rapl", "psys": "yes"}, r"meter\.psys is 'yes': must be true or false"),
        ({"driver": "shelly", "host": 7}, r"meter\.host is 7: must be text"),
        ({"driver": "nvml", "gpu": 1.5}, r"meter\.gpu is 1\.5: must be a whole number"),
        ({"driver": "rapl+nvml", "rapl": {"roots": "/"}}, r"meter\.roots is no setting of rapl"),
        ({"driver": "emonpi", "reconcile": "rapl", "rapl": {"poll_s": -1}}, r"meter\.poll_s is -1"),
    ],
)
def test_a_setting_that_is_wrong_is_named_in_one_line(meter: dict[str, Any], message: str) -> None:
    with pytest.raises(HardwareError, match=message) as caught:
        open_meter(replace(load_profile("pc1"), meter=meter))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_settings_that_are_right_pass() -> None:
    for name in ("pc1", "pc2", "virtual", "h200-host"):
        open_meter(load_profile(name))
    sums = {
        "driver": "rapl+nvml",
        "rapl": {"psys": False, "poll_s": 1},
        "nvml": {"gpu": 0, "reading": "power"},
    }
    open_meter(replace(load_profile("pc1"), meter=sums))


def test_every_driver_has_its_settings_and_the_document_lists_them() -> None:
    assert set(SETTINGS) == set(DRIVERS)
    text = (Path(irene_build.__file__).parent / "hardware" / "PROFILE.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", row[0])
        if len(row) == 2 and names and set(names) <= set(SETTINGS) and names != ["virtual"]:
            told = set(re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", row[1])))
            assert all(told == set(SETTINGS[name]) for name in names), names
