"""The calls of NVML that the sampler makes, under the names of ``pynvml``.

Only for the sampler's own process: the real bindings are six megabytes of resident memory there, more than
the rest together, and the process has a budget of fifteen. Signatures: NVML's reference manual.
"""

import ctypes
import sys
from typing import Any

NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
NVML_ERROR_GPU_IS_LOST = 15
_LIBRARY_NOT_FOUND = 12
_library: Any = None


class NVMLError(Exception):
    """``value`` is NVML's return code."""

    def __init__(self, value: int) -> None:
        text = "NVML Shared Library Not Found"
        if _library is not None:
            _library.nvmlErrorString.restype = ctypes.c_char_p
            text = _library.nvmlErrorString(value).decode("ascii", "replace")
        super().__init__(text)
        self.value = value


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def _call(name: str, *arguments: Any) -> None:
    value = getattr(_library, name)(*arguments)
    if value != 0:
        raise NVMLError(value)


def nvmlInit() -> None:
    global _library
    try:
        _library = _library or ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        raise NVMLError(_LIBRARY_NOT_FOUND) from None
    _call("nvmlInit_v2")


def nvmlShutdown() -> None:
    _call("nvmlShutdown")


def nvmlDeviceGetHandleByIndex(index: int) -> Any:
    handle = ctypes.c_void_p()
    _call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    return handle


def nvmlDeviceGetHandleByUUID(uuid: str) -> Any:
    handle = ctypes.c_void_p()
    _call("nvmlDeviceGetHandleByUUID", uuid.encode("ascii", "replace"), ctypes.byref(handle))
    return handle


def nvmlDeviceGetName(handle: Any) -> str:
    text = ctypes.create_string_buffer(96)
    _call("nvmlDeviceGetName", handle, text, ctypes.c_uint(96))
    return text.value.decode("ascii", "replace")


def nvmlDeviceGetUtilizationRates(handle: Any) -> Any:
    found = _Utilization()
    _call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(found))
    return found


def nvmlDeviceGetMemoryInfo(handle: Any) -> Any:
    found = _Memory()
    _call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(found))
    return found


def nvmlDeviceGetClockInfo(handle: Any, which: int) -> int:
    found = ctypes.c_uint()
    _call("nvmlDeviceGetClockInfo", handle, ctypes.c_uint(which), ctypes.byref(found))
    return found.value


def nvmlDeviceGetTotalEnergyConsumption(handle: Any) -> int:
    found = ctypes.c_ulonglong()
    _call("nvmlDeviceGetTotalEnergyConsumption", handle, ctypes.byref(found))
    return found.value


def nvmlDeviceGetPowerUsage(handle: Any) -> int:
    found = ctypes.c_uint()
    _call("nvmlDeviceGetPowerUsage", handle, ctypes.byref(found))
    return found.value
