"""What an estimator shows of itself: in notebooks, as a dict, as a table of how good it was."""

import json
from typing import Any, Dict, List, Mapping

from .equations import Tier
from .errors import InputError
from .prediction import printable


class EstimatorViews:
    """Views of an estimator's data."""

    data: Mapping[str, Any]
    tiers: Dict[str, Tier]

    digest: Any

    def _repr_html_(self) -> str:
        """What a notebook shows: what it is, and how good it was on models that were left out."""
        from html import escape

        rows = [
            (key, str(self.data.get(key)))
            for key in "hardware boundary provenance label_source method cost_model attention".split()
        ]
        rows += [("tiers", ", ".join(self.tiers)), ("digest", self.digest)]
        for row in self._evaluation():
            name = "error, %(tier)s, %(protocol)s, %(level)s" % row
            rows.append((name, "%.2f %%" % row["mape"]))
        cells = ["<tr><th>%s</th><td>%s</td></tr>" % (escape(a), escape(printable(b))) for a, b in rows]
        return "<table>%s</table>" % "".join(cells)

    def _evaluation(self) -> List[Dict[str, Any]]:
        return [
            dict(found, tier=tier, protocol=protocol, level=level)
            for tier, protocols in (self.data.get("evaluation") or {}).items()
            for protocol, levels in protocols.items()
            for level, found in levels.items()
            if isinstance(found, Mapping) and "mape" in found
        ]

    def to_dict(self) -> Dict[str, Any]:
        """The estimator's data (format ``irene-estimator``), a copy."""
        return json.loads(json.dumps(self.data))  # type: ignore[no-any-return]

    def to_pandas(self) -> Any:
        """How good it was: a ``pandas.DataFrame``, one row a tier, protocol and level. Raises InputError."""
        try:
            import pandas
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(self._evaluation())
