"""Watches one forward pass: module hooks give the nodes, a function mode the functional primitives, a dispatch
mode the aten operations. Each operation lands in the innermost open call.

While a primitive with an analytic cost is open nobody listens to operations (they differ between
back ends, and listening costs time), unless ``audit`` asks for the owner of every one of them.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from . import autocast, cpu_strides, higher_order, primitives
from .bare import is_lazy
from .calls import Call, Keep
from .formulas import is_causal, moved
from .ops import Costs
from .primitives import Primitive
from .tensors import is_batched, storage_key, tensors_of, text_of
from .value_tracking import Shadows


class _Dispatch(TorchDispatchMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(hasattr(kind, "__tensor_flatten__") for kind in types):
            # A quantised or nested tensor first runs what it makes of the operation, which comes back here.
            return NotImplemented
        kwargs = kwargs or {}
        shadows = self._recorder.shadows
        if (key := cpu_strides.composite(func)) is not None:
            with self:
                return func._op_dk(key, *args, **kwargs)
        try:
            result = func(*args, **kwargs) if shadows is None else shadows.run(func, args, kwargs)
        except Exception as error:
            self._recorder.failed(func._schema.name, error)
            raise
        self._recorder.operation(func, args, kwargs, result)
        return result


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._table = primitives.function_table()
        self._composite = _composite()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._run(func, args, kwargs or {})
        except Exception as error:
            self._recorder.failed(resolve_name(func) or repr(func), error)
            raise

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        entry = self._table.get(func)
        shadows = self._recorder.shadows
        if entry is not None:
            if shadows is not None:
                args, kwargs = shadows.all_hollow(args), shadows.all_hollow(kwargs)
                if autocast.casts(func):
                    args, kwargs = autocast.cast(func, args, kwargs)
            return self._recorder.function(entry, func, args, kwargs)
        if func is self._composite:
            return self._expand(func, args, kwargs)
        if higher_order.is_flex_attention(func):
            return self._recorder.flex_attention(func, args, kwargs)
        if higher_order.is_higher_order(func) and (written := higher_order.as_written(func)) is not None:
            with self:
                return written(*args, **kwargs)
        if shadows is None:
            return func(*args, **kwargs)
        if autocast.casts(func):
            args, kwargs = autocast.cast(func, args, kwargs)
        return shadows.call(func, args, kwargs)

    def _expand(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a composite function's own body under this mode, so that the primitives in it are seen.

        Its body begins with a check for overrides, which would come straight back here; that one
        check is answered with no.
        """
        import torch.nn.functional as functional_module

        functional: Any = functional_module
        check = functional.has_torch_function

        def once(tensors: Any) -> bool:
            functional.has_torch_function = check
            return False

        functional.has_torch_function = once
        try:
            with self:
                return func(*args, **kwargs)
        finally:
            functional.has_torch_function = check


def _composite() -> Any:
    from torch.nn import functional

    return functional.multi_head_attention_forward


