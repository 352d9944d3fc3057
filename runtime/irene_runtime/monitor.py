"""Resource features of a whole run, sampled in the background, and what they say about drift."""

import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .errors import InputError
from .features import RESOURCE_FEATURES
from .sampler import PERIOD_S, Sampler
from .tree import ModelTree

#: Mean GPU power of the last third of a window against the first: more than this is drift.
POWER_DRIFT = 0.05


def machine_fingerprint(gpu_name: Optional[str] = None) -> Dict[str, str]:
    """What tells this PC from another: ``platform``, ``cpu``, and ``gpu`` and ``driver`` where known."""
    out = {"platform": sys.platform}
    try:
        with open("/proc/cpuinfo", "rb") as file:
            for line in file.read(65536).decode("ascii", "replace").splitlines():
                if line.startswith(("model name", "Hardware")):
                    out["cpu"] = line.partition(":")[2].strip()
                    break
    except OSError:
        pass
    if gpu_name:
        out["gpu"] = gpu_name
        try:
            with open("/proc/driver/nvidia/version", "rb") as file:
                line = file.readline(4096).decode("ascii", "replace")
            out["driver"] = next(w for w in line.split() if w[:1].isdigit() and "." in w)
        except (OSError, StopIteration):
            pass
    return out


def differences(calibrated: Dict[str, Any], here: Dict[str, str]) -> str:
    """What differs between two fingerprints, in words; empty where nothing that both know does."""
    return "; ".join(
        "%s %s, calibrated with %s" % (key, here[key], calibrated[key])
        for key in sorted(here)
        if calibrated.get(key) not in (None, "", here[key])
    )


