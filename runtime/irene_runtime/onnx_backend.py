"""The ONNX graph beside the module as backend, for those who ask for it. Needs numpy and onnxruntime."""

import math
import os
from typing import Any, Dict, List, Sequence, Tuple

from .errors import EstimatorError, InputError
from .tree import LEVELS, ModelTree

_TIER_NUMBERS = ("static", "live", "profile")


class Graph:
    """``irene_estimator.onnx`` in onnxruntime, on one thread.

    Raises InputError where a package is missing, EstimatorError where the file is, or is another estimator's.
    """

    def __init__(self, path: str, data: Any, digest: str) -> None:
        try:
            import numpy
            import onnxruntime
        except ImportError as error:
            raise InputError(
                "backend onnx needs numpy and onnxruntime (%s); use backend python" % error
            ) from None
        if not os.path.isfile(path):
            raise EstimatorError("%s: not there; backend onnx wants it beside the module" % path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own for files that are no graph
            raise EstimatorError("%s: %s" % (path, str(error)[:200])) from None
        about = self._session.get_modelmeta().custom_metadata_map
        found = about.get("irene.digest")
        if found != digest:
            raise EstimatorError("%s: digest %.64s, this estimator's is %s" % (path, found, digest))
        self._np = numpy
        columns = about.get("irene.features") or ",".join(data["features"])
        self._features: List[str] = [column.partition(" ")[0] for column in columns.split(",")]
        self._primitives = {name: index for index, name in enumerate(data["primitives"])}

    def run(
        self, tier: str, tree: ModelTree, features: Sequence[Dict[str, float]]
    ) -> List[Tuple[float, float, float, float, int]]:
        """Per node energy, low, high (J), alpha and flags."""
        np = self._np
        nodes = tree.nodes
        out = self._session.run(
            ["energy", "low", "high", "alpha", "flags"],
            {
                "features": np.array(
                    [[own.get(name, math.nan) for name in self._features] for own in features],
                    dtype=np.float64,
                ),
                "primitive": np.array(
                    [self._primitives.get(n.primitive or "", -1) for n in nodes], dtype=np.int64
                ),
                "parent": np.array([n.parent for n in nodes], dtype=np.int64),
                "level": np.array([LEVELS.index(n.level) for n in nodes], dtype=np.int64),
                "tier": np.array(_TIER_NUMBERS.index(tier), dtype=np.int64),
            },
        )
        return list(zip(*[column.tolist() for column in out]))
