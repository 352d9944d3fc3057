"""What `irene-build export` fills in: the generated module carries these names with their values.

In the library they are empty, and ``Estimator`` wants the data as an argument.
"""

from typing import Any, Dict, List, Optional

#: The estimator, as in the build tool's format ``irene-estimator`` version 1.
ESTIMATOR: Optional[Dict[str, Any]] = None
#: Its SHA-256, see ``equations.estimator_digest``.
DIGEST = ""
#: Golden trees for ``selftest``: {"name", "tree": tree file, "tier", "energy_j": [float.hex, ...]}.
GOLDEN: List[Dict[str, Any]] = []
#: The exporting tool's version.
EXPORTED_BY = ""
