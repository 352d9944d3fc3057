"""Forward hooks that time every module: right times, right nodes, known cost, gone afterwards."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from irene_runtime.errors import InputError
from irene_runtime.model import Estimator
from irene_runtime.tree import ModelTree
from tests.nvml import FakeNvml, fake_nvml, nvml_library
from tests.runtime.examples import estimator, term, tree

__all__ = ["fake_nvml", "nvml_library"]

torch = pytest.importorskip("torch")


class Sleep(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Any) -> Any:
        time.sleep(self.seconds)
        return x


class Linear(Sleep):
    """Takes the place of a Linear of the example tree."""


class Block(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.fc = Linear(0.02)

    def forward(self, x: Any) -> Any:
        time.sleep(0.01)
        return self.fc(x)


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    """The modules of ``examples.tree``."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.head = Linear(0.005)
        self.fail = False

    def forward(self, x: Any) -> Any:
        x = self.block(x)
        if self.fail:
            raise RuntimeError("mine")
        return self.head(x)


def hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def profile_estimator() -> Estimator:
    """Readings are of latency alone, as with the GPU's counter as label."""
    data = estimator()
    time_only = {"terms": [term("time", [2], 100.0)], "pool": 1.0, "floor": 0.0}
    data["tiers"]["live"]["direct"] = {"model": time_only}
    data["tiers"]["profile"]["direct"] = dict.fromkeys(("ml", "module", "model"), time_only)
    return Estimator(data)


def test_every_module_is_timed_and_the_profile_tier_predicted() -> None:
    est, model = profile_estimator(), Net()
    with est.attach(model, period_s=0.02) as live:
        for _ in range(3):
            model(1)
    assert live.runs == 3
    times = {index: node["latency"] for index, node in live.nodes_of(tree()).items()}
    assert set(times) == {0, 1, 2, 4}
    for index, seconds in ((2, 0.02), (4, 0.005), (1, 0.03), (0, 0.035)):
        assert times[index] >= seconds
    p = est.predict(tree(), live)
    assert p.tier == "profile"
    assert p["block.fc"].energy_j == 100.0 * times[2] and p["block.fc"].tier == "profile"
    assert p["block:softmax"].tier == "static" and p["block:softmax"].energy_j == 8.0


def test_readings_that_single_modules_cannot_have_leave_the_live_tier() -> None:
    est, model = Estimator(estimator()), Net()
    with est.attach(model) as live:
        model(1)
    live.features["gpu_energy"] = 5.0
    p = est.predict(tree(), live)
    assert p.tier == "live" and "fell-back" in p.flags and "needs gpu_energy of single nodes" in p.notes[0]


def test_hooks_are_gone_afterwards() -> None:
    est, model = profile_estimator(), Net()
    with est.attach(model):
        assert hooks(model) == 2 * len(list(model.modules()))
        model(1)
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_exception() -> None:
    est, model = profile_estimator(), Net()
    model.fail = True
    with pytest.raises(RuntimeError, match="mine"), est.attach(model):
        model(1)
    assert hooks(model) == 0


def test_a_run_that_failed_does_not_count() -> None:
    est, model = profile_estimator(), Net()
    with est.attach(model) as live:
        model(1)
        model.fail = True
        with pytest.raises(RuntimeError):
            model(1)
        model.fail = False
        model(1)
    assert live.runs == 2
    assert {len(times) for times in live._times.values()} == {2, 3}  # the failed run ended after the block


def test_a_window_without_a_run_is_an_error_and_leaves_nothing() -> None:
    est, model = profile_estimator(), Net()
    with pytest.raises(InputError, match="no forward pass"), est.attach(model):
        pass
    assert hooks(model) == 0


def test_calls_of_one_module_are_told_apart() -> None:
    class Twice(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.head = Linear(0.002)

        def forward(self, x: Any) -> Any:
            x = self.head(x)
            self.head.seconds = 0.1
            x = self.head(x)
            self.head.seconds = 0.002
            return x

    model_tree = tree()
    model_tree.nodes[0].type = "Twice"
    second = model_tree.nodes[4].to_json()
    from irene_runtime.tree import Node

    nodes = [model_tree.nodes[0], Node(**{**second, "parent": 0}), Node(**{**second, "parent": 0, "call": 1})]
    est, model = profile_estimator(), Twice()
    with est.attach(model) as live:
        model(1)
        model(1)
    times = live.nodes_of(ModelTree(nodes))
    assert times[2]["latency"] >= 0.1 and times[1]["latency"] < times[2]["latency"]


def test_the_hooks_own_cost_is_measured_and_taken_off() -> None:
    class Deep(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(2000)])

        def forward(self, x: Any) -> Any:
            return self.parts(x)

    est, model = profile_estimator(), Deep()
    with est.attach(model) as live:
        for _ in range(5):
            model(1)
    assert live.cost_s > 0.0 and 0.0 < live.cost_share < 1.0
    assert live.cost_s == pytest.approx(5 * 2002 * live._pair_s)
    assert live.features["latency"] < live.seconds / 5


@pytest.mark.parametrize("model", [None, "model", object()])
def test_only_torch_modules_can_be_attached(model: Any) -> None:
    with pytest.raises(InputError, match=r"needs a torch\.nn\.Module"):
        profile_estimator().attach(model)


def test_two_threads_on_one_model_have_times_of_their_own() -> None:
    est, model = profile_estimator(), Net()
    with est.attach(model, period_s=0.02) as live, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(model, range(6))) == list(range(6))
    assert live.runs == 6
    times = live.nodes_of(tree())
    for index, seconds in ((0, 0.035), (1, 0.03), (2, 0.02), (4, 0.005)):
        assert seconds <= times[index]["latency"] < 3.0 * seconds
    assert any("passes of 2 threads" in note for note in est.predict(tree(), live).notes)


def test_the_time_of_a_pass_that_raised_is_taken_off_and_its_energy_is_not_known(fake_nvml: FakeNvml) -> None:
    est, model = profile_estimator(), Net()
    with est.attach(model, period_s=0.005) as live:
        for fail in (False, True, True, True, False):
            model.fail = fail
            with contextlib.suppress(RuntimeError):
                model(1)
    assert (live.runs, live.failed) == (2, 3)
    assert 0.035 <= live.features["latency"] < 0.06
    assert live.missing["gpu_energy"] == "3 passes raised in the window: their energy is not known"


def test_wrappers_are_looked_into_or_refused() -> None:
    est, model = profile_estimator(), Net()
    model.weight = torch.nn.Parameter(torch.zeros(1))
    with est.attach(torch.nn.DataParallel(model)) as live:
        model(1)
    assert set(live.nodes_of(tree())) == {0, 1, 2, 4}
    with pytest.raises(InputError, match=r"attach the model that torch\.compile was given"):
        est.attach(torch.compile(model))
