"""One call of a module or of a functional primitive, with what ran inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .formulas import Cost
from .ops import Op
from .primitives import Primitive


class Call:
    """One call of a module or of a functional primitive, with what ran inside it."""

    __slots__ = (
        "causal", "children", "cost", "inputs", "module", "ops", "outputs", "primitive", "scope", "sequence", "type",
    )  # fmt: skip

    def __init__(
        self, scope: str, kind: str, module: Any, primitive: Primitive | None, sequence: int
    ) -> None:
        self.scope, self.type, self.module, self.primitive, self.sequence = (
            scope,
            kind,
            module,
            primitive,
            sequence,
        )
        self.children: list[Call] = []
        self.ops: list[Op] = []
        self.cost: Cost | None = None
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        #: Of fused attention: whether each token sees only those before it.
        self.causal = False


#: keep(sequence, own operation's primitive or None, callable, args, kwargs): called before it runs.
Keep = Callable[[int, "str | None", Callable[..., Any], tuple[Any, ...], dict[str, Any]], None]
