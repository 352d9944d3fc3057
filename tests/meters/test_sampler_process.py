"""The sampler in a process of its own: the same samples, and a cost that is measured."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from irene_build.errors import MeterError
from irene_build.meters import sampler_process
from irene_build.meters.sampler_process import SamplerProcess, compiled, sampling_cost
from irene_runtime.sampler import Sampler
from tests.meters.test_virtual import running
from tests.meters.wire import until
from tests.nvml import FakeNvml


def test_it_gives_what_the_thread_gives() -> None:
    with SamplerProcess(0.02) as sampler:
        start = time.monotonic_ns()
        time.sleep(0.6)
        end = time.monotonic_ns()
        assert sampler.settle(end)
    found = sampler.summary(start, end)
    assert 0.0 <= found["cpu_util"] <= 100.0
    assert 0.0 < found["mem_usg"] < 100.0
    rows = sampler.samples(start, end)
    assert len(rows) >= 10
    assert all((a.cpu_total_ticks or 0) <= (b.cpu_total_ticks or 0) for a, b in pairwise(rows))
    assert sampler.cost["cpu_share"] is not None and 0.0 < sampler.cost["cpu_share"] < 1.0
    assert sampler.cost["resident_mib"] is not None and sampler.cost["resident_mib"] > 1.0


needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.mark.parametrize(
    ("period_s", "in_c"), [pytest.param(0.02, True, marks=needs_compiler), (0.02, False), (0.1, False)]
)
def test_memory_is_read_once_a_batch_and_not_repeated_as_if_it_were_new(
    period_s: float, in_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the fast period the load between is told from /proc/uptime, at the slow one from /proc/stat."""
    if not in_c:
        monkeypatch.setattr(sampler_process, "compiled", lambda source: None)
    with SamplerProcess(period_s) as sampler:
        assert sampler.settle(time.monotonic_ns())
        assert program_of(sampler).name.startswith("sampler_child-") == in_c
    rows = sampler.samples()
    assert (rows[-1].host_time_ns - rows[0].host_time_ns) / 1e9 > 0.5 * period_s * (len(rows) - 1)
    assert sampler.cost["cpu_share"] is not None and 0.0 < sampler.cost["cpu_share"] < 0.2
    assert sampler.cost["resident_mib"] is not None and sampler.cost["resident_mib"] > 0.2
    known = [place for place, row in enumerate(rows) if row.mem_usg is not None]
    assert len(known) >= 2
    assert {b - a for a, b in pairwise(known)} == {round(1.0 / period_s)}
    assert all(row.cpu_busy_ticks is not None for row in rows)
    assert all(0.0 <= row.cpu_util <= 100.0 for row in rows if row.cpu_util is not None)


@needs_compiler
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "program.c"
    source.write_text("int main(void) { return 2; }")
    program = compiled(source)
    assert program is not None and program.parent == tmp_path / "irene-build"
    made = program.stat().st_mtime_ns
    assert compiled(source) == program and program.stat().st_mtime_ns == made
    source.write_text("int main(void) { return 2 + 0; }")
    assert compiled(source) not in (None, program)


@pytest.mark.parametrize("fault", ["no compiler", "no C", "does not start", "no folder", "no home"])
def test_where_it_cannot_be_compiled_the_interpreter_samples(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "program.c"
    source.write_text(
        {"no C": "main(", "does not start": "int main(void) { return 1; }"}.get(
            fault, "int main(void) { return 2; }"
        )
    )
    if fault == "no compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif fault == "no folder":
        (tmp_path / "cache").write_text("a file")
    elif fault == "no home":
        monkeypatch.setattr(sampler_process, "cache_dir", raise_no_home)
    assert compiled(source) is None
    if fault == "no C":
        monkeypatch.setattr(sampler_process, "_SOURCE", source)
        with SamplerProcess(0.02) as sampler:
            assert program_of(sampler) == Path(sys.executable)


def program_of(sampler: SamplerProcess) -> Path:
    """What its process runs."""
    assert sampler._process is not None and isinstance(sampler._process.args, list)
    return Path(str(sampler._process.args[0]))


def raise_no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_gpu_is_seen_from_there_as_from_here(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process has small bindings of its own: they must say what the real pynvml says."""
    fake_nvml.set(gpu_util=55, memory_used_mib=1234, sm_clock=1410, memory_clock=1593, gpus=2)
    monkeypatch.setenv("LD_LIBRARY_PATH", fake_nvml.environment()["LD_LIBRARY_PATH"])
    for gpu in (None, "GPU-fake-1"):
        with SamplerProcess(0.02, gpu) as there:
            time.sleep(0.3)
        with Sampler(0.02, gpu) as here:
            time.sleep(0.3)
        assert there.gpu_name == here.gpu_name == "Fake GPU"
        assert there.gpu_energy_source == here.gpu_energy_source == "counter"
        assert not set(there.missing) & {"gpu_util", "gpu_energy"}
        for name in ("gpu_util", "gm_usg", "g_clk", "gm_clk"):
            assert there.summary()[name] == pytest.approx(here.summary()[name])
        rows = there.samples()
        seconds = (rows[-1].host_time_ns - rows[0].host_time_ns) / 1e9
        assert there.summary()["gpu_energy"] == pytest.approx(100.0 * seconds, rel=0.2)


def test_a_gpu_that_fails_is_told_from_there_too(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.set(energy_error=3, util_error=4)
    monkeypatch.setenv("LD_LIBRARY_PATH", fake_nvml.environment()["LD_LIBRARY_PATH"])
    with SamplerProcess(0.02) as sampler:
        time.sleep(0.2)
        fake_nvml.set(lost=1)
        time.sleep(0.2)
    assert "the GPU was lost: GPU is lost" in sampler.missing["g_clk"]
    watts = {row.gpu_power_w for row in sampler.samples()}
    assert watts == {100.0, None}


def test_a_sampler_that_was_killed_is_an_error_when_it_is_stopped() -> None:
    sampler = SamplerProcess(0.02).start()
    assert sampler._process is not None
    os.kill(sampler._process.pid, signal.SIGKILL)
    with pytest.raises(MeterError, match="ended with code -9"):
        sampler.stop()
    assert sampler.samples()


def test_it_ends_with_whoever_started_it() -> None:
    code = (
        "import time; from irene_build.meters.sampler_process import SamplerProcess as S;"
        "s = S(0.02).start();"
        "print(s._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not running(pid), 5.0)


def test_the_cost_is_a_comparison_of_on_and_off() -> None:
    cost = sampling_cost(0.005, 0.5)
    assert cost["core_share"] == pytest.approx(max(0.0, cost["on_share"] - cost["off_share"]))
    assert 0.0 < cost["on_share"] < 1.0
