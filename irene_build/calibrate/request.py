"""What was asked of `calibrate`, and whether it makes sense: found out before anything is opened or traced."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irene_build.calibrate.targets import parse_grid, read_plan_file
from irene_build.errors import InputError
from irene_build.paths import find_artifact

METHODS = ("best", "paper")
#: Threads that torch takes at most.
_MOST_THREADS = 4096


@dataclass(frozen=True)
class Request:
    """The options of `calibrate`, as `irene-build calibrate --help` describes them."""

    hardware: str
    meter: str
    models: tuple[str, ...]
    grid: str | None
    plan_file: Path | None
    budget: str
    precision: float
    seed: int
    device: str
    threads: int
    dry_run: bool
    resume: bool
    new: bool
    stop_after: str
    train: bool
    method: str
    origin: str
    labels: int
    as_json: bool

    def arguments(self) -> dict[str, Any]:
        """What was said about the plan; what was left open is not in it."""
        said = {
            "meter": self.meter,
            "models": list(self.models),
            "grid": self.grid or "",
            "plan": "" if self.plan_file is None else str(self.plan_file),
            "budget": self.budget,
            "precision": self.precision if self.precision != 0.01 else None,
            "seed": self.seed,
            "device": self.device,
            "from": self.origin,
            "labels": self.labels,
        }
        return {key: value for key, value in said.items() if value}

    def budget_s(self, default_s: float) -> float:
        """Measuring time, s."""
        return parse_seconds(self.budget) if self.budget else default_s

    def check(self) -> None:
        """Raises InputError for options that make no sense; opens nothing but the plan file."""
        if self.method not in METHODS:
            raise InputError(f"--method {self.method!r}: expected {' or '.join(METHODS)}")
        if not 1e-4 <= self.precision <= 0.5:
            raise InputError(f"--precision {self.precision:g}: expected 0.0001 to 0.5 (0.01 is 1 %)")
        if not 0 <= self.threads <= _MOST_THREADS:
            raise InputError(
                f"--threads {self.threads}: expected 1 to {_MOST_THREADS}, or 0 for torch's own choice"
            )
        if self.plan_file is not None and (self.models or self.grid):
            raise InputError("--plan already says what to measure: leave out --model and --grid")
        if self.resume and self.new:
            raise InputError("--resume and --new exclude each other")
        if bool(self.origin) != bool(self.labels) or self.labels < 0:
            raise InputError("--from HARDWARE and --labels N (at least 1) belong together")
        if self.origin:
            find_artifact(self.origin, "estimator.json")
        if self.grid is not None:
            parse_grid(self.grid)
        if self.plan_file is not None:
            read_plan_file(self.plan_file)
        for text in (self.budget, self.stop_after):
            if text:
                parse_seconds(text)


def parse_seconds(text: str) -> float:
    """``90``, ``90s``, ``30m``, ``1h`` as seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    if not match or float(match[1]) <= 0.0:
        raise InputError(f"time {text!r}: write it as 90s, 30m or 1h")
    return float(match[1]) * {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}[match[2] or "s"]
