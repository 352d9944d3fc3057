"""`calibrate` and `relabel` as a user meets them: the simulated PC behind a real pseudo-terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irene_build
from irene_build.calibrate import targets
from irene_build.calibrate.request import parse_seconds
from irene_build.cli import main
from irene_build.dataset.store import load_dataset, save_dataset
from irene_build.dataset.table import Dataset
from irene_build.errors import InputError
from irene_build.measure.plan import Target

Calibrated = tuple[Path, dict[str, Any], str]
_ROOT = Path(__file__).resolve().parents[2]
TOY = [
    "calibrate", "--hardware", "virtual", "--model", "tests.measure.toy:model", "--grid", "2x8", "--no-train",
    "--precision", "0.5", "--budget", "15s",
]  # fmt: skip


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "irene_build.cli", "--artifacts", str(folder), *arguments]


def says(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of a command that exits with ``code``."""
    with pytest.raises(SystemExit) as caught:
        main(["--artifacts", str(folder), *arguments])
    captured = capsys.readouterr()
    assert caught.value.code == code, captured.err
    return captured.out, captured.err


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that exits with 2."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("irene-build:")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    """A toy model's calibration, killed after its first trial and run again to its end.

    Gives the folder of artifacts, and the result and the notes of the second run. The simulated PC's meter
    has frames of 50 ms, so that all windows are as short.
    """
    folder = tmp_path_factory.mktemp("artifacts")
    quick_frames(folder)
    path = folder / "virtual" / "campaign.sqlite"
    process = subprocess.Popen(command(folder, *TOY), cwd=_ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120.0
    while not trials(path):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main(["--artifacts", str(folder), *TOY, "--json"])
    assert caught.value.code == 0, err.getvalue()
    return folder, json.loads(out.getvalue()), err.getvalue()


def quick_frames(folder: Path) -> None:
    """The profile ``virtual`` in a folder of artifacts, with shorter frames."""
    text = (Path(irene_build.__file__).parent / "hardware" / "virtual.toml").read_text()
    (folder / "virtual").mkdir()
    (folder / "virtual" / "hardware.toml").write_text(text.replace("= 0.170", "= 0.050"))


def trials(path: Path) -> int:
    """Trials in a journal that may not be there yet."""
    if not path.exists():
        return 0
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT COUNT(*) FROM trial").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        database.close()


def test_killed_and_run_again_every_node_has_its_label_once(calibrated: Calibrated) -> None:
    folder, result, said = calibrated
    assert result["finished"] and result["labelled"] == result["works"] == 3
    assert "going on with the campaign" in said
    dataset = load_dataset(folder / "virtual" / "campaign.sqlite")
    assert [len(tree.tree.nodes) for tree in dataset.trees] == [3]
    tree = dataset.trees[0]
    assert sorted(tree.measurement) == [0, 1, 2]
    assert (tree.energy_j > 0.0).all() and np.isfinite(tree.resources[:, [0, 1, 6]]).all()
    sessions = dataset.info["sessions"]
    assert len(sessions) == 2 and all(session["sampler"]["on_share"] > 0.0 for session in sessions)


def test_ctrl_c_says_how_to_go_on(
    calibrated: Calibrated,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("irene_build.dataset.store.save_dataset", interrupt)
    # A shell starts what runs in its background with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    err = says(capsys, calibrated[0], "calibrate", "--hardware", "virtual", "--no-train", code=130)[1]
    assert "interrupted; run the same command again to go on" in err


def test_everything_says_simulated(calibrated: Calibrated, capsys: pytest.CaptureFixture[str]) -> None:
    folder, result, said = calibrated
    assert "SIMULATED" in said
    assert result["provenance"] == "simulated" and result["boundary"] == "wall"
    assert load_dataset(folder / "virtual" / "campaign.sqlite").provenance == "simulated"
    out, err = says(capsys, folder, "calibrate", "--hardware", "virtual", "--no-train")
    assert "simulated labels" in out and "finished campaign" in err


def copied(calibrated: Calibrated, folder: Path) -> Path:
    """The campaign in a folder of artifacts of its own; its file."""
    copy = folder / "virtual" / "campaign.sqlite"
    copy.parent.mkdir()
    copy.write_bytes((calibrated[0] / "virtual" / "campaign.sqlite").read_bytes())
    return copy


def test_total_and_above_idle_energy_are_both_told(
    calibrated: Calibrated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, result, _ = calibrated
    assert result["energy_j"] > 0.0 and result["above_idle_j"] < result["energy_j"]
    assert result["above_idle_share"] == pytest.approx(result["above_idle_j"] / result["energy_j"])
    info = load_dataset(folder / "virtual" / "campaign.sqlite").info
    assert sum(info["above_idle"].values()) == pytest.approx(result["above_idle_j"])
    copied(calibrated, tmp_path)
    told = json.loads(says(capsys, tmp_path, "relabel", "--hardware", "virtual", "--json")[0])
    assert len(told["results"]) == 3
    for row in told["results"]:
        assert row["above_idle_j"] < row["energy_j"] and row["windows"] >= 1
    assert sum(row["energy_j"] for row in told["results"]) == pytest.approx(result["energy_j"])
    assert all(clock["pulses"] <= clock["sent"] and clock["residual_s"] > 0.0 for clock in told["clocks"])


def test_an_estimator_of_another_pc_is_carried_over_and_its_error_told_with_and_without_labels(
    calibrated: Calibrated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from irene_build.train import api, estimator_file

    dataset = load_dataset(copied(calibrated, tmp_path))
    # The other PC draws 3 % more for the same work.
    trees = [replace(tree, energy_j=1.03 * tree.energy_j) for tree in dataset.trees]
    other = replace(dataset, hardware="other", trees=trees)
    (tmp_path / "other").mkdir()
    estimator_file.save(api.fit(other), tmp_path / "other" / "estimator.json")
    few = ("calibrate", "--hardware", "virtual", "--resume", "--from", "other", "--labels", "3")
    result = json.loads(says(capsys, tmp_path, *few, "--json")[0])
    assert result["carried_from"] == "other" and result["finished"]
    for errors in result["transfer"].values():
        assert errors["labels"] == 3.0 and errors["no_label"] >= 0.0 and errors["carried"] >= 0.0
    carried = estimator_file.load(tmp_path / "virtual" / "estimator.json")
    assert carried["hardware"] == "virtual" and carried["provenance"] == "simulated"
    assert carried["trained_on"]["carried_from"] == "other"
    text = says(capsys, tmp_path, *few)[0]
    assert (
        "error of the estimator of other here" in text
        and "no label" in text
        and "carried by 2 labels" in text
    )


def test_relabel_is_bit_for_bit_and_check_notices_a_changed_sample(
    calibrated: Calibrated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    copy = copied(calibrated, tmp_path)
    relabel = ("relabel", "--hardware", "virtual")
    assert json.loads(says(capsys, tmp_path, *relabel, "--check", "--json")[0])["identical"]
    with sqlite3.connect(copy) as database:
        database.execute("UPDATE power SET value = value + 1")
    database.close()
    assert "differ from what the raw samples say" in says(capsys, tmp_path, *relabel, "--check", code=1)[1]
    with sqlite3.connect(copy) as database:
        database.execute("UPDATE campaign SET value = 'false' WHERE key = 'finished'")
    database.close()
    assert "was broken off" in says(capsys, tmp_path, *relabel, "--check", code=1)[1]
    before = load_dataset(copy).trees[0].energy_j
    assert "labels changed" in says(capsys, tmp_path, *relabel)[0]
    assert (load_dataset(copy).trees[0].energy_j > before).all()
    assert "to the bit" in says(capsys, tmp_path, *relabel, "--check")[0]


def test_other_arguments_are_refused(
    calibrated: Calibrated, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(calibrated[0]))
    line = fails(capsys, *TOY, "--seed", "5")
    assert "seed was None, now 5" in line and "--resume" in line and "--new" in line


def test_an_imported_dataset_is_not_mixed_with_a_campaign_and_new_keeps_it_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    path = tmp_path / "pc1" / "campaign.sqlite"
    save_dataset(Dataset("pc1", "wall", "measured", "emonpi", []), path)
    assert "--new keeps it aside" in fails(capsys, "calibrate", "--hardware", "pc1", "--grid", "1x8")
    assert load_dataset(path).hardware == "pc1"
    if not any(Path("/dev").glob("tty[UA]*")):
        fails(capsys, "calibrate", "--hardware", "pc1", "--device", "cpu", "--new")
        assert load_dataset(path.with_name("campaign-1.sqlite")).hardware == "pc1"
        assert not path.exists()


def test_a_dry_run_prints_the_plan_and_needs_no_meter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    arguments = ["calibrate", "--hardware", "pc1", "--device", "cpu", *TOY[3:7], "--dry-run"]
    plan = json.loads(says(capsys, tmp_path, *arguments, "--json")[0])
    assert plan["works"] == 3 and plan["meter"] == "emonpi" and plan["seconds"] > 10.0
    text = says(capsys, tmp_path, *arguments)[0]
    assert "3 distinct nodes" in text and "measuring takes" in text
    assert list(tmp_path.iterdir()) == []


def test_hardware_without_its_meter_fails_in_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path / "artifacts"))
    if any(Path("/dev").glob("ttyUSB*")) or any(Path("/dev").glob("ttyACM*")):
        pytest.skip("a serial device is here")
    asked = ["calibrate", "--hardware", "pc1", "--device", "cpu", "--model", "tests.measure.toy:model"]
    line = fails(capsys, *asked, "--grid", "1x8")
    assert ("pc1" in line and "instead" in line) or "would work" in line
    assert not (tmp_path / "artifacts" / "pc1").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--hardware", "nowhere"], "unknown hardware 'nowhere'"),
        (["--hardware", "virtual", "--grid", " , "], "the grid is empty"),
        (["--hardware", "virtual", "--grid", "8x0"], "grid '8x0'"),
        (["--hardware", "virtual", "--grid", "8,32"], "grid '8'"),
        (["--hardware", "virtual", "--budget", "soon"], "time 'soon'"),
        (["--hardware", "virtual", "--budget", "0s"], "time '0s'"),
        (["--hardware", "virtual", "--precision", "0"], "--precision 0"),
        (["--hardware", "virtual", "--method", "magic"], "--method 'magic'"),
        (["--hardware", "virtual", "--from", "pc1"], "belong together"),
        (["--hardware", "virtual", "--resume", "--new"], "exclude each other"),
        (["--hardware", "virtual", "--threads", "-1"], "--threads -1"),
        (["--hardware", "virtual", "--resume"], "nothing to resume"),
        (["--hardware", "virtual", "--plan", "no.toml"], "plan no.toml"),
        (["--hardware", "virtual", "--plan", "no.toml", "--grid", "1x8"], "leave out"),
        (["--hardware", "virtual", "--device", "tpu", "--dry-run"], "unknown device 'tpu'"),
        (["--hardware", "virtual", "--meter", "spoon"], "unknown meter 'spoon'"),
        (
            ["--hardware", "virtual", "--model", "no-such-model", "--grid", "1x8", "--dry-run"],
            "no-such-model",
        ),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    arguments: list[str],
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path / "artifacts"))
    assert what in fails(capsys, "calibrate", *arguments)
    assert not (tmp_path / "artifacts").exists() or not any((tmp_path / "artifacts").iterdir())


@pytest.mark.parametrize(
    ("last_model", "budget", "what"),
    [
        ("no-such-model", "10m", "no-such-model"),
        ("tests.measure.toy:model", "2s", "a budget of 2 s is too short"),
        ("tests.measure.toy:model", "6s", "too short"),
    ],
)
def test_what_cannot_be_measured_is_found_before_the_meter_is_opened(
    last_model: str, budget: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown model after ten good targets, a budget for no node, for no input: the meter is not looked for."""
    plan, profile = tmp_path / "plan.toml", tmp_path / "no-meter.toml"
    models = ["tests.measure.toy:model"] * 10 + [last_model]
    plan.write_text("".join(f'[[target]]\nmodel = "{m}"\ngrid = "{n}x8"\n' for n, m in enumerate(models, 1)))
    profile.write_text('[meter]\ndriver = "emonpi"\nport = "/dev/there-is-none"\n')
    asked = ("calibrate", "--hardware", str(profile), "--plan", str(plan), "--budget", budget)
    _, err = says(capsys, tmp_path / "artifacts", *asked, code=2)
    assert what in err and "there-is-none" not in err and "tracing" not in err


