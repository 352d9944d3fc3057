"""What the coverage benchmark holds a tree against: FlopCounterMode, and the same pass on the other back ends."""

from __future__ import annotations

from typing import Any

BATCH, TOKENS = 2, 32


def counted_flops(module: Any, run: Any, device: str, shadows: Any) -> float:
    """FLOPs of matrix products by FlopCounterMode, which shares no code with the tracer."""
    from contextlib import ExitStack, nullcontext

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    from irene_build.trace import conditions
    from irene_build.trace.inputs import prepare

    class GroupedProducts(TorchDispatchMode):  # type: ignore[misc]
        """The kernel of the meta device refuses all but bfloat16; only its shape matters here."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._grouped_mm.default and args[0].is_meta and args[1].dim() == 3:
                return args[0].new_empty((*args[0].shape[:-1], args[1].shape[-1]))
            return func(*args, **(kwargs or {}))

    def grouped(a: Any, b: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        rows = a[0] if len(a) == 2 else a[0] * a[1]
        return int(2 * rows * a[-1] * b[-1])

    class NoTable:
        """In place of the counter's tracker of modules, which follows gradients and fails where there are none."""

        parents = frozenset(("Global",))

        def __enter__(self) -> None: ...

        def __exit__(self, *exc: Any) -> None: ...

    with ExitStack() as stack:
        stack.enter_context(conditions.evaluating(module))
        stack.enter_context(conditions.ordinary_run())
        stack.enter_context(shadows.following() if shadows is not None else nullcontext())
        inputs, _ = prepare(module, run, device, shadows)
        stack.enter_context(GroupedProducts())
        mapping = {torch.ops.aten._grouped_mm: grouped}
        counter = FlopCounterMode(display=False, custom_mapping=mapping)
        counter.mod_tracker = NoTable()
        stack.enter_context(counter)
        module(**inputs)
    return float(counter.get_total_flops())


def flop_check(spec: Any, tree: Any, attention: str) -> dict[str, Any]:
    """The tracer's matrix FLOPs beside FlopCounterMode's, on the rung and in the dtype of ``tree``."""
    from contextlib import nullcontext
    from dataclasses import replace

    import torch

    from irene_build.models.build import instantiate
    from irene_build.trace import conditions, tracer
    from irene_build.trace.bare import as_if_on_cpu
    from irene_build.trace.request import Pass
    from irene_build.trace.value_tracking import Shadows, shadows_for

    rung, dtype = tree.header["traced_by"]["tensors"], tree.header["dtype"]
    run = Pass(BATCH, TOKENS, attention=attention, dtype=dtype, tensors=rung).checked()
    shadows = Shadows() if rung == "meta" else None
    # Buffers that the constructor computes are known: some models ask for them.
    with shadows.following() if shadows is not None else nullcontext():
        module = instantiate(spec, dtype, attention, "cpu" if rung == "cpu" else "meta")
    ours = round(tree.nodes[0].features["matmul_flops"] * 1e6)
    errors = []
    with conditions.fake_mode() if rung == "fake" else nullcontext():
        if rung == "fake":
            module = as_if_on_cpu(module)
            shadows = shadows_for(module)
        for variant in range(tracer.variants(module, run)):
            try:
                trial = replace(run, variant=variant)
                if rung == "cpu":
                    # Random weights and draws steer these: the same ones for both.
                    torch.manual_seed(0)
                    tree, _ = tracer.record(module, spec.name, trial)
                    ours = round(tree.nodes[0].features["matmul_flops"] * 1e6)
                    torch.manual_seed(0)
                device = "meta" if rung == "meta" else "cpu"
                return {"ours": ours, "counter": round(counted_flops(module, trial, device, shadows))}
            except Exception as error:  # noqa: PERF203
                errors.append(f"{type(error).__name__}: {error}"[:200])
    return {"ours": ours, "error": errors[0]}
