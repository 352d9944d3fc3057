"""Smart plugs over real HTTP: a server on 127.0.0.1 answers as the devices do."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irene_build.errors import HardwareError, MeterError
from irene_build.meters.plugs import PlugMeter, ShellyMeter, TasmotaMeter
from tests.meters.wire import collect, until

GEN1 = {"type": "SHPLG-S", "mac": "5ECF7F1632E8", "auth": False, "fw": "20230913-113421/v1.14.0"}
GEN2 = {"id": "shellyplusplugs-a8032ab1fe78", "gen": 2, "app": "PlusPlugS", "ver": "1.0.0", "auth_en": False}


class Device:
    """``answers``: path -> JSON object, raw bytes, or an HTTP status."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        device = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                device.asked.append(self.path)
                device.headers = dict(self.headers)
                answer = device.answer(self.path)
                status = answer if isinstance(answer, int) else 200
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                with suppress(ConnectionError):  # who asked did not wait for it
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def answer(self, path: str) -> Any:
        command = parse_qs(urlsplit(path).query).get("cmnd")
        return self.answers.get(command[0] if command else path, 404)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def device() -> Iterator[Device]:
    served = Device()
    yield served
    served.stop()


def shelly_2(power: Any) -> dict[str, Any]:
    return {"id": 0, "apower": power, "voltage": 230.1, "current": 0.6, "aenergy": {"total": 6.5}}


def tasmota(power: Any) -> dict[str, Any]:
    energy = {"Total": 0.123, "Power": power, "ApparentPower": 150, "Voltage": 230, "Current": 0.6}
    return {"StatusSNS": {"Time": "2026-01-01T00:00:00", "ENERGY": energy}}


def test_a_first_generation_shelly(device: Device) -> None:
    device.answers = {"/shelly": GEN1, "/meter/0": {"power": 132.4, "is_valid": True, "total": 8910}}
    with ShellyMeter({"host": device.host, "poll_s": 0.02}) as meter:
        assert {r.value for r in collect(meter, 2)} == {132.4}
        info = meter.info
    assert (info.kind, info.boundary, info.power_kind, info.provenance) == (
        "power",
        "wall",
        "real",
        "measured",
    )
    assert info.details["generation"] == 1


def test_an_energy_meter_of_the_first_generation(device: Device) -> None:
    device.answers = {"/shelly": {"type": "SHEM"}, "/emeter/1": {"power": 99.5, "is_valid": True}}
    with ShellyMeter({"host": device.host, "channel": 1, "poll_s": 0.02}) as meter:
        assert collect(meter, 1)[0].value == 99.5


def test_a_second_generation_shelly(device: Device) -> None:
    device.answers = {"/shelly": GEN2, "/rpc/Switch.GetStatus?id=0": shelly_2(141.7)}
    with ShellyMeter({"host": f"http://{device.host}", "poll_s": 0.02}) as meter:
        assert collect(meter, 1)[0].value == 141.7
        assert meter.info.details["model"] == "PlusPlugS"


@pytest.mark.parametrize(
    ("about", "path", "status", "watts"),
    [
        ({"gen": 3, "app": "MiniPMG3"}, "PM1", {"id": 0, "apower": 1322.8}, 1322.8),
        ({"gen": 2, "app": "ProEM"}, "EM1", {"id": 0, "act_power": 501.8, "aprt_power": 612.4}, 501.8),
        ({"gen": 2, "app": "Pro3EM"}, "EM", {"id": 0, "a_act_power": 20.0, "total_act_power": 61.5}, 61.5),
    ],
)
def test_a_later_shelly_is_asked_for_the_component_that_meters(
    device: Device, about: dict[str, Any], path: str, status: dict[str, Any], watts: float
) -> None:
    """A Pro EM has a switch beside its meter, which says nothing of power."""
    device.answers = {
        "/shelly": about,
        "/rpc/Switch.GetStatus?id=0": {"id": 0, "output": True},
        f"/rpc/{path}.GetStatus?id=0": status,
    }
    with ShellyMeter({"host": device.host, "poll_s": 0.02}) as meter:
        assert collect(meter, 1)[0].value == watts


