"""The estimator: from a tree to its joules, in one pass from the leaves to the root."""

import math
import os
import warnings
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .attach import Attached
from .equations import (
    DATASHEET,
    EXTRAPOLATES,
    FELL_BACK,
    FORMS,
    OTHER_HARDWARE,
    Tier,
    estimator_digest,
    flag_names,
)
from .errors import EstimatorError, InputError, TreeError
from .evaluation import TreeEvaluator, _kinds, _not_finite, _Value
from .explain import explanation
from .features import COUNTED, MAX_WATTS, RESOURCE_FEATURES
from .generation import StepValues, predicted_request
from .given import _sized, _step
from .law import TIME
from .monitor import Monitor
from .onnx_backend import Graph
from .outline import Folded
from .prediction import NodePrediction, Prediction, printable
from .ragged import BYTE_PER_FLOP, Step
from .request_prediction import RequestPrediction
from .symbolic import SizedTree, SymbolicTree, load_any
from .tree import ModelTree
from .unmeasured import all_widened, unmeasured
from .views import EstimatorViews

#: Best first; a prediction falls to the next one where features are missing.
TIERS = ("profile", "live", "static")


def _beside() -> str:
    """The graph that an export writes beside the module. Raises InputError where the module is no file."""
    module = globals().get("__file__")
    if module is None:
        raise InputError("this module was not loaded from a file: name the graph, Estimator(graph=PATH)")
    return str(os.path.splitext(os.path.abspath(module))[0]) + ".onnx"


def load_tree(path: str) -> Any:
    """Read and check a tree file: a ModelTree of one size, or a SymbolicTree of every size. Raises TreeError."""
    return load_any(path)


class _Explainer:
    """Writes explanations of one prediction; unlike a function in a function, it can be pickled."""

    def __init__(self, estimator: "Estimator", tier: str, features: List[Dict[str, float]]) -> None:
        self.estimator, self.tier, self.features = estimator, tier, features

    def __call__(self, prediction: Prediction, index: int) -> str:
        return explanation(self.estimator.tiers[self.tier], prediction, index, self.features)