class Recorder:
    """Use as ``with Recorder(model) as recorder: model(...)``; then ``recorder.root`` is the tree of calls."""

    def __init__(
        self, model: Any, keep: Keep | None = None, shadows: Shadows | None = None, audit: bool | None = None
    ) -> None:
        self.shadows = shadows
        self.root: Call | None = None
        #: With ``audit``: (operation, number of the call, its own primitive or None) of every operation, in order.
        self.owners: list[tuple[str, int, str | None]] = []
        self._model, self._keep, self._audit = model, keep, bool(audit)
        self._names = {module: name for name, module in model.named_modules()}
        #: What each module is, before it has hooks of ours.
        self._entries = {module: primitives.of_module(module) for module in self._names}
        self._costs = Costs(self.known)
        for parameter in model.parameters():
            if not is_lazy(parameter):
                self._costs.hold(parameter)
        self._stack: list[Call] = []
        self._leaf = 0
        self._sequence = 0
        self._handles: list[Any] = []
        self._dispatch = _Dispatch(self)
        self._functions = _Functions(self)
        self._listening = False
        self._failure: tuple[str, Exception] | None = None
        self._patched: list[tuple[dict[str, Any], str, Any]] = []
        #: The result of the last activation, until it is multiplied with another tensor.
        self._gate: Callable[[], Any] = lambda: None

    def __enter__(self) -> Recorder:
        for module in self._names:
            # Around hooks of the model's own, whose work is the module's.
            before = module.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)
            self._handles.append(before)
            self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._watch_plain_functions()
        self._functions.__enter__()
        self._listen()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._deafen()
        self._functions.__exit__(*exc)
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        for handle in self._handles:
            handle.remove()
        for names, name, function in self._patched:
            names[name] = function

    def _watch_plain_functions(self) -> None:
        """Functions of Python beside the model's classes that are primitives (rotary embedding, scans)."""
        for package in {type(module).__module__ for module in self._names}:
            if package.partition(".")[0] == "torch" or package not in sys.modules:
                continue
            names = vars(sys.modules[package])
            for name, function in list(names.items()):
                entry = primitives.of_plain_function(name) if callable(function) else None
                if entry is not None and not isinstance(function, type):
                    self._patched.append((names, name, function))
                    names[name] = self._watched(entry, function)

    def _watched(self, entry: Primitive, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.function(entry, function, args, kwargs)

        return call

    @property
    def weights(self) -> dict[int, Any]:
        """Id of a parameter -> the parameter; those that no module had registered as well."""
        return self._costs.held | {id(p): p for p in self._model.parameters() if not is_lazy(p)}

    def known(self, tensor: Any) -> Any:
        """The values of a tensor, None where they are not known."""
        return tensor if self.shadows is None else self.shadows.get(tensor)

    def touched(self) -> set[int]:
        """Ids of the parameters that any leaf or operation read."""
        found: set[int] = set()
        stack = [self.root] if self.root is not None else []
        while stack:
            call = stack.pop()
            stack.extend(call.children)
            if call.cost is not None:
                found.update(call.cost.weights)
            for op in call.ops:
                found.update(op.weights)
        return found

    @property
    def path(self) -> str:
        """Where the pass is now; for messages when an operation fails."""
        return " > ".join(f"{call.scope or '(root)'}:{call.type}" for call in self._stack[-3:])

    def failed(self, operation: str, error: Exception) -> None:
        """Remembers the innermost operation that raised ``error``."""
        if self._failure is None or self._failure[1] is not error:
            self._failure = (operation, error)

    def where(self, error: Exception) -> str:
        """``aten::mm in encoder:Encoder > encoder.proj:Linear``; without the operation if the model itself raised."""
        failed = self._failure
        return f"{failed[0]} in {self.path}" if failed is not None and failed[1] is error else self.path

    def _listen(self) -> None:
        if not self._listening:
            self._dispatch.__enter__()
            self._listening = True

    def _deafen(self) -> None:
        if self._listening:
            self._dispatch.__exit__(None, None, None)
            self._listening = False

    def _open(self, scope: str, kind: str, module: Any, entry: Primitive | None) -> Call:
        call = Call(scope, kind, module, entry, self._sequence)
        self._sequence += 1
        if self._stack:
            self._stack[-1].children.append(call)
        elif self.root is None:
            self.root = call
        self._stack.append(call)
        return call

    # Asking a tensor for its shape would go through the function mode: it is off while we look.
    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with torch._C.DisableTorchFunction():
            self._enter(module, args, kwargs)

    def _after(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        with torch._C.DisableTorchFunction():
            self._exit(module, args, kwargs, output)

    def _enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._leaf:
            self._leaf += 1
            return
        entry = self._entries.get(module)
        scope = self._names.get(module, "")
        if not self._stack and self.root is None and (entry is not None):
            self._open(scope, type(module).__name__, module, None)
        tensors = tensors_of([args, kwargs])
        if entry is not None and entry.cost is not None and _as_run(tensors):
            entry = entry.as_run
        call = self._open(scope, type(module).__name__, module, entry)
        call.inputs = [text_of(t) for t in tensors]
        if call.type.endswith("Experts"):
            chosen = [t for t in tensors if t.dim() == 2 and not t.is_floating_point()]
            self._costs.routing = tuple(chosen[0].shape) if chosen else None
        if self._keep is not None:
            self._keep(call.sequence, None, module, args, kwargs)
        if entry is not None:
            self._leaf = 1
            if entry.cost is not None and not self._audit:
                self._deafen()

    def _exit(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._leaf > 1:
            self._leaf -= 1
            return
        if self.shadows is not None and not self._listening and next(module.parameters(), None) is None:
            self.shadows.follow(module.forward, args, kwargs, output)
        self._listen()
        self._leaf = 0
        call = self._stack.pop()
        if call.type.endswith("Experts"):
            self._costs.routing = None
        outputs = tensors_of(output)
        call.outputs = [text_of(t) for t in outputs]
        entry = call.primitive
        self._remember_gate(entry, outputs)
        if entry is not None and entry.cost is not None and entry.operands is not None:
            arguments = args or tuple(kwargs.values())
            operands = entry.operands(module, arguments)
            call.cost = entry.cost_of(self._costs, operands, outputs, module, args, kwargs)
            call.ops = []
        if len(self._stack) == 1 and self._stack[0].module is module:
            self._stack.pop()

    def function(self, entry: Primitive, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a functional primitive as a leaf of the open call."""
        if self._leaf or not self._stack:
            return self._called(entry, func, args, kwargs)
        parent = self._stack[-1]
        operands = primitives.operands_of_function(args, kwargs)
        hidden = any(map(is_batched, (t for t in operands if t is not None)))
        if entry.cost is not None and (hidden or (self.shadows is None and autocast.casts(func))):
            entry = entry.as_run
        call = self._open(parent.scope, entry.name, None, entry)
        call.inputs = [text_of(t) for t in operands if t is not None]
        if self._keep is not None:
            self._keep(call.sequence, None, func, args, kwargs)
        self._leaf = 1
        if entry.cost is not None and not self._audit:
            self._deafen()
        result = None
        if entry.on_hollow is not None and self.shadows is not None:
            result = entry.on_hollow(operands, bool(kwargs.get("enable_gqa")))
        if result is None:
            result = self._called(entry, func, args, kwargs)
        if self.shadows is not None and not self._listening:
            self.shadows.follow(func, args, kwargs, result)
        self._listen()
        self._leaf = 0
        self._stack.pop()
        outputs = tensors_of(result)
        call.outputs = [text_of(t) for t in outputs]
        self._remember_gate(entry, outputs)
        if entry.name == "Attention":
            call.causal = bool(is_causal(func, args, kwargs))
        if entry.cost is not None:
            call.cost = entry.cost_of(self._costs, operands, outputs, func, args, kwargs)
            call.ops = []
        return result

    def flex_attention(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A leaf like any fused attention; what the mask and the scores' function compute is part of its kernel."""
        query, key, value = args[:3]
        entry = next(p for p in primitives.PRIMITIVES if p.name == "Attention")
        call = self._open(self._stack[-1].scope if self._stack else "", entry.name, None, entry)
        self._deafen()
        if self.shadows is not None:
            result = higher_order.flex_result(query, key, value)
        else:
            result = higher_order.as_written(func)(*args, **kwargs)
        self._listen()
        self._stack.pop()
        found = higher_order.flex_scores(args, self.known)
        call.inputs = [text_of(t) for t in (query, key, value)]
        call.outputs = [text_of(result[0])]
        call.cost = moved(
            self._costs, [query, key, value], [result[0]], matmul_flops=found.matmul_flops,
            elementwise_flops=found.softmax_flops, shape=found.shape,
        )  # fmt: skip
        return result

    def _called(self, entry: Primitive, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.shadows is None or entry.name not in cpu_strides.PRIMITIVES:
            return func(*args, **kwargs)
        return cpu_strides.call(func, args, kwargs, self.shadows.fake, self._listening)

    def _remember_gate(self, entry: Primitive | None, outputs: list[Any]) -> None:
        if entry is not None and entry.name in primitives.GATES and outputs:
            self._gate = weakref.ref(outputs[0])

    def _is_gated(self, args: tuple[Any, ...]) -> bool:
        """A product of the last activation's result with another tensor of its shape: act(gate) * up."""
        gate = self._gate()
        if gate is None or len(tensors_of(args)) != 2 or args[0].shape != args[1].shape:
            return False
        key = storage_key(gate)
        return [storage_key(t) for t in args].count(key) == 1

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        op = self._costs.of(func, args, kwargs, result)
        if op is None or not self._stack:
            return
        if op.name in ("mul", "mul_") and not self._leaf and self._is_gated(args):
            op = op._replace(primitive="GatedActivation")
        call = self._stack[-1]
        if self._audit:
            self.owners.append((op.name, call.sequence, None if self._leaf else op.primitive))
        call.ops.append(op)
        if self._keep is not None and not self._leaf:
            self._keep(call.sequence, op.primitive, func, args, kwargs)


def _as_run(tensors: list[Any]) -> bool:
    """Whether the shapes of a module's call do not tell what runs, so that its operations are counted."""
    return autocast.dtype_now() is not None or any(map(is_batched, tensors))