def test_power_that_flows_the_other_way_is_told_and_can_be_turned_round(device: Device) -> None:
    device.answers = {"/shelly": GEN2, "/rpc/Switch.GetStatus?id=0": shelly_2(-197.0)}
    with pytest.raises(HardwareError, match=r"-197 W.*meter\.reverse = true"):
        ShellyMeter({"host": device.host}).__enter__()
    with ShellyMeter({"host": device.host, "reverse": True, "poll_s": 0.02}) as meter:
        assert collect(meter, 1)[0].value == 197.0
        device.answers["/rpc/Switch.GetStatus?id=0"] = shelly_2(197.0)
        until(lambda: meter.counters().get("reversed", 0) > 0)


def test_a_reading_above_what_the_pc_can_draw_is_none(device: Device) -> None:
    device.answers = {"/shelly": GEN2, "/rpc/Switch.GetStatus?id=0": shelly_2(300.0)}
    with ShellyMeter({"host": device.host, "max_power_w": 1000.0, "poll_s": 0.02}) as meter:
        collect(meter, 1)
        device.answers["/rpc/Switch.GetStatus?id=0"] = shelly_2(10_000.0)
        until(lambda: meter.counters().get("implausible", 0) > 0)
        assert {r.value for r in meter.read_new(0.0)} <= {300.0}


