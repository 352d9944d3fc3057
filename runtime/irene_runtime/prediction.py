"""What an estimator says about one tree: per node, and as table, JSON, CSV and OpenMetrics text."""

import json
import math
import os
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from .equations import SIMULATED, flag_names
from .errors import InputError, TreeError
from .tree import ModelTree

COVERAGE = 0.9
JOULES_PER_WH = 3600.0
#: What every output says of the tree and of the estimator.
_HEAD = ("model", "batch_size", "seq_len", "phase", "past_len", "dtype", "attention")
_ABOUT = ("hardware", "boundary", "provenance")


class UnknownScopeError(TreeError, KeyError):
    """A scope that the tree does not have; the message names near ones."""

    __str__ = Exception.__str__


class NodePrediction(NamedTuple):
    """One node. ``share`` is of the root's energy; ``alpha`` is None at the root; ``flags`` are names."""

    index: int  # type: ignore[assignment]
    scope: str
    type: str
    call: int
    level: str
    parent: int
    primitive: Optional[str]
    energy_j: float
    interval_j: Tuple[float, float]
    share: Optional[float]
    alpha: Optional[float]
    tier: str
    flags: List[str]


def printable(text: Any, but: str = "") -> str:
    """Names come from files: nothing in them may steer a terminal, ``but`` for these characters."""
    return "".join(c if c.isprintable() or c in but else "?" for c in str(text))


def joules(value: float) -> str:
    """Four significant digits with a unit: ``12.35 J``, ``812.0 mJ``."""
    size = abs(value)
    for unit, scale in (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)):
        if size >= scale or unit == "uJ":
            break
    value /= scale
    digits = 3 - int(math.floor(math.log10(abs(value)))) if value else 3
    return "%.*f %s" % (max(0, min(6, digits)), value, unit)


