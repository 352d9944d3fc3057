"""Hosts with whole-model labels alone: the law's numbers that they share are the prior of the next."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irene_build import cli
from irene_build.dataset.store import save_dataset
from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.hardware.datasheets import datasheet
from irene_build.train.law.evaluate import spent
from irene_build.train.law.fit import fit, labels
from irene_build.train.law.pooled import fitted, prior_of, read_prior, shared
from tests.train.law import models


def host(name: str, factor: float) -> Dataset:
    """A host whose joules are so many times those of the others."""
    trees = models.measured(noise=0.01)
    for tree in trees:
        tree.energy_j[0] *= factor
    made = models.dataset(trees)
    made.hardware = name
    return made


@pytest.fixture(scope="module")
def hosts() -> dict[str, Dataset]:
    return {name: host(name, factor) for name, factor in (("a", 1.3), ("b", 1.36), ("c", 1.33))}


def test_the_next_host_is_nearer_by_what_the_others_share(hosts: dict[str, Dataset]) -> None:
    sheet = datasheet("A100")
    found = shared({name: fitted(hosts[name]) for name in ("a", "b")}, sheet)
    assert all(0.0 < one["width"] <= 1.0 for one in found.values())
    assert any(one["between"] is not None and len(one["hosts"]) == 2 for one in found.values())
    hosts["c"].info["law_prior"] = json.loads(json.dumps(found))
    every = labels(hosts["c"].trees)
    few = np.arange(len(every.model)) % 10 == 0

    def off(prior: bool) -> float:
        given = labels(hosts["c"].trees, prior_of(hosts["c"], sheet) if prior else None)
        law = fit(given.pick(few), sheet)
        return float(np.abs(spent(law, every.runs).pass_j / every.energy_j - 1.0)[~few].mean())

    assert off(True) < off(False)


def test_pool_and_train_from_the_command_line(
    hosts: dict[str, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    for name, dataset in hosts.items():
        (tmp_path / name).mkdir()
        dataset.info.pop("law_prior", None)
        save_dataset(dataset, tmp_path / name / "campaign.sqlite")
    for command in (
        ["pool", "a", "b", "-o", "kind"], ["train", "--hardware", "c", "--prior", "kind", "--no-evaluate"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as done:
            cli.main(command)
        assert not done.value.code, capsys.readouterr().err
    assert "differ by" in capsys.readouterr().out
    said = json.loads((tmp_path / "c" / "estimator.json").read_text())["law"]["numbers"]
    prior = read_prior(tmp_path / "kind" / "law_prior.json")
    assert said["static_w"]["prior"] == pytest.approx(prior["static_w"]["prior"], rel=1e-6)


def test_a_file_that_is_no_prior_is_told(tmp_path: Path) -> None:
    (tmp_path / "law_prior.json").write_text("{}")
    with pytest.raises(DatasetError, match="is no law_prior"):
        read_prior(tmp_path / "law_prior.json")
