"""A meter of your own in one file: a board's power sensor, as Linux shows it under /sys/class/hwmon.

    python examples/new_meter.py

A driver opens its source, looks at it once (`_poll`), and says what its readings are. Threads, time stamps, buffers,
faults, the check of its settings, `doctor` and campaigns come from irene-build. Where this machine has no such sensor,
the example plays one in a folder.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from irene_build.errors import HardwareError
from irene_build.hardware import this_pc
from irene_build.meters import MeterInfo, Reading, open_meter, register_meter
from irene_build.meters.assess import assess
from irene_build.meters.settings import number, text
from irene_build.meters.threaded import PolledMeter


class HwmonMeter(PolledMeter):
    """Power of the first chip that has a sensor of it, in steps of a microwatt."""

    #: What the [meter] table of a profile may hold for this driver.
    settings: ClassVar = {"root": text, "poll_s": number(0.001, 60.0)}

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(float(config.get("poll_s", 0.02)))
        self._root = Path(str(config.get("root", "/sys/class/hwmon")))
        self._boundary = str(config.get("boundary", "board"))
        self._file: Path | None = None

    @property
    def info(self) -> MeterInfo:
        return MeterInfo(
            name="hwmon", source=f"power sensor {self._file or self._root}", kind="power", boundary=self._boundary,
            provenance="measured", period_s=self._period_s, quantum=1e-6, power_kind="board", details={},
            window_s=self._period_s,
        )  # fmt: skip

    def _open(self) -> None:
        found = sorted(self._root.glob("hwmon*/power1_input"))
        if not found:
            raise HardwareError(f"hwmon: no chip in {self._root} has a power sensor")
        self._file = found[0]

    def _poll(self) -> Reading | None:
        assert self._file is not None
        try:
            microwatts = int(self._file.read_text())
        except (OSError, ValueError):
            self._counts["read_failed"] += 1  # counted, told by doctor, and no reading: never a zero
            return None
        return Reading(time.monotonic_ns(), microwatts / 1e6)

    def _close(self) -> None:
        self._file = None


def played(folder: Path, stop: threading.Event) -> None:
    """A chip whose power moves between 41 and 42 W."""
    file = folder / "hwmon0" / "power1_input"
    file.parent.mkdir()
    count = 0
    while not stop.is_set():
        fresh = file.with_suffix(".new")
        fresh.write_text(f"{41_000_000 + 1_000 * (count * 37 % 1000)}\n")
        fresh.replace(file)
        count += 1
        stop.wait(0.005)


def main() -> None:
    register_meter("hwmon", HwmonMeter, HwmonMeter.settings)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        root = Path("/sys/class/hwmon")
        if not any(root.glob("hwmon*/power1_input")):
            print("this machine has no power sensor: one is played")
            root = Path(folder)
            threading.Thread(target=played, args=(root, stop), daemon=True).start()
            time.sleep(0.1)
        # The same table can stand in a profile: [meter] driver = "hwmon", and `irene-build doctor --hardware ...`
        profile = this_pc({"driver": "hwmon", "root": str(root)}, boundary="board", name="my-pc")
        with open_meter(profile) as meter:
            seen = assess({"hwmon": meter}, seconds=1.0)["hwmon"]
            print(f"{meter.info.source}: {seen.power_w:.2f} W, {seen.readings} readings")
            print(f"a window of {seen.shortest_window_s:.2f} s gives 1 % at 95 %")
        stop.set()


if __name__ == "__main__":
    main()
