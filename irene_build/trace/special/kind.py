"""What an entry of the registry is, so that every room of it can say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: inputs(module, config, batch_size, seq_len) -> keyword arguments of forward.
Inputs = Callable[[Any, Any, int, int], dict[str, Any]]
