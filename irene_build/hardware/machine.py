"""Whether this machine is fit to be measured on: governor, clocks, heat, other load, permissions, driver."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irene_runtime.gpu import gpu_name

#: Above this the CPU is not idle: the paper's standby is a load below 0.1 %; a tick is 1 % of a core-second.
IDLE_PERCENT = 0.5
_HOT_C = 80.0
#: PF_KTHREAD in the flags of /proc/PID/stat.
_KERNEL_THREAD = 0x00200000
_GPU_FAULTS = {
    0x8: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Check:
    """``status``: ok, warn, fail or unknown. ``advice``: what to change, empty where nothing is wrong."""

    name: str
    status: str
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def check_machine(root: Path = Path("/")) -> list[Check]:
    """Everything that can be seen without waiting. ``root``: where ``sys`` and ``dev`` are."""
    return [
        check_governor(root),
        check_clocks(root),
        check_temperature(root),
        check_throttling(root),
        check_rapl(root),
        check_serial(root),
        *check_gpu(),
    ]


def check_governor(root: Path) -> Check:
    files = _glob(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    governors = Counter(text for text in map(_text, files) if text)
    if not governors:
        return Check("governor", "unknown", "no cpufreq here (a virtual machine or a container)")
    found = ", ".join(f"{name} on {count} CPUs" for name, count in governors.most_common())
    if set(governors) == {"performance"}:
        return Check("governor", "ok", found)
    advice = "sudo cpupower frequency-set -g performance"
    return Check("governor", "warn", found, f"clocks that follow the load blur energies: run `{advice}`")


def check_clocks(root: Path) -> Check:
    now = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    top = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq")
    if not now:
        return Check("cpu clocks", "unknown", "no clock frequencies to read here")
    found = f"{min(now) / 1e3:.0f} to {max(now) / 1e3:.0f} MHz"
    if top:
        found += f" of at most {max(top) / 1e3:.0f} MHz"
    turbo = _text(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = _text(root / "sys/devices/system/cpu/cpufreq/boost")
    if turbo == "0" or boost == "1":
        return Check(
            "cpu clocks",
            "warn",
            f"{found}, turbo on",
            "turbo clocks depend on the weather: for the steadiest labels write 1 to intel_pstate/no_turbo "
            "or 0 to cpufreq/boost, if you also run that way",
        )
    return Check("cpu clocks", "ok", found)


def check_temperature(root: Path) -> Check:
    zones = _numbers(root, "sys/class/thermal/thermal_zone*/temp")
    zones += _numbers(root, "sys/class/hwmon/hwmon*/temp*_input")
    heat = [value / 1e3 for value in zones if 0 < value < 150_000]
    if not heat:
        return Check("temperature", "unknown", "no sensor to read here")
    if max(heat) > _HOT_C:
        return Check("temperature", "warn", f"{max(heat):.0f} °C", "let it cool before a campaign")
    return Check("temperature", "ok", f"{max(heat):.0f} °C")


def check_throttling(root: Path) -> Check:
    counts = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    if not counts:
        return Check("throttling", "unknown", "no throttle counters here")
    if sum(counts):
        return Check(
            "throttling",
            "warn",
            f"{sum(counts)} times since boot",
            "trials with a throttle are repeated; better cooling makes campaigns shorter",
        )
    return Check("throttling", "ok", "never since boot")


def check_rapl(root: Path) -> Check:
    files = _glob(root, "sys/class/powercap/*/energy_uj")
    if not files:
        return Check(
            "rapl", "unknown", "no powercap counters here (a virtual machine, or another kind of CPU)"
        )
    closed = [path for path in files if not os.access(path, os.R_OK)]
    if closed:
        return Check(
            "rapl",
            "fail",
            f"{len(closed)} of {len(files)} counters may be read by root only",
            "run `sudo chmod -R a+r /sys/class/powercap/*/energy_uj`",
        )
    return Check("rapl", "ok", f"{len(files)} counters can be read")


def check_serial(root: Path) -> Check:
    ports = [path for pattern in ("ttyUSB*", "ttyACM*", "ttyAMA*") for path in _glob(root, f"dev/{pattern}")]
    if not ports:
        return Check(
            "serial ports", "unknown", "none (an emonPi would be at /dev/ttyUSB*, ttyACM* or ttyAMA*)"
        )
    closed = [path for path in ports if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        return Check(
            "serial ports",
            "fail",
            f"no permission for {', '.join(map(str, closed))}",
            "run `sudo usermod -aG dialout $USER` and log in again",
        )
    return Check("serial ports", "ok", ", ".join(map(str, ports)))


def check_gpu() -> list[Check]:
    """One line on the driver, one a GPU on clocks, heat and throttling."""
    try:
        import pynvml as nvml
    except ImportError:
        return [Check("nvidia driver", "unknown", "pynvml is not installed", "pip install nvidia-ml-py")]
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [Check("nvidia driver", "unknown", f"none answers ({error})")]
    try:
        driver = nvml.nvmlSystemGetDriverVersion()
        checks = [Check("nvidia driver", "ok", str(driver))]
        return checks + [_check_one_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        return [Check("nvidia driver", "fail", str(error), "restart the machine, or reinstall the driver")]
    finally:
        nvml.nvmlShutdown()


def _check_one_gpu(nvml: Any, index: int) -> Check:
    name = f"gpu {index}"
    found, advice = [], []
    status = "ok"
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        found.append(gpu_name(nvml, handle))
    except nvml.NVMLError as error:
        return Check(name, "fail", str(error), "restart the machine")
    with suppress(nvml.NVMLError):
        clock = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
        top = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
        found.append(f"{clock} of at most {top} MHz")
    with suppress(nvml.NVMLError):
        heat = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        found.append(f"{heat} °C")
        if heat > _HOT_C:
            status = "warn"
            advice.append("let it cool before a campaign")
    with suppress(nvml.NVMLError):
        if not nvml.nvmlDeviceGetPersistenceMode(handle):
            status = "warn"
            found.append("persistence mode off")
            advice.append("run `sudo nvidia-smi -pm 1`, so that the driver stays loaded between trials")
    with suppress(nvml.NVMLError):
        reasons = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        faults = [text for bit, text in _GPU_FAULTS.items() if reasons & bit]
        if faults:
            status = "warn"
            found.append(f"throttled: {', '.join(faults)}")
            advice.append("look after its cooling and its power supply")
    return Check(name, status, ", ".join(found), "; ".join(advice))


def check_load(cpu_util: float | None, busiest: list[tuple[str, float]]) -> Check:
    """``cpu_util``: % over an idle window, this process aside; ``busiest``: names and cores of what else ran."""
    if cpu_util is None:
        return Check("other load", "unknown", "no /proc/stat here")
    found = f"CPU {cpu_util:.2f} % busy while nothing should run"
    if cpu_util <= IDLE_PERCENT:
        return Check("other load", "ok", found)
    names = ", ".join(f"{name} ({cores:.2f} cores)" for name, cores in busiest[:3])
    return Check(
        "other load", "warn", found, f"stop what runs beside: {names or 'it is not a process of this system'}"
    )


def check_standby(power_w: float | None, standby_w: float | None, label: str) -> Check:
    """Measured idle power against the profile's standby power."""
    if power_w is None:
        return Check("standby power", "unknown", "no meter to read it with")
    found = f"{power_w:.1f} W{label}"
    if standby_w is None:
        return Check(
            "standby power", "ok", f"{found}; the profile names none", f"standby_power_w = {power_w:.1f}"
        )
    if power_w > 1.05 * standby_w:
        return Check(
            "standby power",
            "warn",
            f"{found}, above the profile's {standby_w:g} W",
            "wait until the PC is idle and cool, or correct standby_power_w",
        )
    return Check("standby power", "ok", f"{found}, the profile has {standby_w:g} W")


