"""The meter of the simulated PC: the emonPi driver on the pseudo-terminal that ``virtual_pc`` plays."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError, MeterError
from irene_build.meters.base import MeterInfo
from irene_build.meters.emonpi import EmonPi

_PROGRAM = Path(__file__).resolve().parent.parent / "hardware" / "virtual_pc.py"
_START_S = 20.0


class VirtualMeter(EmonPi):
    """Starts the simulated PC as a process of its own and reads it like the real thing."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__({"listen_s": 20.0, "reconnect_s": 0.0, **config, "baud": 115200})
        if not isinstance(config.get("model"), Mapping):
            raise HardwareError("meter.model: the simulated PC needs its constants; see `virtual.toml`")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def info(self) -> MeterInfo:
        info = super().info
        return replace(
            info,
            name="virtual",
            source="simulated PC: power modelled from this machine's CPU load, on a pseudo-terminal",
            provenance="simulated",
            details={**info.details, "model": dict(self._config["model"])},
        )

    @property
    def pid(self) -> int | None:
        """Process id of the simulated PC while it runs."""
        return self._process.pid if self._process else None

    def _open(self) -> None:
        settings = {**self._config["model"], "period_s": float(self._config.get("period_s", 0.170))}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            raise MeterError(f"the simulated PC could not be started: {error}") from None
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], _START_S)[0]
        port = self._process.stdout.readline().decode().strip() if ready else ""
        if not port:
            raise MeterError(
                "the simulated PC did not start: it needs pseudo-terminals and /proc/stat (Linux)"
            )
        self._config = {**self._config, "port": port}
        super()._open()

    def _close(self) -> None:
        super()._close()
        if self._process is None:
            return
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
