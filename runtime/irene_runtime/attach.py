"""Times every module of a torch model by forward hooks, for the profile tier. Only where torch is there."""

import sys
import threading
import time
from typing import Any, Dict, List, Set, Tuple

from .errors import InputError
from .monitor import Monitor
from .tree import ModelTree


class _Pass(threading.local):
    """What one thread is in the middle of: threads that share a model have passes of their own."""

    def __init__(self) -> None:
        self.calls: Dict[str, int] = {}
        #: (name, start, hooked calls so far) of the modules that are running.
        self.stack: List[Tuple[str, Any, int]] = []
        self.entered = 0


def _after_every_call(module: Any, hook: Any) -> Any:
    """A hook that also runs where the call raised; torch before 2.0 has none."""
    try:
        return module.register_forward_hook(hook, always_call=True)
    except TypeError:
        return module.register_forward_hook(hook)


class Attached(Monitor):
    """``with est.attach(model) as live:`` around forward passes of ``model``, whose runs are counted.

    What a module's hooks cost is measured first and taken off the times of the modules around it:
    ``cost_s`` is the sum over the window, ``cost_share`` its part. Energy counters are too slow for
    single modules: nodes get ``latency`` and the window's clocks. Passes of several threads are told apart;
    ``failed`` counts those that raised, whose time is taken off, while their energy cannot be.
    """

    def __init__(self, estimator: Any, model: Any, **options: Any) -> None:
        super().__init__(estimator, **options)
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(model, torch.nn.Module):
            raise InputError("attach needs a torch.nn.Module, not %s" % type(model).__name__)
        kind = type(model).__name__
        if kind == "OptimizedModule":
            raise InputError(
                "attach cannot time a compiled model: its modules do not run one by one; attach the model that"
                " torch.compile was given, and run that, or use monitor"
            )
        if kind in ("DataParallel", "DistributedDataParallel"):
            if len(getattr(model, "device_ids", None) or ()) > 1:
                raise InputError("attach cannot time a model on several GPUs (%s): use monitor" % kind)
            model = model.module
        self._torch, self._model = torch, model
        self._cuda = any(p.is_cuda for p in model.parameters())
        self._handles: List[Any] = []
        self._pass, self._lock = _Pass(), threading.Lock()
        #: (scope, type, call) -> [(start, end, hooked calls inside), ...], one a run.
        self._times: Dict[Tuple[str, str, int], List[Tuple[Any, Any, int]]] = {}
        self._entered, self._pair_s, self._failed_s = 0, 0.0, 0.0
        self.failed = 0
        self._threads: Set[int] = set()
        self.cost_s = self.cost_share = 0.0

    def __enter__(self) -> Any:
        self._pair_s = self._cost_of_a_pair()
        self._entered = 0
        try:
            for name, module in self._model.named_modules():
                before, after = self._hooks(name, type(module).__name__)
                self._handles.append(module.register_forward_pre_hook(before))
                self._handles.append(_after_every_call(module, after))
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
            took = self._features["latency"] - (self.cost_s + self._failed_s) / self.runs
            self._features["latency"] = max(0.0, took)
            if self.failed and "gpu_energy" in self._features:
                del self._features["gpu_energy"]
                reason = "%d passes raised in the window: their energy is not known" % self.failed
                self.missing["gpu_energy"] = reason
            if len(self._threads) > 1:
                text = "passes of %d threads: where they overlap, the times of modules hold each other's"
                self.remarks.append(text % len(self._threads))

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
        own = self._pass

        def before(module: Any, args: Any) -> None:
            if not name:  # a new run; whatever an exception left open is void
                own.calls, own.stack = {}, []
            own.entered += 1
            own.stack.append((name, self._now(), own.entered))

        def after(module: Any, args: Any, output: Any) -> None:
            while own.stack:
                opened, start, entered = own.stack.pop()
                if opened != name:
                    continue
                call = own.calls.get(name, 0)
                own.calls[name] = call + 1
                row = start, self._now(), own.entered - entered
                with self._lock:
                    self._entered += 1
                    raised = output is None and sys.exc_info()[0] is not None
                    if not raised:
                        self._times.setdefault((name, kind, call), []).append(row)
                    if not name:
                        self._threads.add(threading.get_ident())
                    if not name and raised:
                        self.failed += 1
                        self._failed_s += self._seconds(row)
                return

        return before, after

    def _seconds(self, row: Tuple[Any, Any, int]) -> float:
        """What a call took, without the hooks inside of it. Waits for the GPU where that timed it."""
        start, end, inside = row
        if self._cuda:
            end.synchronize()
        raw: float = start.elapsed_time(end) / 1e3 if self._cuda else (end - start) / 1e9
        return max(0.0, raw - inside * self._pair_s)

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
            for row in times:
                total += self._seconds(row)
            if times:
                out[index] = dict(clocks, latency=total / len(times))
        return out
