"""Runs single nodes of the targets, captured from one real forward pass of each."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from irene_build.calibrate.targets import trace_arguments

if TYPE_CHECKING:
    from irene_build.measure.plan import Target

#: Captured models may fill this share of the memory that is free when a campaign starts.
MEMORY_SHARE = 0.4


class ReplayWorkload:
    """Nodes captured from one real forward pass of each target, kept while memory lasts."""

    def __init__(self, device: str, free_bytes: int) -> None:
        self._device, self._room = device, MEMORY_SHARE * free_bytes
        self._kept: OrderedDict[Target, Any] = OrderedDict()

    def holds(self, sizes: Sequence[int]) -> bool:
        """Do models of these sizes (bytes) fit at the same time?"""
        return sum(sizes) <= self._room

    def runner(self, target: Target, node: int, wanted: list[int]) -> Callable[[], None]:
        """A callable that runs the node once on the device."""
        captured = self._kept.get(target)
        if captured is None or node not in captured.runners:
            captured = self._capture(target, wanted)
        self._kept.move_to_end(target)
        if node not in captured.runners:
            raise RuntimeError("the forward pass on this device did not reach it")
        runner: Callable[[], None] = captured.runners[node]
        return runner

    def _capture(self, target: Target, wanted: list[int]) -> Any:
        from irene_build.trace.replay import capture

        self._kept.pop(target, None)
        while self._kept and not self.holds([self._bytes(t) for t in (*self._kept, target)]):
            self._kept.popitem(last=False)
        captured = capture(**trace_arguments(target), device=self._device, only=wanted)
        self._kept[target] = captured
        return captured

    def _bytes(self, target: Target) -> int:
        from irene_build.measure.plan import memory_bytes

        kept = self._kept.get(target)
        return 0 if kept is None else memory_bytes(kept.tree)


def free_bytes(device: str) -> int:
    """Memory that captured models can use on the device."""
    if device != "cpu":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 << 30


def torch_threads() -> int:
    """Threads that torch computes with."""
    import torch

    return int(torch.get_num_threads())