def test_a_plug_that_drips_bytes_is_given_up_in_time() -> None:
    """Each byte comes within the socket's time limit; the whole answer never does."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection = server.accept()[0]
        with connection, suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000:
                if stop.wait(0.02):
                    return
                connection.send(bytes([byte]))

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    began = time.monotonic()
    with pytest.raises(HardwareError, match=r"no answer from .*: not done in 0\.3 s"):
        ShellyMeter({"host": f"127.0.0.1:{server.getsockname()[1]}", "timeout_s": 0.3}).__enter__()
    assert time.monotonic() - began < 10.0
    stop.set()
    thread.join()
    server.close()


def test_a_plug_that_does_not_know_yet_gives_no_reading(device: Device) -> None:
    device.answers = {"/shelly": GEN1, "/meter/0": {"power": 0.0, "is_valid": False}}
    with ShellyMeter({"host": device.host, "poll_s": 0.02}) as meter:
        until(lambda: meter.counters().get("not_ready", 0) > 2)
        assert meter.read_new(0.0) == []


def test_tasmota(device: Device) -> None:
    firmware = {"StatusFWR": {"Version": "13.1.0(tasmota)", "Hardware": "ESP8285H16"}}
    device.answers = {"Status 2": firmware, "Status 8": tasmota(137)}
    with TasmotaMeter({"host": device.host, "poll_s": 0.02}) as meter:
        assert collect(meter, 1)[0].value == 137.0
        assert meter.info.details["firmware"] == "13.1.0(tasmota)"


def test_tasmota_with_several_channels(device: Device) -> None:
    device.answers = {"Status 2": {"StatusFWR": {}}, "Status 8": tasmota([10, 20])}
    with TasmotaMeter({"host": device.host, "channel": 1, "poll_s": 0.02}) as meter:
        assert collect(meter, 1)[0].value == 20.0


def test_a_password_is_sent_the_way_the_device_wants_it(device: Device) -> None:
    device.answers = {"Status 2": {"StatusFWR": {}}, "Status 8": tasmota(1)}
    with TasmotaMeter({"host": device.host, "password": "p&q", "poll_s": 0.02}) as meter:
        collect(meter, 1)
    assert "user=admin&password=p%26q" in device.asked[0]
    device.answers = {"/shelly": GEN1, "/meter/0": {"power": 1.0, "is_valid": True}}
    with ShellyMeter({"host": device.host, "user": "me", "password": "secret", "poll_s": 0.02}) as meter:
        collect(meter, 1)
    assert device.headers["Authorization"] == "Basic bWU6c2VjcmV0"


@pytest.mark.parametrize(
    ("driver", "answers", "message"),
    [
        (ShellyMeter, {"/shelly": 401}, "wants a password"),
        (
            TasmotaMeter,
            {"Status 2": {"WARNING": "Need user=<username>&password=<password>"}},
            "wants a password",
        ),
        (ShellyMeter, {"/shelly": {**GEN2, "auth_en": True}}, "digest"),
        (ShellyMeter, {"/shelly": b"<html>a printer</html>"}, "something else: no JSON"),
        (ShellyMeter, {}, "something else: HTTP status 404"),
        (TasmotaMeter, {"Status 2": {"StatusFWR": {}}, "Status 8": {"StatusSNS": {}}}, "does not measure"),
    ],
)
def test_what_is_no_such_plug_is_told(
    device: Device, driver: type[PlugMeter], answers: dict[str, Any], message: str
) -> None:
    device.answers = answers
    with pytest.raises(HardwareError, match=message):
        driver({"host": device.host}).__enter__()


def test_a_host_is_needed_and_must_be_one(device: Device) -> None:
    with pytest.raises(HardwareError, match=r"meter\.host"):
        ShellyMeter({}).__enter__()
    for host in ("ftp://plug", "plug:web", "plug:0", "plug:99999"):
        with pytest.raises(HardwareError, match=r"meter\.host"):
            ShellyMeter({"host": host}).__enter__()
    device.stop()
    with pytest.raises(HardwareError, match="no answer from"):
        ShellyMeter({"host": device.host, "timeout_s": 0.5}).__enter__()


def test_a_plug_that_falls_silent_is_waited_for_and_counted(device: Device) -> None:
    device.answers = {"/shelly": GEN2, "/rpc/Switch.GetStatus?id=0": shelly_2(100.0)}
    with ShellyMeter({"host": device.host, "poll_s": 0.02, "timeout_s": 0.2, "reconnect_s": 0.5}) as meter:
        collect(meter, 1)
        device.server.shutdown()
        device.server.server_close()
        with pytest.raises(MeterError, match="silent"):
            for _ in range(100):
                meter.read_new(0.1)
        assert meter.counters()["read_failed"] >= 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(power=_JSON, raw=st.none() | st.binary(max_size=40))
def test_no_answer_crashes_a_plug_or_gives_an_impossible_power(
    device: Device, power: Any, raw: bytes | None
) -> None:
    device.answers = {"/shelly": GEN2, "/rpc/Switch.GetStatus?id=0": shelly_2(5.0)}
    meter = ShellyMeter({"host": device.host, "poll_s": 3600.0})
    with meter:
        device.answers["/rpc/Switch.GetStatus?id=0"] = shelly_2(power) if raw is None else raw
        reading = meter._poll()
    if reading is not None:
        assert raw is None and isinstance(power, (int, float))
        assert 0.0 <= reading.value <= 20_000.0


@pytest.mark.parametrize("driver", [ShellyMeter, TasmotaMeter])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(about=st.dictionaries(st.sampled_from(["gen", "type", "app", "auth_en"]), _JSON), power=_JSON)
def test_whatever_a_device_says_of_itself_opens_it_or_is_told(
    device: Device, driver: type[PlugMeter], about: Any, power: Any
) -> None:
    status = {"power": power, "apower": power, "is_valid": True}
    device.answers = {
        "/shelly": about, "/meter/0": status, "/emeter/0": status, "/rpc/Switch.GetStatus?id=0": status,
        "Status 2": {"StatusFWR": about}, "Status 8": tasmota(power),
    }  # fmt: skip
    try:
        with driver({"host": device.host, "poll_s": 3600.0}) as meter:
            reading = meter._poll()
    except HardwareError as error:
        assert "\n" not in str(error)
    else:
        assert reading is None or 0.0 <= reading.value <= 20_000.0
