"""The processor that nodes run on: synchronising it, loading it for a pulse, and how fast it roughly is."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Any, Protocol

from irene_build.errors import HardwareError


class Device(Protocol):
    """``name`` is torch's. ``synchronize`` returns when all work that was given has been done."""

    name: str

    def synchronize(self) -> None: ...

    def burn(self, seconds: float) -> None:
        """Full load for a load pulse; returns when it is over."""
        ...

    def speed(self) -> tuple[float, float]:
        """Rough (FLOP/s, B/s), for planning."""
        ...


class CpuDevice:
    """The host's processor: work is done when a call returns."""

    name = "cpu"

    def synchronize(self) -> None:
        pass

    def burn(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        block = bytes(1 << 18)

        def spin() -> None:
            # Hashing large blocks runs without the interpreter's lock, so every core is busy.
            while time.monotonic() < deadline:
                hashlib.sha256(block)

        others = [threading.Thread(target=spin) for _ in range((os.cpu_count() or 1) - 1)]
        for thread in others:
            thread.start()
        spin()
        for thread in others:
            thread.join()

    def speed(self) -> tuple[float, float]:
        return _measured_speed("cpu", 384, self.synchronize)


class CudaDevice:
    """An NVIDIA GPU through torch; calls return before their work is done."""

    def __init__(self, name: str = "cuda") -> None:
        import torch

        if not torch.cuda.is_available():
            raise HardwareError(
                f"device {name!r}: this torch sees no GPU (torch.cuda.is_available() is False); "
                "install torch with CUDA, or calibrate the processor with --device cpu"
            )
        self.name = name
        self._torch: Any = torch

    def synchronize(self) -> None:
        self._torch.cuda.synchronize(self.name)

    def burn(self, seconds: float) -> None:
        a = self._torch.rand(4096, 4096, device=self.name)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            a @ a
            self.synchronize()

    def speed(self) -> tuple[float, float]:
        return _measured_speed(self.name, 4096, self.synchronize)


def _measured_speed(name: str, size: int, synchronize: Any) -> tuple[float, float]:
    """FLOP/s of a matrix product and B/s of a copy; the best of a few, a fraction of a second."""
    import torch

    a = torch.rand(size, size, device=name)
    big = torch.rand(1 << 22, device=name)

    def best(work: Any) -> float:
        shortest = float("inf")
        for _ in range(4):
            synchronize()
            start = time.perf_counter()
            work()
            synchronize()
            shortest = min(shortest, time.perf_counter() - start)
        return shortest

    return 2.0 * size**3 / best(lambda: a @ a), 2.0 * 4.0 * big.numel() / best(big.clone)


def open_device(name: str) -> Device:
    """``cpu``, ``cuda`` or ``cuda:N``. Raises HardwareError where there is none."""
    if name == "cpu":
        return CpuDevice()
    if name.split(":")[0] == "cuda":
        return CudaDevice(name)
    raise HardwareError(f"unknown device {name!r}: use cpu, cuda or cuda:N")
