"""The columns of a tier while it is being fitted: each distinct one once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irene_build.train.formulas import Columns


class ColumnRegistry:
    """Hands out column indices; equal columns get the same one."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.columns: list[dict[str, Any]] = []
        self._known: dict[str, int] = {}

    def _index(self, column: dict[str, Any]) -> int:
        key = repr(sorted(column.items()))
        if key not in self._known:
            self._known[key] = len(self.columns)
            self.columns.append(column)
        return self._known[key]

    def raw(self, feature: str, kind: str = "identity", by: float | None = None) -> int:
        """The column ``kind(feature)``."""
        column: dict[str, Any] = {"feature": feature, "map": kind}
        if by is not None:
            column["by"] = by
        return self._index(column)

    def of(self, columns: Sequence[int], kind: str = "identity", by: float | None = None) -> int:
        """The column ``kind(product of earlier columns)``."""
        column: dict[str, Any] = {"of": list(columns), "map": kind}
        if by is not None:
            column["by"] = by
        return self._index(column)

    def over(self, features: np.ndarray) -> Columns:
        """Values of all columns over rows of features (in the order of ``names``)."""
        return Columns(self.columns, self.names, features)