def process_times(proc: Path = Path("/proc")) -> tuple[dict[tuple[int, str], int], int]:
    """CPU ticks of every other process that can be seen, by id and name, and of this one with all that it started.

    Kernel threads are nobody's programs: they are in neither.
    """
    seen: dict[int, tuple[str, int, int]] = {}
    for path in proc.glob("[0-9]*/stat"):
        text = _text(path)
        name, _, rest = text.partition(" (")[2].rpartition(") ")
        fields = rest.split()
        if len(fields) > 12 and not int(fields[6]) & _KERNEL_THREAD:
            seen[int(path.parent.name)] = name, int(fields[1]), int(fields[11]) + int(fields[12])
    others, own = {}, 0
    for pid, (name, _, ticks) in seen.items():
        if _is_own(pid, seen):
            own += ticks
        else:
            others[pid, name] = ticks
    return others, own


def _is_own(pid: int, seen: Mapping[int, tuple[str, int, int]]) -> bool:
    """This process, or one below it."""
    for _ in range(len(seen)):
        if pid == os.getpid():
            return True
        if pid not in seen:
            return False
        pid = seen[pid][1]
    return False


def busiest_processes(
    before: Mapping[tuple[int, str], int], after: Mapping[tuple[int, str], int], seconds: float
) -> list[tuple[str, float]]:
    """Names and cores of the other processes that ran between two looks of ``process_times``."""
    tick = os.sysconf("SC_CLK_TCK") * seconds
    used = {key: (ticks - before.get(key, 0)) / tick for key, ticks in after.items()}
    return [
        (f"{name}[{pid}]", cores)
        for (pid, name), cores in sorted(used.items(), key=lambda x: -x[1])
        if cores > 0
    ]


def _glob(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _numbers(root: Path, pattern: str) -> list[int]:
    texts = [_text(path) for path in _glob(root, pattern)]
    return [int(text) for text in texts if text.lstrip("-").isdigit()]
