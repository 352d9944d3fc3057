"""What an estimator says about a request: joules by phase, by module and by token, as table and JSON."""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .equations import SIMULATED, flag_names
from .errors import TreeError
from .prediction import joules, printable

#: Lines of modules in a table.
ROWS = 24


class PhaseSum(NamedTuple):
    """All steps of a phase. ``error_j``: what the sum over steps may be off by; ``nodes`` by scope and type."""

    name: str
    energy_j: float
    interval_j: Tuple[float, float]
    time_s: Optional[float]
    steps: float
    error_j: float
    nodes: Dict[str, float]

    def of(self, scope: str) -> Optional[float]:
        """Joules of the first node of a scope, or of ``scope:Type``; None where there is none."""
        if scope in self.nodes:
            return self.nodes[scope]
        for name, value in self.nodes.items():
            if name.partition(":")[0] == scope:
                return value
        return None


class RequestPrediction:
    """Joules of a request, or of a batch of equal ones, from prompt to last token.

    ``energy_j`` and ``interval_j`` (90 %) are of the whole batch, ``energy_per_request_j`` of one of its sequences,
    ``energy_per_token_j`` of one new token; ``prefill`` and ``decode`` are its parts (``phases`` has all). The errors
    of all steps of one model are one error, so intervals add up. ``time_s`` is None where the estimator has no law.
    """

    def __init__(
        self,
        header: Dict[str, Any],
        about: Dict[str, Any],
        size: Dict[str, Any],
        phases: List[PhaseSum],
        flags: int,
    ) -> None:
        self.header, self.about, self.size = header, about, size
        self.phases = {phase.name: phase for phase in phases}
        self.flags = flag_names(flags)
        self.simulated = bool(flags & SIMULATED)
        total, low, high, error = 0.0, 0.0, 0.0, 0.0
        time: Optional[float] = 0.0
        for phase in phases:
            total, error = total + phase.energy_j, error + phase.error_j
            low, high = low + phase.interval_j[0], high + phase.interval_j[1]
            time = None if time is None or phase.time_s is None else time + phase.time_s
        self.energy_j, self.interval_j, self.time_s, self.error_j = total, (low, high), time, error

    def __repr__(self) -> str:
        return "<RequestPrediction of %s: %s, %s a new token>" % (
            printable(self.header["model"]), joules(self.energy_j), joules(self.energy_per_token_j),
        )  # fmt: skip

    def __getitem__(self, scope: str) -> float:
        """Joules of a node over all phases, by ``scope`` or ``scope:Type``. Raises TreeError."""
        total, there = 0.0, False
        for phase in self.phases.values():
            value = phase.of(scope)
            if value is not None:
                total, there = total + value, True
        if not there:
            raise TreeError("no node %r in %s" % (scope, printable(self.header["model"])))
        return total

    @property
    def prefill(self) -> PhaseSum:
        return self.phases["prefill"]

    @property
    def decode(self) -> PhaseSum:
        return self.phases["decode"]

    @property
    def energy_per_token_j(self) -> float:
        return self.energy_j / float(self.size["batch_size"] * self.size["new"])

    @property
    def energy_per_request_j(self) -> float:
        return self.energy_j / float(self.size["batch_size"])

    def to_json(self) -> Dict[str, Any]:
        """The format ``irene-request`` version 1, as a dict of plain values."""
        out: Dict[str, Any] = {"format": "irene-request", "version": 1}
        out.update((key, self.header[key]) for key in ("model", "dtype", "attention"))
        out.update(self.size)
        out.update(
            self.about, energy_j=self.energy_j, interval_j=list(self.interval_j), coverage=0.9,
            energy_per_token_j=self.energy_per_token_j, energy_per_request_j=self.energy_per_request_j,
            time_s=self.time_s, sum_error_j=self.error_j, flags=self.flags,
            phases={
                p.name: dict(p._asdict(), interval_j=list(p.interval_j)) for p in self.phases.values()
            },
        )  # fmt: skip
        return out

    def table(self, depth: int = 1) -> str:
        """Joules by phase and by module down to ``depth`` parts of its scope."""
        size, about = self.size, self.about
        text = "%s, prompt %d, %d new tokens, batch %d, %s, %s attention" % (
            printable(self.header["model"]), size["prompt"], size["new"], size["batch_size"],
            printable(self.header["dtype"]), printable(self.header["attention"]),
        )  # fmt: skip
        extra = [
            "%s %s" % (k.replace("_", " "), size[k])
            for k in ("shared_prefix", "speculative", "beams")
            if size.get(k)
        ]
        low, high = map(joules, self.interval_j)
        lines = [text + "".join(", " + e for e in extra)]
        lines.append(
            "on %s (%s, %s), tier static"
            % (printable(about["hardware"]), about["boundary"], about["provenance"])
        )
        lines.append("%s, 90 %% interval %s to %s" % (joules(self.energy_j), low, high))
        lines.append(
            "%s a new token, %s a request"
            % (joules(self.energy_per_token_j), joules(self.energy_per_request_j))
        )
        if self.time_s is not None:
            lines.append("%.4g s, by the law" % self.time_s)
        if self.simulated:
            lines.insert(0, "SIMULATED: calibrated on simulated energy, not on a measurement.")
        if "extrapolates" in self.flags:
            lines.append("note: some steps are outside of what was calibrated, interval widened")
        lines += ["", "phase        steps      energy   share   summed within"]
        for phase in self.phases.values():
            share = 100.0 * phase.energy_j / self.energy_j if self.energy_j else 0.0
            lines.append(
                "%-8s %9.6g  %10s  %5.1f%%   %s"
                % (phase.name, phase.steps, joules(phase.energy_j), share, joules(phase.error_j))
            )
        lines += ["", "    energy   share  module"]
        grouped: Dict[Tuple[str, float], List[str]] = {}
        for name, value in self.modules(depth):
            grouped.setdefault((name.rpartition(":")[2], value), []).append(name)
        for (_, value), names in list(grouped.items())[:ROWS]:
            total = value * len(names)
            share = 100.0 * total / self.energy_j if self.energy_j else 0.0
            times = " and others alike, %d in all" % len(names) if len(names) > 1 else ""
            lines.append("%10s  %5.1f%%  %s%s" % (joules(total), share, printable(names[0]), times))
        return "\n".join(lines) + "\n"

    def modules(self, depth: int = 1) -> List[Tuple[str, float]]:
        """Nodes up to ``depth`` below the root with their joules over all phases, the largest first."""
        out: Dict[str, float] = {}
        for phase in self.phases.values():
            for name, value in phase.nodes.items():
                scope = name.partition(":")[0]
                if scope and ":" in name and scope.count(".") < depth:
                    out[name] = out.get(name, 0.0) + value
        return sorted(out.items(), key=lambda item: -item[1])
