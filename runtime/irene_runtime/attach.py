"""Times every module of a torch model by forward hooks, for the profile tier. Only where torch is there."""

import sys
import time
from typing import Any, Dict, List, Tuple

from .errors import InputError
from .monitor import Monitor
from .tree import ModelTree


class Attached(Monitor):
    """``with est.attach(model) as live:`` around forward passes of ``model``, whose runs are counted.

    What a module's hooks cost is measured first and taken off the times of the modules around it:
    ``cost_s`` is the sum over the window, ``cost_share`` its part. Energy counters are too slow for
    single modules: nodes get ``latency`` and the window's clocks.
    """

    def __init__(self, estimator: Any, model: Any, **options: Any) -> None:
        super().__init__(estimator, **options)
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(model, torch.nn.Module):
            raise InputError("attach needs a torch.nn.Module, not %s" % type(model).__name__)
        self._torch, self._model = torch, model
        self._cuda = any(p.is_cuda for p in model.parameters())
        self._handles: List[Any] = []
        self._calls: Dict[str, int] = {}
        self._stack: List[Tuple[str, Any, int]] = []
        #: (scope, type, call) -> [(start, end, hooked calls inside), ...], one a run.
        self._times: Dict[Tuple[str, str, int], List[Tuple[Any, Any, int]]] = {}
        self._entered, self._pair_s = 0, 0.0
        self.cost_s = self.cost_share = 0.0

    def __enter__(self) -> Any:
        self._pair_s = self._cost_of_a_pair()
        self._entered = 0
        try:
            for name, module in self._model.named_modules():
                before, after = self._hooks(name, type(module).__name__)
                self._handles.append(module.register_forward_pre_hook(before))
                self._handles.append(module.register_forward_hook(after))
            return super().__enter__()
        except BaseException:
            self._detach()
            raise

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._detach()
        if kind is None:
            self.runs = len(self._times.get(("", type(self._model).__name__, 0), ()))
            if not self.runs:
                super().__exit__(InputError, None, None)
                raise InputError("no forward pass of the attached model finished in the window")
        super().__exit__(kind, error, trace)
        self.cost_s = self._entered * self._pair_s
        self.cost_share = self.cost_s / (self.seconds or 1.0)
        if self._features:
            self._features["latency"] = max(0.0, self._features["latency"] - self.cost_s / self.runs)

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter_ns()
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _hooks(self, name: str, kind: str) -> Tuple[Any, Any]:
        def before(module: Any, args: Any) -> None:
            if not name:  # a new run; whatever an exception left open is void
                self._calls, self._stack = {}, []
            self._entered += 1
            self._stack.append((name, self._now(), self._entered))

        def after(module: Any, args: Any, output: Any) -> None:
            while self._stack:
                opened, start, entered = self._stack.pop()
                if opened == name:
                    call = self._calls.get(name, 0)
                    self._calls[name] = call + 1
                    row = start, self._now(), self._entered - entered
                    self._times.setdefault((name, kind, call), []).append(row)
                    return

        return before, after

    def _cost_of_a_pair(self) -> float:
        """Seconds that the two hooks of one call take, by calling them."""
        before, after = self._hooks("x", "X")
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter_ns()
            for _ in range(200):
                before(None, None)
                after(None, None, None)
            best = min(best, (time.perf_counter_ns() - start) / 200e9)
            self._times = {}
        return best

    def nodes_of(self, tree: ModelTree) -> Dict[int, Dict[str, float]]:
        """Index of a node -> its resource features; nodes that are no module of the model are not there."""
        clocks = {k: v for k, v in self.features.items() if k in ("g_clk", "gm_clk")}
        out: Dict[int, Dict[str, float]] = {}
        for index, node in enumerate(tree.nodes):
            times, total = self._times.get((node.scope, node.type, node.call), ()), 0.0
            for start, end, inside in times:
                raw = start.elapsed_time(end) / 1e3 if self._cuda else (end - start) / 1e9
                total += max(0.0, raw - inside * self._pair_s)
            if times:
                out[index] = dict(clocks, latency=total / len(times))
        return out
