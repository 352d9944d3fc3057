"""The campaign's side of the rig: what `calibrate` does, with the real drivers, on nodes that only draw power.

python -m tests.measure.rig_process SPEC.json       makes or goes on with the campaign of the specification
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from irene_build.errors import IreneError
from irene_build.hardware import HardwareProfile
from irene_build.measure import journal as journals
from irene_build.measure.campaign import Campaign
from irene_build.measure.plan import Target, make_plan, protocol_for
from irene_build.measure.start import start_journal
from irene_build.meters import open_meter
from irene_build.meters.assess import idle_noise
from irene_runtime.sampler import Sampler
from tests.measure.curve import IDLE_W, PULSE_W, Curve, node_watts
from tests.measure.doubles import double_tree


class _Device:
    name = "cpu"

    def __init__(self, curve: Curve, held: set[int]) -> None:
        self.curve, self._held = curve, held
        self.window, self.chunks, self.looks = -1, 0, 0

    def looked(self) -> None:
        """A snapshot: windows begin and end with one."""
        self.looks += 1
        self.window, self.chunks = self.looks // 2, 0

    def synchronize(self) -> None:
        self.chunks += 1
        if self.looks % 2 and self.chunks == 2 and self.window in self._held:
            self.curve.hold(self.window)

    def burn(self, seconds: float) -> None:
        self.curve.set(PULSE_W)
        time.sleep(seconds)
        self.curve.set(IDLE_W)

    def speed(self) -> tuple[float, float]:
        return 1e10, 1e9


class _Workload:
    def __init__(self, curve: Curve) -> None:
        self.curve = curve

    def holds(self, sizes: Sequence[int]) -> bool:
        return True

    def runner(self, target: Any, node: int, wanted: list[int]) -> Callable[[], None]:
        def run() -> None:
            self.curve.set(node_watts(node))
            time.sleep(0.006)
            self.curve.set(IDLE_W)

        return run


def _campaign(spec: Mapping[str, Any]) -> bool:
    journals.BUSY_TIMEOUT_S = spec.get("busy_timeout_s", journals.BUSY_TIMEOUT_S)
    curve = Curve(Path(spec["curve"]))
    device = _Device(curve, set(spec["held"]))

    class Looking(Sampler):
        def sample(self) -> Any:
            device.looked()
            return super().sample()

    profile = HardwareProfile("rig", "a PC that a test plays", "cpu", meter=spec["meter"])
    with journals.Journal(Path(spec["journal"])) as journal, open_meter(profile) as meter:
        if "span_s" in spec:
            meter.span_s = spec["span_s"]  # type: ignore[attr-defined]
        if not journal.has_campaign:
            noise, level = idle_noise(meter)
            protocol = protocol_for(meter.info, noise, level)
            # Somebody else's load is what one test is about, and would be a nuisance in all the others.
            usual = {"foreign_cores": float(1 << 20), "precision": 5.0, "min_rounds": 1, "max_rounds": 1}
            usual |= {"window_s": 0.16, "warm_s": 0.04, "pulse_unit_s": 0.05, "standby_s": 0.2, "seed": 4}
            # A machine that is too busy for a while spoils trials that no test is about.
            usual |= {"max_attempts": 20, "gate_timeout_s": 60.0, "gate_budget": 1000.0}
            protocol = replace(protocol, **{**usual, "gate_share": 0.2, **spec["settings"]})
            targets = [Target(f"toy{n}", 1, 8) for n in range(spec.get("models", 1))]
            plan = make_plan(
                targets, lambda t: double_tree(t, spec.get("leaves", 3)), protocol, device.speed()
            )
            header = {
                "hardware": "rig", "boundary": meter.info.boundary, "provenance": meter.info.provenance,
                "label_source": meter.info.name,
            }  # fmt: skip
            start_journal(journal, plan, header)
        sysfs = Path(spec.get("sysfs", "/sys"))
        quiet = lambda *_: None  # noqa: E731
        tell = lambda text: sys.stderr.write(text + "\n")  # noqa: E731
        outcome = Campaign(
            journal, meter, Looking(), device, _Workload(curve), quiet, {}, spec.get("gpu"), tell, sysfs
        ).run()
        return outcome.finished


if __name__ == "__main__":
    # A file that may not grow is an error to whoever writes it, as a full disk is, and no signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        done = _campaign(json.loads(Path(sys.argv[1]).read_text()))
    except IreneError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(1) from None
    sys.stdout.write("finished\n" if done else "unfinished\n")
