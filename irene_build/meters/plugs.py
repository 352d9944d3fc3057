"""Smart plugs at the wall, over HTTP: Shelly (first generation, and the RPC of later ones) and Tasmota.

Real power as the plug gives it, about once a second. Cheap plugs are 1 % instruments at best, and slow: the
doctor says how long a window must be.
"""

from __future__ import annotations

import base64
import json
import math
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from irene_build.errors import HardwareError, MeterError
from irene_build.meters.base import MeterInfo, Reading
from irene_build.meters.emonpi_protocol import MAX_POWER_W
from irene_build.meters.threaded import PolledMeter

_MAX_BODY = 1_000_000
#: A plug with nothing behind it reads a little to either side of nothing, W.
_NOISE_W = 5.0
#: What may meter in a Shelly of a later generation, and how each calls its power, W.
_SHELLY_COMPONENTS = ("Switch", "PM1", "EM1", "EM", "Light", "Cover")
_SHELLY_POWERS = ("apower", "act_power", "total_act_power", "power")


class PlugMeter(PolledMeter):
    """Settings: ``host`` (``192.168.1.20`` or ``http://host:port``), ``channel``, ``user``, ``password``,
    ``poll_s``, ``timeout_s`` of one request, ``reconnect_s`` until a silent plug counts as gone, ``reverse`` where
    current flows through it the other way, ``max_power_w``.
    """

    name = "plug"
    brand = "smart plug"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(float(config.get("poll_s", 1.0)))
        self._config = config
        self._channel = int(config.get("channel", 0))
        self._timeout_s = float(config.get("timeout_s", 2.0))
        self._details: dict[str, Any] = {}
        self._host = ""
        self._silent_since: float | None = None

    @property
    def info(self) -> MeterInfo:
        return MeterInfo(
            name=self.name,
            source=f"{self.brand} at {self._host or self._config.get('host', '?')}",
            kind="power",
            boundary=str(self._config.get("boundary", "wall")),
            provenance="measured",
            period_s=self._period_s,
            quantum=float(self._config.get("quantum_w", 0.1)),
            power_kind="real",
            details=dict(self._details),
            window_s=float(self._config.get("window_s", self._period_s)),
        )

    @abstractmethod
    def _identify(self) -> dict[str, Any]:
        """Asks what it is; HardwareError where it is something else."""

    @abstractmethod
    def _power_w(self) -> float | None:
        """Asks for the power; ``None`` where the plug says that it does not know yet."""

    def _open(self) -> None:
        if not self._config.get("host"):
            raise HardwareError(f"{self.brand}: give its address as meter.host in the profile")
        address = str(self._config["host"])
        parts = urlsplit(address if "//" in address else f"//{address}")
        if parts.scheme not in ("", "http") or not parts.hostname or not _has_port(parts):
            raise HardwareError(f"{self.brand}: meter.host {address!r} is not a host name or http:// address")
        self._host = parts.netloc.rpartition("@")[2]
        try:
            self._details = self._identify()
            power = self._power_w()
        except _Silent as error:
            raise HardwareError(f"{self.brand}: no answer from {self._host}: {error}") from None
        except _Nonsense as error:
            raise HardwareError(f"{self.brand}: {self._host} is something else: {error}") from None
        if power is not None and self._sign * power < -_NOISE_W:
            other = "false" if self._sign < 0.0 else "true"
            raise HardwareError(
                f"{self.brand}: {self._host} reads {power:g} W: power flows through it the other way; turn it "
                f"round, or set meter.reverse = {other} in the profile"
            )

    @property
    def _sign(self) -> float:
        return -1.0 if self._config.get("reverse", False) else 1.0

    def _close(self) -> None:
        pass

    def _poll(self) -> Reading | None:
        start = time.monotonic_ns()
        try:
            power = self._power_w()
        except _Silent as error:
            self._counts["read_failed"] += 1
            self._silent_since = self._silent_since or time.monotonic()
            waited = time.monotonic() - self._silent_since
            if waited > float(self._config.get("reconnect_s", 60.0)):
                raise MeterError(
                    f"{self.brand}: {self._host} is silent for {waited:.0f} s: {error}"
                ) from None
            return None
        except _Nonsense:
            self._counts["rejected"] += 1
            return None
        if self._silent_since is not None:
            self._silent_since = None
            self._counts["reconnects"] += 1
        if power is None:
            self._counts["not_ready"] += 1
            return None
        power *= self._sign
        if not -MAX_POWER_W <= power <= float(self._config.get("max_power_w", MAX_POWER_W)):
            self._counts["implausible"] += 1
            return None
        if power < -_NOISE_W:
            self._counts["reversed"] += 1
            return None
        # The plug looked somewhere between the question and the answer.
        return Reading((start + time.monotonic_ns()) // 2, max(0.0, power))

    def _get(self, path: str) -> Any:
        """The JSON object at ``path``, all of it within ``timeout_s``.

        A new connection each time: plugs drop idle ones without a word.
        """
        connection = HTTPConnection(self._host, timeout=self._timeout_s)
        headers = {}
        if self._config.get("user"):
            pair = f"{self._config['user']}:{self._config.get('password', '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        late = threading.Event()
        watch: threading.Timer | None = None
        try:
            connection.connect()
            # The socket's own time limit begins anew with every byte.
            watch = threading.Timer(self._timeout_s, _hang_up, (connection.sock, late))
            watch.start()
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read(_MAX_BODY)
        except (OSError, HTTPException) as error:
            said = str(error) or type(error).__name__
            raise _Silent(f"not done in {self._timeout_s:g} s" if late.is_set() else said) from None
        finally:
            if watch is not None:
                watch.cancel()
            connection.close()
        if late.is_set():
            raise _Silent(f"not done in {self._timeout_s:g} s")
        if response.status == 401:
            raise HardwareError(
                f"{self.brand}: {self._host} wants a password: set meter.user and meter.password"
            )
        if response.status != 200:
            raise _Nonsense(f"HTTP status {response.status} for {path}")
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise _Nonsense(f"no JSON at {path}") from None
        if not isinstance(data, dict):
            raise _Nonsense(f"no JSON object at {path}")
        return data


def _hang_up(connection: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):  # it was done just now
        connection.shutdown(socket.SHUT_RDWR)


class ShellyMeter(PlugMeter):
    """Shelly plugs, relays and energy meters. Generation 1: ``/meter/N`` (``/emeter/N``); later: remote procedures."""

    name = "shelly"
    brand = "Shelly"

    def _identify(self) -> dict[str, Any]:
        about = self._get("/shelly")
        if "gen" not in about and "type" not in about:
            raise _Nonsense("/shelly names no type")
        if about.get("auth_en"):
            raise HardwareError(
                f"Shelly: {self._host} asks for digest authentication, which is not known here: turn it off"
            )
        generation, kind = about.get("gen", 1), about.get("type")
        if isinstance(generation, bool) or not isinstance(generation, int) or generation < 1:
            raise _Nonsense(f"/shelly names the generation {generation!r:.40}")
        if generation == 1:
            path = f"/{'emeter' if str(kind).startswith('SHEM') else 'meter'}/{self._channel}"
        else:
            path = self._metering_path()
        return {"model": about.get("app", kind), "generation": generation, "path": path}

    def _metering_path(self) -> str:
        """The component that meters: a Pro EM has a switch beside it, which does not."""
        why = _Nonsense("it has no component that meters")
        for component in _SHELLY_COMPONENTS:
            path = f"/rpc/{component}.GetStatus?id={self._channel}"
            try:
                _number(self._get(path), *_SHELLY_POWERS)
                return path
            except _Nonsense as error:
                why = error if component == _SHELLY_COMPONENTS[0] else why
        raise why

    def _power_w(self) -> float | None:
        status = self._get(self._details["path"])
        if status.get("is_valid") is False:
            return None
        return _number(status, *_SHELLY_POWERS)


class TasmotaMeter(PlugMeter):
    """Plugs with the Tasmota firmware: ``Status 8``. Its interface takes the password in the address."""

    name = "tasmota"
    brand = "Tasmota"

    def _command(self, command: str) -> Any:
        login = ""
        if self._config.get("password"):
            user = quote(str(self._config.get("user", "admin")), safe="")
            login = f"&user={user}&password={quote(str(self._config['password']), safe='')}"
        answer = self._get(f"/cm?cmnd={quote(command)}{login}")
        if "WARNING" in answer:
            raise HardwareError(f"Tasmota: {self._host} wants a password: set meter.user and meter.password")
        return answer

    def _identify(self) -> dict[str, Any]:
        status = self._command("Status 2").get("StatusFWR")
        if not isinstance(status, dict):
            raise _Nonsense("no StatusFWR")
        return {"model": status.get("Hardware"), "firmware": status.get("Version")}

    def _power_w(self) -> float | None:
        sensors = self._command("Status 8").get("StatusSNS")
        energy = sensors.get("ENERGY") if isinstance(sensors, dict) else None
        if not isinstance(energy, dict):
            raise _Nonsense("no StatusSNS.ENERGY: this plug does not measure")
        power = energy.get("Power")
        if isinstance(power, list):
            if self._channel >= len(power):
                raise _Nonsense(f"no channel {self._channel}")
            return _number({"Power": power[self._channel]}, "Power")
        return _number(energy, "Power")


def _has_port(parts: SplitResult) -> bool:
    """None given, or one that can be."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


class _Silent(Exception):
    """No answer: perhaps for now."""


class _Nonsense(Exception):
    """An answer that is not a reading."""


def _number(data: Mapping[str, Any], *names: str) -> float:
    for name in names:
        value = data.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                break
            if math.isfinite(number):
                return number
    raise _Nonsense(f"no number {' or '.join(names)}")