def test_times_are_read_in_seconds_minutes_and_hours() -> None:
    for text, seconds in (("30m", 1800.0), ("1.5", 1.5), ("90 s", 90.0), ("2min", 120.0), ("1h", 3600.0)):
        assert parse_seconds(text) == seconds


def test_a_plan_file_gives_targets_and_says_what_is_wrong_in_it(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        '[[target]]\nmodel = "gpt2"\ngrid = "1x8,2x16"\ndtype = "bfloat16"\n'
        '[[target]]\nmodel = "bert-base-uncased"\ngrid = "8x128"\nparts = "leaves"\n'
    )
    assert targets.read_plan_file(file) == [
        Target("gpt2", 1, 8, dtype="bfloat16"),
        Target("gpt2", 2, 16, dtype="bfloat16"),
        Target("bert-base-uncased", 8, 128, parts="leaves"),
    ]
    for text, what in (
        ('[[target]]\nmodel = "gpt2"\n', "model and grid must be text"),
        ('[[target]]\nmodel = "gpt2"\ngrid = "1x8"\nspeed = 3\n', "unknown speed"),
        ("target = 3\n", r"expected \[\[target\]\]"),
        ("[[", "plan"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=what):
            targets.read_plan_file(file)


def test_the_default_plan_holds_in_three_minutes_and_touches_bert_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from irene_build.trace import trace
    from irene_build.trace.keys import work_keys

    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    plan = json.loads(says(capsys, tmp_path, "calibrate", "--hardware", "virtual", "--dry-run", "--json")[0])
    assert plan["seconds"] <= 180.0 and plan["works"] >= 40 and len(plan["targets"]) >= 4
    measured = {
        key
        for target in targets.default_targets("cpu", 180.0, (), "")
        for key in work_keys(trace(target.model, target.batch_size, target.seq_len))
    }
    tree = trace("bert-base-uncased", 8, 128)
    leaves = [key for node, key in zip(tree.nodes, work_keys(tree), strict=True) if node.level == "ml"]
    assert all(key in measured for key in leaves)
