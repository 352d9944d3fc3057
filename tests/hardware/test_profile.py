"""Hardware profiles: built in, a user's own, and what is said of a broken one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.errors import HardwareError, InputError
from irene_build.hardware import load_profile, profile_names, this_pc

MINIMAL = 'device = "cpu"\n[meter]\ndriver = "rapl"\nboundary = "cpu+dram"\n'


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


def test_the_papers_two_pcs_are_those_of_table_2() -> None:
    pc1, pc2 = load_profile("pc1"), load_profile("pc2")
    assert [(p.cpu["model"], p.gpu["model"], p.gpu["memory_gib"]) for p in (pc1, pc2)] == [
        ("Intel i9-7900X", "GTX 1080 Ti", 11.2),
        ("Intel i7-6800K", "GTX 1070", 8.0),
    ]
    for pc in (pc1, pc2):
        assert (pc.gpu["count"], pc.gpu["used"], pc.memory["size_gib"]) == (2, 1, 32.0)
        assert (pc.meter["driver"], pc.boundary, pc.device, pc.meter["period_s"]) == (
            "emonpi",
            "wall",
            "cuda",
            0.17,
        )
        assert pc.strubell.pue == 1.58


def test_the_simulated_pc_names_its_standby_power_just_above_idle() -> None:
    profile = load_profile("virtual")
    model = profile.meter["model"]
    idle = model["supply_loss_w"] + model["idle_w"] / model["supply_efficiency"]
    assert profile.standby_power_w is not None
    assert idle < profile.standby_power_w < idle + 2.0


def test_every_built_in_profile_loads() -> None:
    assert {"pc1", "pc2", "virtual"} <= set(profile_names())
    for name in ("pc1", "pc2", "virtual"):
        profile = load_profile(name)
        assert profile.name == name
        assert profile.source == "built in"
        assert profile.description


def test_an_unknown_name_lists_what_exists(artifacts: Path) -> None:
    with pytest.raises(HardwareError, match=r"unknown hardware 'pc9': known are .*pc1, pc2, virtual"):
        load_profile("pc9")


@pytest.mark.parametrize("name", ["../secrets", "a b", ""])
def test_a_name_that_is_none_is_wrong_input(name: str) -> None:
    with pytest.raises(InputError):
        load_profile(name)


def test_a_users_own_profile_is_found_by_its_folder(artifacts: Path) -> None:
    (artifacts / "office").mkdir(parents=True)
    (artifacts / "office" / "hardware.toml").write_text(MINIMAL)
    assert "office" in profile_names()
    profile = load_profile("office")
    assert (profile.name, profile.boundary, profile.standby_power_w) == ("office", "cpu+dram", None)
    assert load_profile(str(artifacts / "office" / "hardware.toml")).name == "office"


def test_a_profile_can_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(MINIMAL + "[strubell]\npue = 1.1\n[supply]\nefficiency = 0.92\nboard_w = 30\n")
    profile = load_profile(str(path))
    assert (profile.name, profile.strubell.pue, profile.supply.efficiency) == ("lab", 1.1, 0.92)
    with pytest.raises(HardwareError, match="no such file"):
        load_profile(str(tmp_path / "other.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[meter", "not TOML"),
        ('device = "cpu"\n', r"meter\.driver is missing"),
        (MINIMAL.replace("cpu", "abacus", 1), "device is 'abacus'; use one of cpu, cuda"),
        ("colour = 1\n" + MINIMAL, "colour is not known here"),
        ("standby_power_w = -3\n" + MINIMAL, "standby_power_w is -3"),
        ("standby_power_w = nan\n" + MINIMAL, "standby_power_w is nan"),
        ('standby_power_w = "low"\n' + MINIMAL, "standby_power_w is 'low', not a number"),
        ("cpu = 3\n" + MINIMAL, "cpu must be a table"),
        (MINIMAL + "[supply]\nefficiency = 1.5\n", r"supply\.efficiency must be above 0"),
        (MINIMAL + "[strubell]\npua = 1\n", r"strubell\.pua is not known"),
        ('name = "a/b"\n' + MINIMAL, "hardware name"),
    ],
)
def test_a_broken_profile_names_the_file_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_profile(str(path))


def test_a_profile_that_is_not_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HardwareError, match=r"broken\.toml: not TOML"):
        load_profile(str(path))


def test_this_pc_describes_itself() -> None:
    profile = this_pc({"driver": "rapl"}, "cpu")
    assert profile.cpu["cores"] == os.cpu_count()
    assert profile.boundary == "cpu"
    assert profile.device in ("cpu", "cuda")
    assert profile.description


@given(text=st.text(max_size=60))
def test_no_text_crashes_the_loader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        load_profile(str(path))


def test_what_a_pc_can_draw_follows_from_its_parts() -> None:
    pc1 = load_profile("pc1")
    assert pc1.max_power_w is not None and 900.0 < pc1.max_power_w < 2500.0
    assert load_profile("virtual").max_power_w is None