def _synchronise() -> None:
    """Waits for the GPU where torch has started one: work that still runs belongs to the window."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Drift(NamedTuple):
    """The counter against the static prediction. ``ratio`` is observed over predicted energy of one run."""

    source: str
    observed_j: float
    predicted_j: float
    interval_j: Tuple[float, float]
    ratio: float
    power_change: Optional[float]
    recalibrate: bool
    reasons: List[str]


class Monitor:
    """``with est.monitor(runs=10) as live:`` and, after it, ``est.predict(tree, live)``.

    ``features``: resource features of one run (names and units of Table 1); ``missing``: name -> why it
    is not there; ``seconds``: length of the window; ``cpu_source``: whether ``cpu_util`` is the ``host``'s or
    this ``container``'s share of all CPUs; ``differs``: how this PC differs from the calibrated
    one, empty where it does not, None where that cannot be told. ``runs``, the forward passes in the
    window, can be set until the window closes.
    """

    def __init__(self, estimator: Any, runs: int = 1, period_s: float = PERIOD_S, gpu: Any = None) -> None:
        self.estimator, self.runs = estimator, runs
        self.sampler = Sampler(period_s=period_s, gpu=gpu)
        self.missing: Dict[str, str] = {}
        #: What a prediction from this window should say.
        self.remarks: List[str] = []
        self.differs: Optional[str] = None
        self.seconds: Optional[float] = None
        self._start = self._end = 0
        self._features: Dict[str, float] = {}

    @property
    def cpu_source(self) -> str:
        return self.sampler.cpu_source

    def __enter__(self) -> Any:
        self._check_runs()
        self.sampler.start()
        calibrated = self.estimator.fingerprint
        if calibrated:
            self.differs = differences(calibrated, machine_fingerprint(self.sampler.gpu_name))
        _synchronise()
        self._start = time.monotonic_ns()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                _synchronise()
        finally:
            self._end = time.monotonic_ns()
            self.sampler.stop()
            self.seconds = (self._end - self._start) / 1e9
        if kind is None:
            self._check_runs()
            self._summarise()

    def _check_runs(self) -> None:
        if isinstance(self.runs, bool) or not isinstance(self.runs, int) or self.runs < 1:
            raise InputError(
                "runs is %.40r, expected how many forward passes the window holds" % (self.runs,)
            )

    def _summarise(self) -> None:
        seen = self.sampler.summary(self._start, self._end)
        seen["latency"] = (self._end - self._start) / 1e9
        for name in ("latency", "gpu_energy"):
            if name in seen:
                seen[name] /= self.runs
        self._features = seen
        if self.cpu_source != "host" and "cpu_util" in self.estimator.data["features"]:
            self.remarks.append("cpu_util is this container's share of all CPUs, not the host's")
        self.missing = {
            name: self.sampler.missing.get(
                name,
                "the window of %.3f s was too short to see it: let it hold more runs" % (self.seconds or 0.0),
            )
            for name in RESOURCE_FEATURES
            if name not in seen
        }

    @property
    def features(self) -> Dict[str, float]:
        """Raises InputError while the window is open, and where it ended with an exception."""
        if not self._features:
            raise InputError("the monitor's window is not finished: use it after the `with` block")
        return self._features

    def drift(self, tree: ModelTree, before: Optional[Drift] = None) -> Drift:
        """Compares this window with the static prediction of the tree that ran in it.

        The observed energy is the GPU's counter where the estimator's boundary is the GPU; elsewhere
        what the live tier makes of the whole run's readings. ``before``: an earlier result, to see what
        moved since. Raises InputError where there is nothing to compare.
        """
        est = self.estimator
        static = est.predict(tree, tier="static")
        if static.tier != "static":
            raise InputError("this estimator has no static tier to compare with")
        source, observed = "live tier", None
        if est.boundary == "gpu":
            counter = self.sampler.gpu_energy_source == "counter"
            source = "gpu counter" if counter else "gpu power, integrated"
            observed = self.features.get("gpu_energy")
        else:
            live = est.predict(tree, self, tier="live")
            observed = live.energy_j if live.tier == "live" else None
        if observed is None:
            gone = "; ".join("%s: %s" % item for item in sorted(self.missing.items()))
            raise InputError("no counter to compare with (%s)" % (gone or "this estimator has no live tier"))
        low, high = static.interval_j
        ratio = observed / static.energy_j
        reasons = []
        if not low <= observed <= high:
            text = "a run took %.4g J, outside the static prediction's 90 %% interval %.4g to %.4g J"
            reasons.append(text % (observed, low, high))
        if self.differs:
            reasons.append("not as calibrated: " + self.differs)
        ranges: Dict[str, Any] = {}
        for tier in est.tiers.values():
            ranges.update(tier.ranges.get("model", {}))
        for name in ("g_clk", "gm_clk"):
            value, ends = self.features.get(name), ranges.get(name)
            if ends and value is not None and not ends[0] * 0.98 <= value <= ends[1] * 1.02:
                text = "%s ran at %.0f MHz, calibrated at %.0f to %.0f: throttled, or set otherwise"
                reasons.append(text % (name, value, ends[0], ends[1]))
        change = self._power_change()
        if change is not None and abs(change) > POWER_DRIFT:
            text = "GPU power moved by %+.1f %% within the window: not warmed up, or throttled"
            reasons.append(text % (100 * change))
        if before is not None and abs(ratio / before.ratio - 1.0) > 0.5 * (high - low) / static.energy_j:
            reasons.append("observed over predicted moved from %.4f to %.4f" % (before.ratio, ratio))
        return Drift(source, observed, static.energy_j, (low, high), ratio, change, bool(reasons), reasons)

    def _power_change(self) -> Optional[float]:
        """GPU power of the window's last third over its first, minus 1; None where unknown or too short."""
        third = (self._end - self._start) // 3
        if third < 5e9 * self.sampler.period_s:
            return None
        first = self.sampler.summary(self._start, self._start + third).get("gpu_energy")
        last = self.sampler.summary(self._end - third, self._end).get("gpu_energy")
        return last / first - 1.0 if first and last else None
