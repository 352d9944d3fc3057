"""An independent oracle: the fitted linear forms as scikit-learn pipelines, converted by skl2onnx, in onnxruntime.

Nothing of our graph is used: sklearn objects are rebuilt from the estimator's numbers (StandardScaler and
LinearRegression, the form in which the paper's leaves were fitted), and a converter that we did not write makes
a second graph. It covers every leaf's linear form (equation 1), whose floor is then applied by numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irene_build.export.functions import OPSET
from irene_build.export.law_graph import graph_features
from irene_build.export.manifest import canonical
from irene_build.export.tables import resolved
from irene_runtime.features import MODEL_FEATURES


def pipeline(terms: list[Mapping[str, Any]]) -> Any:
    """A fitted scikit-learn pipeline over the terms' products; terms that are constants make the intercept."""
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    own = [t for t in terms if t["columns"]]
    scaler = StandardScaler()
    scaler.mean_ = np.array([float(t.get("mean", 0.0)) for t in own])
    scaler.scale_ = np.array([float(t.get("scale", 1.0)) for t in own])
    scaler.var_ = scaler.scale_**2
    scaler.n_features_in_ = len(own)
    scaler.n_samples_seen_ = 1
    regression = LinearRegression()
    regression.coef_ = np.array([float(t["weight"]) for t in own])
    regression.intercept_ = np.float64(_constant(terms))
    regression.n_features_in_ = len(own)
    return make_pipeline(scaler, regression)


def _constant(terms: list[Mapping[str, Any]]) -> float:
    """The sum of the terms that look at no column."""
    bare = [t for t in terms if not t["columns"]]
    return float(sum(t["weight"] * ((1.0 - t.get("mean", 0.0)) / t.get("scale", 1.0)) for t in bare))


class LeafOracle:
    """The linear form of one leaf, by skl2onnx."""

    def __init__(self, leaf: Mapping[str, Any]) -> None:
        import onnxruntime
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType

        self._leaf = leaf
        own = [t for t in leaf["terms"] if t["columns"]]
        self._session = None
        if own:
            graph = convert_sklearn(
                pipeline(leaf["terms"]),
                initial_types=[("x", DoubleTensorType([None, len(own)]))],
                target_opset=OPSET,
            )
            self._session = onnxruntime.InferenceSession(
                graph.SerializeToString(), providers=["CPUExecutionProvider"]
            )

    def __call__(self, products: np.ndarray) -> np.ndarray:
        """float64 [rows] joules of float64 [rows, terms with columns] products."""
        if self._session is None:
            linear = np.full(len(products), _constant(self._leaf["terms"]))
        else:
            linear = np.asarray(self._session.run(None, {"x": products})[0], dtype=np.float64).reshape(-1)
        floor = self._leaf.get("floor")
        return linear if floor is None else np.where(linear < floor, floor, linear)


def leaf_products(leaf: Mapping[str, Any], columns: Any) -> np.ndarray:
    """float64 [rows, terms with columns]; ``columns[i]`` gives column i of a tier as float64 [rows]."""
    own = [t for t in leaf["terms"] if t["columns"]]
    out = []
    for term in own:
        product = columns[term["columns"][0]]
        for index in term["columns"][1:]:
            product = product * columns[index]
        out.append(product)
    return np.ascontiguousarray(np.array(out, dtype=np.float64).T)


class Oracle:
    """Leaf energies of an estimator by skl2onnx; conversions are kept, since they cost more than they compute."""

    def __init__(self, estimator: Mapping[str, Any]) -> None:
        self._estimator = estimator
        self._leaves: dict[str, LeafOracle] = {}

    def _leaf(self, data: Mapping[str, Any]) -> LeafOracle:
        key = canonical(data)
        if key not in self._leaves:
            self._leaves[key] = LeafOracle(data)
        return self._leaves[key]

    def _joules(self, data: Mapping[str, Any], columns: Any) -> np.ndarray:
        return self._leaf(data)(leaf_products(data, columns).reshape(columns.rows, -1))

    def leaf_energies(self, tier_name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """float64 [N]: joules of every leaf (NaN above), by skl2onnx; corrections and bends are the trainer's."""
        from irene_build.train.formulas import Columns, bent, correction
        from irene_build.train.widths import distance

        tier = resolved(self._estimator, tier_name)
        names, primitives = graph_features(self._estimator), list(self._estimator["primitives"])
        absent = np.array([0.0 if n in MODEL_FEATURES else np.nan for n in names])
        features = np.where(np.isnan(arrays["features"]), absent, arrays["features"])
        leaf = np.ones(len(features), dtype=bool)
        leaf[arrays["parent"][arrays["parent"] >= 0]] = False
        out = np.full(len(features), np.nan)
        number = np.where(arrays["level"] == 0, arrays["primitive"], -1)
        for k in np.unique(number[leaf]):
            rows = np.flatnonzero(leaf & (number == k))
            name = primitives[k] if 0 <= k < len(primitives) else ""
            stand_in = (tier.get("stand_in") or {}).get(name)
            whose = next((str(p) for p in (name, stand_in) if p in tier["leaf"]), "")
            data = tier["leaf"].get(whose, tier["fallback"])
            columns = Columns(tier["columns"], names, features[rows])
            with np.errstate(all="ignore"):
                learned = self._joules(data, columns) * correction(data.get("correction"), columns)
                law = self._joules(tier["fallback"], columns)
                ranges = {whose: (tier.get("ranges") or {}).get(whose, {})}
                away = distance(ranges, {}, names, features[rows], np.full(len(rows), whose))
                out[rows] = bent(tier, whose, learned, law, away)
        return out
