"""A journal's results land on the right nodes of the right trees, with their provenance."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from irene_build.dataset.from_campaign import dataset_from_campaign
from irene_build.dataset.store import load_dataset, save_dataset
from irene_build.errors import DatasetError, InputError
from irene_runtime.features import RESOURCE_FEATURES
from tests.measure.doubles import DoubleWorkload, Power, double_plan, run_campaign


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign of two models that share three leaves; one leaf could not run."""
    path = tmp_path_factory.mktemp("campaign") / "campaign.sqlite"
    power = Power()
    run_campaign(path, double_plan(models=2, leaves=3), power, workload=DoubleWorkload(power, frozenset({2})))
    return path


def test_equal_nodes_share_a_measurement_and_what_was_not_measured_is_unknown(journal: Path) -> None:
    dataset = dataset_from_campaign(journal)
    assert dataset.models == ["toy0", "toy1"]
    first, second = dataset.trees
    assert (first.measurement[1:] == second.measurement[1:]).all()
    assert first.measurement[0] != second.measurement[0]
    assert first.energy_j[1] == second.energy_j[1] > 0.0
    assert first.measurement[2] == -1 and math.isnan(first.energy_j[2]) and math.isnan(first.energy_std_j[2])
    assert np.isnan(first.resources[2]).all()


def test_energies_and_resources_are_those_of_the_results(journal: Path) -> None:
    with sqlite3.connect(journal) as database:
        rows = {
            w: (e, json.loads(f))
            for w, e, f in database.execute("SELECT work, energy_j, features FROM result")
        }
    database.close()
    for tree in dataset_from_campaign(journal).trees:
        for node, work in enumerate(tree.measurement):
            if work >= 0:
                energy, features = rows[int(work)]
                assert tree.energy_j[node] == energy
                for name, value in features.items():
                    assert tree.resources[node, RESOURCE_FEATURES.index(name)] == value
                assert math.isnan(tree.resources[node, RESOURCE_FEATURES.index("gpu_energy")])


def test_provenance_and_how_it_was_measured_come_along(journal: Path) -> None:
    dataset = dataset_from_campaign(journal)
    assert (dataset.hardware, dataset.boundary, dataset.provenance) == ("double", "wall", "simulated")
    assert dataset.label_source == "double"
    info = dataset.info
    assert info["finished"] and info["trials"] - info["rejected_trials"] >= 8
    assert info["protocol"]["seed"] == 3 and info["clocks"][0]["pulses"] == 2
    assert info["sessions"][0]["meter"]["name"] == "double"


def test_it_can_be_kept_in_the_journal_itself(journal: Path) -> None:
    dataset = dataset_from_campaign(journal)
    save_dataset(dataset, journal)
    again = load_dataset(journal)
    assert again.info == dataset.info
    assert [t.energy_j.tobytes() for t in again.trees] == [t.energy_j.tobytes() for t in dataset.trees]
    assert dataset_from_campaign(journal).trees[0].energy_j.tobytes() == dataset.trees[0].energy_j.tobytes()


def test_the_meter_that_gives_the_label_gives_no_feature(tmp_path: Path) -> None:
    """DESIGN, rule 4: with NVML as the meter, gpu_energy is the label."""
    import time

    from irene_build.measure.journal import Journal
    from irene_build.measure.relabel import relabel
    from irene_runtime.sampler import Sample
    from tests.measure.doubles import DoubleSampler

    class WithGpu(DoubleSampler):
        def sample(self) -> Sample:
            now = time.monotonic_ns()
            energy = 50.0 * now / 1e9
            self._kept.append(Sample(now, None, None, None, 25.0, 80.0, 10.0, 1500.0, 2600.0, energy))
            return self._kept[-1]

    path = tmp_path / "campaign.sqlite"
    run_campaign(path, double_plan(models=1, leaves=1), sampler=WithGpu())
    column = RESOURCE_FEATURES.index("gpu_energy")
    tree = dataset_from_campaign(path).trees[0]
    latency = tree.resources[:, RESOURCE_FEATURES.index("latency")]
    assert tree.resources[:, column] == pytest.approx(50.0 * latency, rel=0.2)
    with Journal(path) as journal:
        journal.set("label_source", "nvml")
        relabel(journal)
    tree = dataset_from_campaign(path).trees[0]
    assert np.isnan(tree.resources[:, column]).all()
    assert tree.resources[:, RESOURCE_FEATURES.index("gpu_util")] == pytest.approx(80.0)


def test_what_is_no_campaign_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no campaign at"):
        dataset_from_campaign(tmp_path / "none.sqlite")
    sqlite3.connect(tmp_path / "empty.sqlite").execute("CREATE TABLE x(y)").connection.close()
    with pytest.raises(InputError, match="holds no campaign"):
        dataset_from_campaign(tmp_path / "empty.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, only words\n" * 50)
    with pytest.raises(DatasetError, match="cannot be read"):
        dataset_from_campaign(tmp_path / "text.sqlite")
    run_campaign(tmp_path / "early.sqlite", stop_after_s=0.0)
    with pytest.raises(InputError, match="no node has a label yet"):
        dataset_from_campaign(tmp_path / "early.sqlite")
