"""The NVIDIA driver's own meter (NVML): board energy of one GPU.

The energy counter (Volta and later) is cumulative and moves in steps; a GPU or a virtual GPU without it
is read by instant power, which a campaign integrates.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError, MeterError
from irene_build.meters.base import MeterInfo, Reading
from irene_build.meters.kept import keep, kept
from irene_build.meters.threaded import PolledMeter
from irene_runtime.gpu import find_gpu, gpu_name

_POLL_S = 0.010
_POWER_POLL_S = 0.020
_MAX_GPU_W = 20_000.0
#: A board may be above its power limit for a moment, but not by this factor.
_OVER_LIMIT = 2.0
_STEP_POLL_S = 0.002
_STEPS = 8
_STEPS_S = 1.0
_STORE = "nvml.json"


def nvml_session() -> Any:
    """``pynvml``, initialised; HardwareError that says what is missing. Pair it with ``nvmlShutdown``."""
    try:
        import pynvml
    except ImportError:
        raise HardwareError("NVML: pynvml is not installed (pip install nvidia-ml-py)") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise HardwareError(f"NVML: no NVIDIA driver answers ({error})") from None
    return pynvml


def instant_power_w(nvml: Any, handle: Any) -> float:
    """Instant board power, W: the field value where the driver has it, else ``nvmlDeviceGetPowerUsage``.

    On Ampere and later the latter is a mean over one second. Raises NVMLError.
    """
    field = getattr(nvml, "NVML_FI_DEV_POWER_INSTANT", None)
    if field is not None:
        try:
            value = nvml.nvmlDeviceGetFieldValues(handle, [field])[0]
            if value.nvmlReturn == nvml.NVML_SUCCESS:
                return float(value.value.uiVal) / 1e3
        except nvml.NVMLError:
            pass
    return float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3


class NvmlMeter(PolledMeter):
    """Settings: ``gpu`` (as in ``irene_runtime.gpu.find_gpu``), ``reading``: ``counter``, ``power``, or ``auto``,
    ``step_s`` of the counter (measured on opening where it is not given).

    Emits only when the counter moved: an unchanged reading is no news. A counter that goes backwards (the
    driver was reloaded) or jumps further than any GPU can draw is counted, and bridged, never added.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(float(config.get("poll_s", _POLL_S)))
        self._config = config
        self._nvml: Any = None
        self._handle: Any = None
        self._kind = "energy"
        self._details: dict[str, Any] = {}
        self._raw: int | None = None
        self._joules = 0.0
        self._last_s = 0.0
        self._emitted = False
        self._step_s = 0.0
        self._max_w = _MAX_GPU_W

    @property
    def info(self) -> MeterInfo:
        counter = self._kind == "energy"
        return MeterInfo(
            name="nvml",
            source=f"NVML {'energy counter' if counter else 'instant power'}"
            + (f" of {self._details['gpu']}" if self._details else ""),
            kind="energy" if counter else "power",
            boundary=str(self._config.get("boundary", "gpu")),
            provenance="measured" if counter else "integrated",
            period_s=max(self._period_s, self._step_s) if counter else self._period_s,
            quantum=float(self._details.get("step_j", 0.001)) if counter else 0.001,
            power_kind="board",
            details=dict(self._details),
        )

    def _open(self) -> None:
        nvml = self._nvml = nvml_session()
        handle = self._handle = find_gpu(nvml, self._config.get("gpu"))
        self._details = describe_gpu(nvml, handle)
        limit_w = _OVER_LIMIT * float(self._details.get("power_limit_w", _MAX_GPU_W / _OVER_LIMIT))
        self._max_w = float(self._config.get("max_power_w", limit_w))
        reading = str(self._config.get("reading", "auto"))
        if reading not in ("auto", "counter", "power"):
            raise HardwareError(f"meter.reading {reading!r}: use auto, counter or power")
        try:
            if reading == "power":
                instant_power_w(nvml, handle)
            else:
                nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            self._kind = "power" if reading == "power" else "energy"
        except nvml.NVMLError as error:
            if reading != "auto":
                raise HardwareError(
                    f"NVML: {self._details['gpu']} has no {reading} reading: {error}"
                ) from None
            self._fall_back(error)
        if self._kind == "power":
            self._period_s = float(self._config.get("poll_s", _POWER_POLL_S))
        self._details.update(known_counter(self._details))
        if self._kind == "energy":
            self._watch_step()
        self._details["reading"] = "counter" if self._kind == "energy" else "instant power"
        # Joules count from the first reading, not from before the counter was watched.
        self._raw, self._joules, self._emitted = None, 0.0, False
        self._last_s = time.monotonic()

    def _watch_step(self) -> None:
        """How often the counter brings news on this GPU and driver, and how it compares with power."""
        if "step_s" in self._config:
            self._step_s = float(self._config["step_s"])
            return
        found = _counter_figures(*_observe(self._nvml, self._handle, _STEPS_S, _STEPS, {}))
        self._details.update(found)
        self._step_s = found.get("step_s", _STEPS_S)

    def _fall_back(self, counter_error: Exception) -> None:
        try:
            instant_power_w(self._nvml, self._handle)
        except self._nvml.NVMLError as error:
            raise HardwareError(
                f"NVML: {self._details['gpu']} has no energy counter ({counter_error}) and no power ({error})"
            ) from None
        self._kind = "power"
        self._details["no_counter"] = str(counter_error)

    def _close(self) -> None:
        if self._nvml is not None:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                self._counts["shutdown_failed"] += 1
            self._nvml = self._handle = None

    def _poll(self) -> Reading | None:
        nvml = self._nvml
        try:
            if self._kind == "power":
                power = instant_power_w(nvml, self._handle)
                now = time.monotonic_ns()
                if not 0.0 <= power <= self._max_w:
                    self._counts["implausible"] += 1
                    return None
                return Reading(now, power)
            raw = int(nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
            now = time.monotonic_ns()
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
                raise MeterError(
                    f"NVML: {self._details['gpu']} was lost ({error}); restart the machine"
                ) from None
            self._counts["read_failed"] += 1
            return None
        return self._count(raw, now)

    def _count(self, raw: int, now_ns: int) -> Reading | None:
        """A reading where the counter (mJ) moved; the first is 0 J, and joules only ever accumulate."""
        now_s = now_ns / 1e9
        step = 0 if self._raw is None else raw - self._raw
        if self._emitted and step == 0:
            return None
        self._raw = raw
        elapsed, self._last_s = max(now_s - self._last_s, self._period_s), now_s
        if step < 0:
            self._counts["restarts"] += 1
        elif step / 1e3 > self._max_w * max(elapsed, 2.0 * self._step_s):
            self._counts["implausible"] += 1
        else:
            self._joules += step / 1e3
        self._emitted = True
        return Reading(now_ns, self._joules)


def known_counter(details: Mapping[str, Any]) -> dict[str, Any]:
    """``{"counter": ...}`` as ``characterise`` found it before on such a GPU and driver, or nothing."""
    found = kept(_STORE, _key(details))
    return {"counter": found} if found else {}


def characterise(config: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The energy counter's step and its ratio to integrated instant power, measured for ``seconds``.

    ``step_s`` and ``step_j``: median time and joules between moves; ``counter_to_power``: joules of the
    counter over joules of the integral, from first to last move. What could not be measured is absent.
    """
    nvml = nvml_session()
    try:
        handle = find_gpu(nvml, config.get("gpu"))
        details = describe_gpu(nvml, handle)
        moves, powers = _observe(nvml, handle, seconds, None, details)
    finally:
        nvml.nvmlShutdown()
    return {**details, **_counter_figures(moves, powers), "seconds": seconds}


def store_counter(found: Mapping[str, Any]) -> Path:
    """Keeps what ``characterise`` found, per GPU and driver, where ``NvmlMeter`` looks for it."""
    figures = ("step_s", "step_j", "counter_to_power", "seconds")
    return keep(_STORE, _key(found), {name: found[name] for name in figures if name in found})


def _key(details: Mapping[str, Any]) -> str:
    return f"{details['gpu']} | driver {details.get('driver', '?')}"


def _observe(
    nvml: Any, handle: Any, seconds: float, most_moves: int | None, errors: dict[str, Any]
) -> tuple[list[tuple[float, int]], list[tuple[float, float]]]:
    """``(s, mJ)`` at which the counter moved, and ``(s, W)``, for ``seconds`` or until it moved so often."""
    looks: list[tuple[float, int]] = []
    powers: list[tuple[float, float]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and (most_moves is None or len(looks) <= most_moves):
        try:
            raw = int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            now = time.monotonic()
            if not looks or raw != looks[-1][1]:
                looks.append((now, raw))
        except nvml.NVMLError as error:
            errors["no_counter"] = str(error)
        if not powers or time.monotonic() - powers[-1][0] >= _POWER_POLL_S:
            try:
                powers.append((time.monotonic(), instant_power_w(nvml, handle)))
            except nvml.NVMLError as error:
                errors["no_power"] = str(error)
        time.sleep(_STEP_POLL_S)
    # The first look is no move: the counter may have stood there for a while.
    return looks[1:], powers


def _counter_figures(moves: list[tuple[float, int]], powers: list[tuple[float, float]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(moves)]
    if len(steps) < 3 or any(step[1] < 0 for step in steps):
        return figures
    figures["step_s"] = statistics.median(step[0] for step in steps)
    figures["step_j"] = statistics.median(step[1] for step in steps) / 1e3
    start, end = moves[0][0], moves[-1][0]
    integral = 0.0
    for (t0, p0), (t1, p1) in itertools.pairwise(powers):
        overlap = min(t1, end) - max(t0, start)
        if overlap > 0:
            integral += overlap * (p0 + p1) / 2.0
    covered = len(powers) > 1 and powers[0][0] <= start + 0.1 and powers[-1][0] >= end - 0.1
    if covered and integral > 0:
        figures["counter_to_power"] = (moves[-1][1] - moves[0][1]) / 1e3 / integral
    return figures


def describe_gpu(nvml: Any, handle: Any) -> dict[str, Any]:
    """Name, UUID, driver, power limit; what the driver does not say is absent."""
    found: dict[str, Any] = {"gpu": "GPU"}
    for key, read in (
        ("gpu", lambda: gpu_name(nvml, handle)),
        ("uuid", lambda: str(nvml.nvmlDeviceGetUUID(handle))),
        ("driver", lambda: str(nvml.nvmlSystemGetDriverVersion())),
        ("power_limit_w", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3),
    ):
        try:
            found[key] = read()
        except nvml.NVMLError:
            continue
    return found
