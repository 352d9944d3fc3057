"""The physical law of one device: how long a leaf takes, and the joules that this costs.

Time first: a roofline of tensor work (with what tiles, short inner products and the last wave waste) and of bytes
(those that stay in the cache apart), and a launch a kernel. Then energy: static power x time + joules a FLOP +
joules a byte. At the power limit the clock falls until the watts fit. What only the whole pass has, waiting for the
host that launches kernel by kernel, is a leaf of its own under the root, primitive ``Host``.

Every formula is in FORMAT.md, LAW; `irene_build.train.law.evaluate` is its twin in numpy. Time and energy grow with
every FLOP, byte, row and column (kernels alike).
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .equations import FORMS
from .features import COUNTED
from .outline import Folded
from .tree import ModelTree, Node

MEGA, MIB = 1e6, 1048576.0  #: units of FLOPs and bytes in a tree
TILE = 16384.0  #: elements that one thread block computes of a product: 128 x 128
CACHE_SPEED = 3.0  #: bandwidth of the last cache over that of memory
CACHE_COST = 0.25  #: joules a byte of the last cache over those of memory
#: Features that the law adds to every node: its own seconds and joules, and those of its leaves above them.
TIME, ENERGY = "law_time", "law_energy"


class LawConditions(NamedTuple):
    """What a run is run under, as the law uses it."""

    dtype: str
    clock: float  # as a share of the device's highest
    limit_w: float


class Spent(NamedTuple):
    """What a leaf takes: seconds, and joules without and with static power."""

    time_s: float
    dynamic_j: float
    energy_j: float


class Law:
    """The law with a device's numbers: ``data`` is the ``law`` object of an estimator file."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        device = data["device"]
        self.peaks: Dict[str, float] = {k: float(v) for k, v in device["peak_flops_per_s"].items()}
        self.bandwidth, self.sms = float(device["bandwidth_bytes_per_s"]), float(device["sms"])
        self.l2_bytes, self.max_clock_hz = float(device["l2_bytes"]), float(device["max_clock_hz"])
        self.limit_w = float(device["power_limit_w"])
        self.clock_hz = float(data.get("clock_hz") or self.max_clock_hz)
        self.n: Dict[str, float] = {name: float(entry["value"]) for name, entry in data["numbers"].items()}

    def conditions(self, header: Mapping[str, Any]) -> LawConditions:
        """From a tree's header; what it does not say is as it was in the calibration."""
        clock = 1e6 * float(header.get("clock_mhz") or 0.0) or self.clock_hz
        limit = float(header.get("power_limit_w") or 0.0) or self.limit_w
        return LawConditions(str(header.get("dtype")), clock / self.max_clock_hz, limit)

    def peak(self, dtype: str) -> float:
        """FLOP/s of matrix products; a dtype without units of its own runs as float32."""
        return self.peaks.get(dtype) or self.peaks["float32"]

    def voltage(self, under: LawConditions) -> float:
        """Joules of one operation over those at the highest clock: they follow the voltage."""
        return float(max(under.clock, self.n["voltage_floor"]) ** self.n["voltage_power"])

    def static_w(self, under: LawConditions) -> float:
        """Watts that flow while anything runs: leakage, and what follows the clock."""
        return self.n["static_w"] + self.n["clock_w"] * under.clock * self.voltage(under)

    def leaf(self, primitive: str, f: Mapping[str, float], under: LawConditions) -> Spent:
        """One leaf, from its features (units of ``irene_runtime.features``)."""
        n, get, fused = self.n, f.get, primitive == "Attention"
        wide = under.dtype in ("float32", "float64")
        peak, half = self.peak(under.dtype), self.peak("float16")
        kernels = get("kernels", 0.0)
        efficiency = n["efficiency_float32"] if wide else n["efficiency_16"]
        products = get("gemm_batch", 0.0)
        if fused:
            efficiency = efficiency * n["efficiency_attention"]
        elif products > 1.0:
            efficiency = efficiency * n["efficiency_batched"]
        matmul, vector = MEGA * get("matmul_flops", 0.0), MEGA * get("elementwise_flops", 0.0)
        scores = get("attended", 0.0)
        if fused and scores > 0.0:  # a causal mask that the kernel knows spares it about half
            matmul, vector = min(matmul, 4.0 * scores * get("gemm_k", 0.0)), min(vector, 5.0 * scores)
        work, share = matmul, peak / half if wide else 1.0
        if products > 0.0 and not fused:
            rows, columns, inner = get("gemm_m", 0.0), get("gemm_n", 0.0), get("gemm_k", 0.0)
            edge, fill = n["tile"], n["fill"] * share
            padded = (inner + fill) * (rows + edge) * (columns + edge)
            work = work + 2.0 * products * (padded - inner * rows * columns)
            height = (rows + edge) / (rows + edge + 128.0)  # few rows take lower tiles
            work = work + 2.0 * inner * n["tail"] * min(1.0, 4.0 * share) * self.sms * TILE * height
        flop_s = work / (peak * efficiency * under.clock)
        flop_s = flop_s + vector / (self.peaks["float32"] * n["efficiency_vector"] * under.clock)
        passing = MIB * (get("read_bytes", 0.0) + get("write_bytes", 0.0))
        cache = n["cache"] * self.l2_bytes * kernels
        reached = passing * passing / (passing + cache) if passing > 0.0 else 0.0
        stayed = passing - reached
        reached = reached + MIB * get("weight_bytes", 0.0)
        slow = 1.0 - n["clock_of_memory"] + n["clock_of_memory"] / under.clock
        byte_s = reached / (self.bandwidth * n["bandwidth"]) * slow
        byte_s = byte_s + stayed / (CACHE_SPEED * self.bandwidth * under.clock)
        time = float((flop_s**3 + byte_s**3) ** (1.0 / 3.0)) + kernels * n["launch_s"]
        per_flop = n["flop_float32_j"] if wide else n["flop_16_j"] * half / peak
        if fused:
            per_flop = per_flop * n["flop_attention"]
        joules = (matmul * per_flop + vector * n["flop_float32_j"]) * self.voltage(under)
        joules = joules + (reached + CACHE_COST * stayed) * n["byte_j"]
        static = self.static_w(under)
        room = max(under.limit_w * n["limit"] - static, 0.1 * under.limit_w)
        if (
            joules > room * time
        ):  # the clock falls until the watts fit; time stretches, joules follow the voltage
            power = n["voltage_power"]
            time = float(time ** (power / (1.0 + power)) * (joules / room) ** (1.0 / (1.0 + power)))
            joules = room * time
        return Spent(time, joules, joules + static * time)

    def host(self, kernels: float, leaves: float, busy_s: float, under: LawConditions) -> Spent:
        """What the whole pass takes beyond its leaves' ``busy_s`` because the host launches one by one."""
        launching = self.n["host_s"] * (kernels + leaves) + self.n["pass_s"]
        if leaves <= 0.0 or launching <= 0.0:
            return Spent(0.0, 0.0, 0.0)
        whole = float((busy_s**4 + launching**4) ** 0.25)
        gap = launching**4 / ((whole + busy_s) * (whole * whole + busy_s * busy_s))  # whole - busy_s, exactly
        return Spent(gap, 0.0, gap * self.static_w(under) * min(1.0, self.n["gap"]))

    def features(self, tree: ModelTree, folded: Optional[Folded] = None) -> List[Dict[str, float]]:
        """Per node what the terms of a tier may use like any feature: the law's seconds and joules."""
        return [{TIME: spent.time_s, ENERGY: spent.energy_j} for spent in self.nodes(tree, folded)]

    def nodes(self, tree: ModelTree, folded: Optional[Folded] = None) -> List[Spent]:
        """Per node of a tree, or of its folded form; a node above the leaves has the sums of what is below it."""
        under = self.conditions(tree.header)
        nodes = tree.nodes if folded is None else folded.nodes
        children = tree.children if folded is None else folded.children
        order = range(len(nodes)) if folded is None else [place.block for place in folded.places]
        out = [Spent(0.0, 0.0, 0.0)] * len(nodes)
        known: Dict[Any, Spent] = {}
        for index, node in enumerate(nodes):
            if node.level != "ml" or node.primitive == "Host":
                continue
            key = (node.primitive, tuple(node.features.items()))
            if key not in known:
                known[key] = self.leaf(node.primitive or "", node.features, under)
            out[index] = known[key]
        kernels, leaves, busy = 0.0, 0.0, 0.0
        for index in order:
            if nodes[index].level == "ml" and nodes[index].primitive != "Host":
                kernels, leaves = kernels + nodes[index].features.get("kernels", 0.0), leaves + 1.0
                busy = busy + out[index].time_s
        for index in range(len(nodes) - 1, -1, -1):
            if nodes[index].primitive == "Host":
                out[index] = self.host(kernels, leaves, busy, under)
            time, dynamic, energy = out[index]
            for child in reversed(children[index]):
                own = out[child]
                time, dynamic, energy = time + own.time_s, dynamic + own.dynamic_j, energy + own.energy_j
            out[index] = Spent(time, dynamic, energy)
        return out

    def prices(self, node: Node, header: Mapping[str, Any]) -> Tuple[float, float, float]:
        """Joules a FLOP and a byte, and the part of a leaf that is static power: what its joules are shared by."""
        if node.primitive == "Host":
            return 1.0, 1.0, 1.0
        spent, wide = self.leaf(node.primitive or "", node.features, self.conditions(header)), header["dtype"]
        per_flop = self.n["flop_float32_j"]
        if wide not in ("float32", "float64"):
            per_flop = self.n["flop_16_j"] * self.peak("float16") / self.peak(str(wide))
        static = 1.0 - spent.dynamic_j / spent.energy_j if spent.energy_j > 0.0 else 1.0
        return per_flop, self.n["byte_j"], static

    @staticmethod
    def with_host_leaf(folded: Folded) -> Folded:
        """As ``with_host``, of a tree in which equal nodes stand once."""
        if len(folded.places) < 2 or any(node.primitive == "Host" for node in folded.nodes):
            return folded
        return folded.with_leaf(Node("host", "Host", "ml", 0, "Host", 0, dict.fromkeys(COUNTED, 0.0)))

    @staticmethod
    def with_host(tree: ModelTree) -> ModelTree:
        """The tree with a ``Host`` leaf under its root, where it has none and is more than one leaf."""
        if len(tree.nodes) < 2 or any(node.primitive == "Host" for node in tree.nodes):
            return tree
        host = Node("host", "Host", "ml", 0, "Host", 0, dict.fromkeys(COUNTED, 0.0))
        return tree.with_leaf(host)


FORMS.update(law=Law)
