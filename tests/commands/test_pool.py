"""``irene-build pool`` makes an estimator of a kind, and `calibrate --from` draws labels to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irene_build import cli
from irene_build.dataset.store import save_dataset
from irene_build.train import best, estimator_file
from tests.train.test_pooling import HOSTS, host


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    for name in HOSTS:
        (folder / name).mkdir()
        save_dataset(host(name), folder / name / "campaign.sqlite")
    estimator_file.save(best.fit(host("a")), folder / "a" / "estimator.json")
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_the_next_host_is_calibrated_from_the_kind(
    capsys: pytest.CaptureFixture[str], artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(artifacts))
    code, out, err = call(capsys, "pool", "a", "b", "c", "-o", "kind")
    assert code == 0 and "differ by" in out and "calibrate --from kind" in err
    code, out, _ = call(capsys, "pool", "a", "b", "c", "-o", "kind", "--json")
    assert code == 0 and set(json.loads(out)["left_out_percent"]) == {"a", "b", "c"}
    code, out, _ = call(capsys, "calibrate", "--from", "kind", "--labels", "8", "--hardware", "d", "--json")
    found = json.loads(out)
    assert code == 0 and found["no_label"]["profile"]["model"] < 3.0
    assert found["carried"]["profile"]["model"] < found["full"]["profile"]["model"] + 0.3


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        (("a",), "name two or more hosts"), (("a", "a"), "name two or more hosts"),
        (("a", "kind2"), "one of the hosts"), (("a", "nowhere"), "nowhere"),
    ],
)  # fmt: skip
def test_wrong_hosts_are_one_line(
    capsys: pytest.CaptureFixture[str],
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    hosts: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(artifacts))
    code, _, err = call(capsys, "pool", *hosts, "-o", "kind2")
    assert code == 2 and message in err and err.count("\n") == 1
    assert not (artifacts / "kind2").exists()