class Estimator(TreeEvaluator, EstimatorViews):
    """Predicts the joules of every node of a model tree on the PC that it was calibrated on.

    ``data``: an estimator in the build tool's format; the generated module has its own. ``backend``:
    ``python``, or ``onnx`` for the graph in the file ``graph`` (default: beside the module); ``engine``
    is its old name. Raises EstimatorError.
    """

    def __init__(
        self,
        data: Optional[Mapping[str, Any]] = None,
        backend: str = "python",
        graph: str = "",
        engine: Optional[str] = None,
    ) -> None:
        if engine is not None:
            text = (
                "Estimator(engine=...) is now Estimator(backend=...); the old name goes with the next version"
            )
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            backend = engine
        own = data is None
        data = globals().get("ESTIMATOR") if data is None else data
        if data is None:
            raise EstimatorError("no estimator data: pass it, or use an exported module")
        if data.get("format") != "irene-estimator":
            raise EstimatorError('not an estimator: expected "format": "irene-estimator"')
        if data.get("version") != 1:
            raise EstimatorError("estimator version %.20r, known here is 1" % (data.get("version"),))
        self.data = data
        self._digest = ""
        if own and globals().get("DIGEST") != self.digest:
            raise EstimatorError("the constants of this module do not match its digest; export it again")
        try:
            self.hardware, self.boundary = str(data["hardware"]), str(data["boundary"])
            self.provenance, self.cost_model = str(data["provenance"]), str(data["cost_model"])
            self.attention, self.fingerprint = str(data["attention"]), dict(data.get("fingerprint") or {})
            self.tiers = {name: Tier(name, data["tiers"]) for name in TIERS if name in data["tiers"]}
            self.law = FORMS["law"](data["law"]) if data.get("law") else None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise EstimatorError("estimator data: %s: %s" % (type(error).__name__, error)) from None
        if not self.tiers:
            raise EstimatorError("estimator data: no tier")
        if backend not in ("python", "onnx"):
            raise InputError("backend %.20r: use python or onnx" % (backend,))
        self._graph: Optional[Graph] = None
        self._made_of = (None if own else data, backend, graph)
        if backend == "onnx":
            self._graph = Graph(graph or _beside(), data, self.digest)

    def __reduce__(self) -> Any:
        return type(self), self._made_of

    def __repr__(self) -> str:
        about = self.hardware, self.boundary, self.provenance, ", ".join(self.tiers), self.digest[:12]
        return "<Estimator of %s: %s, %s, tiers %s, digest %s>" % tuple(map(printable, about))

    @property
    def digest(self) -> str:
        """SHA-256 of the estimator; the same in the ONNX metadata, the module and the manifest."""
        if not self._digest:
            self._digest = estimator_digest(self.data)
        return self._digest

    load_tree = staticmethod(load_tree)

    def monitor(self, runs: int = 1, **options: Any) -> Monitor:
        """``with est.monitor(runs=10) as live:`` samples this PC in the background; see ``Monitor``."""
        return Monitor(self, runs, **options)

    def attach(self, model: Any, **options: Any) -> Attached:
        """``with est.attach(model) as live:`` also times every module; see ``Attached``."""
        return Attached(self, model, **options)

    def predict(
        self,
        tree: Union[ModelTree, SymbolicTree, Mapping[str, Any], str, bytes],
        live: Union[None, Monitor, Mapping[str, float]] = None,
        tier: Optional[str] = None,
        batch_size: Optional[int] = None,
        seq_len: Optional[int] = None,
        past_len: int = 0,
        phase: Optional[str] = None,
        requests: Optional[Sequence[Tuple[int, int]]] = None,
    ) -> Prediction:
        """Predict one run of ``tree``, as ``load_tree`` gives it, or as the JSON of a tree file: a dict or text.

        Of a symbolic tree at a size, as ``SymbolicTree.at`` takes it; or one step of a server over ``requests``, each
        (tokens, cached tokens): ``shares_j`` of the result says what each has of its joules (docs/trees.md).

        ``live``: what ``monitor`` or ``attach`` saw, or a mapping of resource features of one whole run
        (names and units of Table 1). ``tier``: the best that can be had unless named. Where features are
        missing the next lower tier is taken, with the flag ``fell-back`` and a note.
        Raises TreeError for trees that cannot be predicted, InputError for wrong arguments.
        """
        step = None if requests is None else _step(tree, requests, batch_size, seq_len, past_len, phase)
        one = _sized(tree, batch_size, seq_len, past_len, phase) if step is None else step.tree
        if self.law is not None:
            one = self.law.with_host(one)
        if not (live is None or isinstance(live, (Monitor, Mapping))):
            raise InputError("live is %s, not a monitor or a mapping" % type(live).__name__)
        head = one.header
        if head["cost_model"] != self.cost_model:
            raise TreeError(
                "the tree was traced under the cost model %.40s, this estimator was calibrated under %s; run"
                " `irene-build trace %s -b %s -s %s --cost-model %s%s -o TREE`"
                % (
                    head["cost_model"], self.cost_model, head["model"] or "MODEL", head["batch_size"] or "B",
                    head["seq_len"] or "S", self.cost_model, self._attention_option(),
                )
            )  # fmt: skip
        if tier is not None and tier not in TIERS:
            raise InputError("tier %.20r: use profile, live or static" % (tier,))
        folded = one.folded if isinstance(one, SizedTree) and live is None and self._graph is None else None
        nodes = one.nodes if folded is None else folded.nodes
        children = one.children if folded is None else folded.children
        features = self.features(one, live, folded)
        kinds = _kinds(nodes, children)
        notes, flags = [], DATASHEET if self.provenance == "datasheet" else 0
        wanted = tier or ("profile" if live is None or isinstance(live, Attached) else "live")
        for name in TIERS[TIERS.index(wanted) :]:
            reason = self._lacks(name, nodes, kinds, features)
            if not reason:
                break
            notes.append("tier %s: %s" % (name, reason))
        else:
            raise TreeError("no tier can predict this tree: " + "; ".join(notes))
        if tier is None and live is None:
            notes = []
        if notes:
            flags |= FELL_BACK
        if isinstance(live, Monitor):
            if notes:
                missing = sorted(live.missing.items())
                notes += ["%s is missing: %s" % item for item in missing if item[0] in str(notes)]
            notes += live.remarks
            if live.differs:
                flags |= OTHER_HARDWARE
                notes.append("this is not the PC that was calibrated: " + live.differs)
            elif live.differs is None:
                notes.append(
                    "whether this is the PC that was calibrated is not known: it left no fingerprint"
                )
        wider, remarks = unmeasured(self.data, head, nodes[0].features)
        if remarks:
            flags |= EXTRAPOLATES
            notes += remarks
        if head["batch_size"] is None or head["seq_len"] is None:
            notes.append("the tree says no batch_size or seq_len: what depends on them counts as 0")
        counted = set(COUNTED).intersection(self.data["features"])
        absent = [counted.difference(n.features) for n in nodes if not counted <= n.features.keys()]
        if absent:
            names = ", ".join(sorted(set().union(*absent)))
            notes.append("%d nodes have no %s: it counts as 0" % (len(absent), names))
        compiled = self.tiers[name]
        if self._graph is None:
            values = self._evaluate(compiled, nodes, children, kinds, features)
        else:
            for node, kind, seen in zip(one.nodes, kinds, features):
                self._refuse(compiled, node, kind, seen)
            values = self._graph.run(name, one, features)
        if folded is not None:
            at = [place.block for place in folded.places]
            values, features = [values[i] for i in at], [features[i] for i in at]
        values = all_widened(values, wider)
        prediction = self._prediction(one, compiled, values, flags, notes, features)
        if step is not None:
            prediction.requests, prediction.shares_j = step.requests, self._shares(step, one, prediction)
        return prediction

    def _shares(self, step: Step, tree: ModelTree, prediction: Prediction) -> List[float]:
        """What each request has of a step's joules: own FLOPs and bytes; by tokens what all share."""
        leaf_j: Dict[int, float] = {}
        assert isinstance(tree, SizedTree)
        for place, node in zip(tree.folded.places, prediction.nodes):
            if node.primitive is not None:
                leaf_j[place.block] = leaf_j.get(place.block, 0.0) + node.energy_j
        law = self.law

        def price(block: int) -> Tuple[float, float, float]:
            if law is None:
                return 1.0, BYTE_PER_FLOP, 0.0
            return law.prices(tree.folded.nodes[block], tree.header)  # type: ignore[no-any-return]

        return [prediction.energy_j * share for share in step.shares(leaf_j, price)]

    def request(
        self,
        tree: SymbolicTree,
        prompt: int,
        new: int,
        batch_size: int = 1,
        shared_prefix: int = 0,
        speculative: Optional[Tuple[int, float]] = None,
        draft: Optional[SymbolicTree] = None,
        beams: int = 1,
        exact: bool = False,
    ) -> RequestPrediction:
        """Joules of ``batch_size`` equal requests: the prefill of ``prompt`` tokens and the steps of ``new`` ones.

        The prefill gives the first new token, so there are ``new - 1`` steps. ``shared_prefix``: tokens of the prompt
        that all requests share and that are run once. ``speculative``: (guessed tokens a check, share of guesses that
        are accepted); ``draft``: the tree of the model that guesses, whose steps count where it is given. ``beams``:
        sequences a request, each like one of the batch. ``exact``: evaluates every step instead of summing parabolas.
        Raises TreeError and InputError.
        """
        return predicted_request(
            self, tree, prompt, new, batch_size, shared_prefix, speculative, draft, beams, exact
        )

    def tile_of_keys(self) -> int:
        """Keys in one tile of a product, as the static tier counts tiles; 1 where it does not."""
        tier = self.tiers.get("static")
        return 1 if tier is None else tier.tile_of_keys

    def step_values(
        self, folded: Folded, tree: ModelTree, known: Optional[Dict[Any, Any]] = None
    ) -> Tuple[Folded, StepValues]:
        """A step in the static tier, equal nodes once; ``tree`` gives the header alone. For ``generation``.

        ``known``: kept from step to step, so that nodes that do not change are evaluated once.
        """
        if self.law is not None:
            folded = self.law.with_host_leaf(folded)
        features = self.features(tree, None, folded)
        kinds = _kinds(folded.nodes, folded.children)
        tier = self.tiers.get("static")
        reason = self._lacks("static", folded.nodes, kinds, features)
        if tier is None or reason:
            raise TreeError("a request is predicted in tier static: %s" % reason)
        values = self._evaluate(tier, folded.nodes, folded.children, kinds, features, known)
        wider, remarks = unmeasured(self.data, tree.header, folded.nodes[0].features)
        values = all_widened(values, wider)
        time = None if self.law is None else features[0].get(TIME)
        flags = EXTRAPOLATES if remarks else 0
        for value in values:
            flags |= value[4]
        energy, low, high = ([value[i] for value in values] for i in range(3))
        return folded, StepValues(energy, low, high, time, flags)

    def _attention_option(self) -> str:
        return " --attention %s" % self.attention if self.attention in ("eager", "sdpa") else ""

    def features(
        self, tree: ModelTree, live: Any = None, folded: Optional[Folded] = None
    ) -> List[Dict[str, float]]:
        """Per node (of ``folded``, where given) its own features, the tree's sizes, and what ``live`` saw of it."""
        batch, length = tree.header["batch_size"], tree.header["seq_len"]
        common = {}
        if batch is not None and length is not None:
            common = {
                "batch_size": float(batch),
                "seq_len": float(length),
                "input_size": float(batch) * length,
            }
        nodes = tree.nodes if folded is None else folded.nodes
        out = [dict(node.features, **common) for node in nodes]
        if self.law is not None:
            for own, more in zip(out, self.law.features(tree, folded)):
                own.update(more)
        if isinstance(live, Attached):
            for index, seen in live.nodes_of(tree).items():
                out[index].update(seen)
        root: Mapping[str, Any] = {} if live is None else live if isinstance(live, Mapping) else live.features
        for name, value in root.items():
            if name not in RESOURCE_FEATURES:
                known = ", ".join(RESOURCE_FEATURES)
                raise InputError("%.40r is no resource feature; known are %s" % (name, known))
            if not (isinstance(value, (int, float)) and 0.0 <= value < math.inf):
                raise InputError("resource feature %s is %.40r, expected a number >= 0" % (name, value))
            out[0][name] = float(value)
        whole = out[0]
        latency, joules_ = whole.get("latency"), whole.get("gpu_energy", 0.0)
        if root and latency is not None and not joules_ <= MAX_WATTS * latency:
            text = "no GPU takes %.4g J (gpu_energy) in %.4g s (latency): are they those of one run?"
            raise InputError(text % (joules_, latency))
        if "latency" in root and not latency:
            raise InputError("resource feature latency is 0, expected the seconds of one run")
        return out

    def _prediction(
        self, tree: ModelTree, tier: Tier, values: List[_Value], flags: int, notes: List[str],
        features: List[Dict[str, float]],
    ) -> Prediction:  # fmt: skip
        nodes, common = [], flags & (FELL_BACK | EXTRAPOLATES)
        names: Dict[int, List[str]] = {}
        root = values[0][0]
        for index, (node, (energy, low, high, alpha, mask)) in enumerate(zip(tree.nodes, values)):
            if not high - low < math.inf:
                raise _not_finite(node)
            seen = "static" if mask & FELL_BACK else tier.name
            mask |= common
            flags |= mask
            if mask not in names:
                names[mask] = flag_names(mask)
            share = energy / root if root > 0.0 else math.inf
            nodes.append(NodePrediction(
                index, node.scope, node.type, node.call, node.level, node.parent, node.primitive, energy,
                (low, high), share if share < math.inf else None, alpha if index else None, seen,
                names[mask],
            ))  # fmt: skip
        about = {key: getattr(self, key) for key in ("hardware", "boundary", "provenance", "digest")}
        explain = _Explainer(self, tier.name, features)
        return Prediction(tree, about, tier.name, nodes, flags, notes, explain)