class Prediction:
    """Energies of one run of the tree, in joules, node by node in the tree's order.

    ``p.energy_j`` and ``p.interval_j`` (90 %) are the root's; ``p["encoder.layer.0"]`` or
    ``p["encoder.layer.0:BertLayer"]`` or ``p[17]`` one node's (the first of that name).
    ``flags`` unites the flags of all nodes and of the whole; ``notes`` says in words what matters.
    """

    def __init__(
        self,
        tree: ModelTree,
        about: Dict[str, Any],
        tier: str,
        nodes: List[NodePrediction],
        flags: int,
        notes: List[str],
        explainer: Any = None,
    ) -> None:
        self.tree = tree
        #: hardware, boundary, provenance and digest of the estimator.
        self.about = about
        self.tier = tier
        self.nodes = nodes
        self.flags = flag_names(flags)
        self.notes = notes
        self.simulated = bool(flags & SIMULATED)
        self._explainer = explainer
        self._lookup: Dict[str, int] = {}
        #: Of a step over requests: each (tokens, cached), and what it has of the step's joules.
        self.requests: List[Any] = []
        self.shares_j: List[float] = []

    def __repr__(self) -> str:
        return "<Prediction of %s: %s, tier %s>" % (
            self.tree.header["model"],
            joules(self.energy_j),
            self.tier,
        )

    @property
    def energy_j(self) -> float:
        return self.nodes[0].energy_j

    @property
    def interval_j(self) -> Tuple[float, float]:
        return self.nodes[0].interval_j

    @property
    def energy_wh(self) -> float:
        return self.energy_j / JOULES_PER_WH

    def co2_g(self, g_per_kwh: float) -> float:
        """Grams of CO2 for the caller's factor, in grams per kWh of the grid."""
        return self.energy_j / JOULES_PER_WH / 1e3 * g_per_kwh

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[NodePrediction]:
        return iter(self.nodes)

    def __getitem__(self, key: Union[int, str]) -> NodePrediction:
        return self.nodes[self.index(key)]

    def index(self, key: Union[int, str]) -> int:
        """The index of a node given by index, ``scope``, ``scope:Type`` or ``scope:Type#call``.

        The empty scope is the root. Raises UnknownScopeError.
        """
        if isinstance(key, int):
            if not 0 <= key < len(self.nodes):
                raise UnknownScopeError("no node %d: the tree has %d nodes" % (key, len(self.nodes)))
            return key
        if not self._lookup:
            for index, node in enumerate(self.tree.nodes):
                for name in (node.scope, node.name.partition("#")[0], node.name):
                    self._lookup.setdefault(name, index)
            self._lookup[""] = 0
        if key not in self._lookup:
            from difflib import get_close_matches

            near = get_close_matches(str(key)[:200], list(self._lookup)[:5000], n=3, cutoff=0.4)
            hint = "; near: %s" % ", ".join(printable(n) for n in near) if near else ""
            raise UnknownScopeError("no node %r in %s%s" % (key, printable(self.tree.header["model"]), hint))
        return self._lookup[key]

    def explain(self, key: Union[int, str] = "") -> str:
        """How a number came about: path and alphas, children or leaf terms, reading, interval."""
        return str(self._explainer(self, self.index(key)))

    def to_dict(self) -> Dict[str, Any]:
        """The format ``irene-prediction`` version 1, as a dict of plain values."""
        out: Dict[str, Any] = {"format": "irene-prediction", "version": 1}
        out.update((key, self.tree.header[key]) for key in _HEAD)
        out.update(
            self.about, tier=self.tier, energy_j=self.energy_j, interval_j=list(self.interval_j), coverage=COVERAGE,
            flags=self.flags, notes=self.notes, nodes=[dict(n._asdict(), interval_j=list(n.interval_j)) for n in self],
        )  # fmt: skip
        return out

    def to_json(self) -> str:
        """The format ``irene-prediction`` version 1, as text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, one row a node. Raises InputError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas") from None
        rows = []
        for n in self.nodes:
            row = n._asdict()
            low, high = row.pop("interval_j")
            rows.append(dict(row, low_j=low, high_j=high))
        return pandas.DataFrame(rows).set_index("index")

    def to_csv(self) -> str:
        """One line a node. Names that a spreadsheet would run as a formula get a leading apostrophe."""
        import csv
        import io

        def safe(text: str) -> str:
            return printable("'" + text if text[:1] in "=+-@\t\r" and text else text)

        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        fields = " ".join(NodePrediction._fields).replace("interval_j", "low_j high_j").split()
        writer.writerow(fields + list(_ABOUT))
        for n in self.nodes:
            row: List[Any] = list(n[3:8])
            row += [*n.interval_j, n.share, n.alpha, n.tier, " ".join(n.flags)]
            writer.writerow([n.index, safe(n.scope), safe(n.type)] + row + [self.about[k] for k in _ABOUT])
        return file.getvalue()

    def to_openmetrics(self) -> str:
        """OpenMetrics text: three gauges a node (energy and the two ends of its interval)."""

        def label(value: Any) -> str:
            text = "" if value is None else printable(value, "\n")
            return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

        common = {k: self.about[k] for k in _ABOUT}
        common.update((k, self.tree.header[k]) for k in _HEAD if k not in ("past_len", "attention"))
        rows = []
        for n in self.nodes:
            labels = dict(
                common, tier=self.tier, node=n.index, scope=n.scope, type=n.type, level=n.level,
                primitive=n.primitive, flags=",".join(n.flags),
            )  # fmt: skip
            text = ",".join('%s="%s"' % (k, label(v)) for k, v in labels.items())
            rows.append((text, (n.energy_j,) + n.interval_j))
        kind = "SIMULATED energy" if self.simulated else "energy"
        out: List[str] = []
        for column, (part, what) in enumerate((
            ("", "Predicted %s of one run" % kind), ("_low", "Lower end, 90 % interval"),
            ("_high", "Upper end, 90 % interval"),
        )):  # fmt: skip
            name = "irene_energy%s_joules" % part
            out += ["# TYPE %s gauge" % name, "# UNIT %s joules" % name, "# HELP %s %s." % (name, what)]
            out += ["%s{%s} %r" % (name, text, values[column]) for text, values in rows]
        return "\n".join(out) + "\n# EOF\n"

    def _repr_html_(self) -> str:
        """What a notebook shows: the tree, collapsible, with energies, intervals, shares and flags."""
        from html import escape

        out = ["<div style='font-family:monospace;white-space:pre;line-height:1.4'>"]
        out += ["<div>%s</div>" % escape(line) for line in self.heading()]
        children, ends = self.tree.children, []  # type: Tuple[List[List[int]], List[int]]
        depths = self.tree.depths
        for n in self.nodes:
            while ends and depths[n.index] <= ends[-1]:
                out.append("</details>")
                ends.pop()
            low, high = n.interval_j
            text = "%s  %s to %s  %.1f%%  <b>%s</b> %s" % (
                joules(n.energy_j), joules(low), joules(high), 100.0 * (n.share or 0.0),
                escape(printable(self.tree.nodes[n.index].name)), escape(", ".join(n.flags)),
            )  # fmt: skip
            inset = "style='margin-left:%dch'" % min(20, 2 * depths[n.index])
            if children[n.index]:
                ends.append(depths[n.index])
                shown = " open" if depths[n.index] < 2 else ""
                out.append("<details%s><summary %s>%s</summary>" % (shown, inset, text))
            else:
                out.append("<div %s>%s</div>" % (inset, text))
        return "\n".join(out + ["</details>"] * len(ends) + ["</div>"])

    def heading(self, g_per_kwh: Optional[float] = None) -> List[str]:
        """The lines above every table."""
        about = self.about
        low, high = map(joules, self.interval_j)
        head = tuple(printable(self.tree.header[k]) for k in _HEAD if k != "past_len")
        lines = [
            "%s, batch %s, %s tokens, %s, %s, %s" % head,
            "on %s (%s, %s), tier %s"
            % (printable(about["hardware"]), about["boundary"], about["provenance"], self.tier),
            "%s a run, 90 %% interval %s to %s, %.4g Wh" % (joules(self.energy_j), low, high, self.energy_wh),
        ]
        if g_per_kwh is not None:
            lines[-1] += ", %.4g g CO2" % self.co2_g(g_per_kwh)
        if self.simulated:
            lines.insert(0, "SIMULATED: calibrated on simulated energy, not on a measurement.")
        lines += ["note: " + printable(note) for note in self.notes]
        return lines

    def table(
        self, depth: int = 3, width: int = 80, color: Optional[bool] = None, g_per_kwh: Optional[float] = None
    ) -> str:
        """Energy, half-width, share and a bar for every node down to ``depth``, in ``width`` columns.

        Neighbours of one type and one energy are shown once, with their number. Flags are counted over all nodes.
        """
        from textwrap import wrap

        stream = sys.stdout
        if color is None:
            plain = stream is None or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
            color = not plain and stream.isatty()
        block = "\u2588" if "utf" in (getattr(stream, "encoding", "") or "").lower() else "#"
        lines = [row for line in self.heading(g_per_kwh) for row in wrap(line, width, subsequent_indent="  ")]
        lines += ["", "    energy     +/-   share             node"]
        nodes, depths = self.nodes, self.tree.depths
        ends, hidden = list(range(1, len(nodes) + 1)), [level > depth for level in depths]
        for n in reversed(nodes):
            if n.index:
                ends[n.parent] = max(ends[n.parent], ends[n.index])
        for n in nodes:
            if hidden[n.index]:
                continue
            times, after, kind = 1, ends[n.index], (n.parent, n.type, n.energy_j)
            while (
                after < len(nodes) and (nodes[after].parent, nodes[after].type, nodes[after].energy_j) == kind
            ):
                times, after = times + 1, ends[after]
            hidden[ends[n.index] : after] = [True] * (after - ends[n.index])
            share = n.share or 0.0
            low, high = n.interval_j
            half = "%5.1f %%" % min(999.9, 50.0 * (high - low) / abs(n.energy_j)) if n.energy_j else "      -"
            bar = (block * int(round(10.0 * min(1.0, max(0.0, share))))).ljust(10)
            mark = "?" if "uncalibrated" in n.flags else "!" if "extrapolates" in n.flags else " "
            indent, name = min(20, 2 * depths[n.index]), self.tree.nodes[n.index].name
            above = nodes[n.parent].scope if n.index else ""
            if above and name.startswith((above + ".", above + ":")):
                name = name[len(above) + 1 :]
            name = printable(name) + (" x %d" % times if times > 1 else "")
            room = max(12, width - 41 - indent)
            name = " " * indent + (name if len(name) <= room else "..." + name[3 - room :])
            lines.append("%10s %s %6.1f%%  %s %s %s" % (
                joules(n.energy_j), half, 100.0 * share, "\x1b[32m%s\x1b[0m" % bar if color else bar, mark, name,
            ))  # fmt: skip
        for flag, text in (
            ("extrapolates", "! outside what was calibrated, interval widened"),
            ("uncalibrated", "? primitive never calibrated, fallback used"),
        ):
            count = sum(flag in n.flags for n in nodes)
            if count:
                lines.append("%s (%d of %d nodes)" % (text, count, len(nodes)))
        return "\n".join(lines) + "\n"
