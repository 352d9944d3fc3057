"""The estimator: from a tree to its joules, in one pass from the leaves to the root."""

import json
import math
import os
import warnings
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .attach import Attached
from .equations import (
    DATASHEET,
    EXTRAPOLATES,
    FELL_BACK,
    FORMS,
    NOTABLE,
    OTHER_HARDWARE,
    SIMULATED,
    UNCALIBRATED,
    WIDEST,
    Interval,
    Tier,
    distance,
    estimator_digest,
    flag_names,
    pooled,
)
from .errors import EstimatorError, InputError, TreeError
from .explain import explanation
from .features import COUNTED, MAX_WATTS, RESOURCE_FEATURES
from .generation import StepValues, predicted_request
from .law import TIME
from .monitor import Monitor
from .onnx_backend import Graph
from .outline import Folded
from .prediction import NodePrediction, Prediction, printable
from .ragged import BYTE_PER_FLOP, Step
from .request_prediction import RequestPrediction
from .symbolic import SizedTree, SymbolicTree, any_tree, load_any
from .tree import ModelTree, Node, loads
from .unmeasured import all_widened, unmeasured

#: Best first; a prediction falls to the next one where features are missing.
TIERS = ("profile", "live", "static")


class _Kind(NamedTuple):
    level: str
    primitive: Optional[str]
    is_leaf: bool
    is_root: bool


class _Local(NamedTuple):
    """What follows from a node's own features alone; equal nodes share it."""

    leaf_j: float  # 0.0 above the leaves
    factor: float  # the correction of an inner node
    alpha: float
    reading_j: Optional[float]  # what DIRECT makes of the node's own resource features
    pool: float
    interval: Interval
    half: float  # half the interval, in natural-log units
    doubt: float  # joules that a leaf which nobody measured may be wrong by
    away: float
    beyond: float  # how far the reading lies outside of what was calibrated
    flags: int


#: Energy, low and high end in joules, alpha, flags.
_Value = Tuple[float, float, float, float, int]


def _kinds(nodes: List[Node], children: List[List[int]]) -> List[_Kind]:
    return [_Kind(n.level, n.primitive, not children[i], i == 0) for i, n in enumerate(nodes)]


def _not_finite(node: Node) -> TreeError:
    return TreeError("node %s: its features give no finite energy" % node.name[:80])


def _beside() -> str:
    """The graph that an export writes beside the module. Raises InputError where the module is no file."""
    module = globals().get("__file__")
    if module is None:
        raise InputError("this module was not loaded from a file: name the graph, Estimator(graph=PATH)")
    return str(os.path.splitext(os.path.abspath(module))[0]) + ".onnx"


def _tree(given: Any) -> Union[ModelTree, SymbolicTree]:
    """A tree that was given as such, as a dict, or as JSON text. Raises InputError."""
    if isinstance(given, (ModelTree, SymbolicTree)):
        return given
    if isinstance(given, Mapping):
        return any_tree(given)
    try:
        text = bytes(given).decode("utf-8") if isinstance(given, (bytes, bytearray)) else given
    except UnicodeDecodeError as error:
        raise TreeError("the tree is not UTF-8 text (byte %d)" % error.start) from None
    if isinstance(text, str) and text.lstrip()[:1] == "{":
        return loads(text, any_tree)  # type: ignore[no-any-return]
    what = "%.80r, a text that is no JSON" % text if isinstance(text, str) else type(given).__name__
    raise InputError("predict wants a tree, as load_tree(path) gives it, a dict or JSON text, not %s" % what)


def _sized(given: Any, *size: Any) -> ModelTree:
    """The tree of one size: of a symbolic one the size that is asked for. Raises InputError."""
    tree = _tree(given)
    if isinstance(tree, SymbolicTree):
        return tree.at(*size)
    if size != (None, None, 0, None):
        raise InputError(
            "batch_size, seq_len, past_len and phase are for symbolic trees: this one has its own"
        )
    return tree


def _step(given: Any, requests: Any, *size: Any) -> Step:
    """A ragged step of a symbolic tree. Raises InputError."""
    tree = _tree(given)
    if size != (None, None, 0, None):
        raise InputError(
            "requests have their own sizes: give no batch_size, seq_len, past_len or phase beside them"
        )
    if not isinstance(tree, SymbolicTree):
        raise InputError("requests are for symbolic trees: this one has a size of its own")
    return Step(tree, requests)


def load_tree(path: str) -> Any:
    """Read and check a tree file: a ModelTree of one size, or a SymbolicTree of every size. Raises TreeError."""
    return load_any(path)


class _Explainer:
    """Writes explanations of one prediction; unlike a function in a function, it can be pickled."""

    def __init__(self, estimator: "Estimator", tier: str, features: List[Dict[str, float]]) -> None:
        self.estimator, self.tier, self.features = estimator, tier, features

    def __call__(self, prediction: Prediction, index: int) -> str:
        return explanation(self.estimator.tiers[self.tier], prediction, index, self.features)


class Estimator:
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

    @property
    def simulated(self) -> bool:
        return self.provenance == "simulated"

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

    def _lacks(
        self, name: str, nodes: List[Node], kinds: List[_Kind], features: List[Dict[str, float]]
    ) -> str:
        """Why a tier cannot be had for these features; empty where it can."""
        tier = self.tiers.get(name)
        if tier is None:
            return "this estimator has no such tier"
        needs = {kind: tier.needs(*kind) for kind in set(kinds)}
        for node, kind, own in zip(nodes, kinds, features):
            if not needs[kind] <= own.keys():
                absent = sorted(needs[kind].difference(own))
                return "needs %s of node %s" % (", ".join(absent), node.name[:80])
        if not tier.direct or name == "static":
            return ""
        whole = name == "live" or len(nodes) == 1
        chosen = slice(0, 1) if whole else slice(1, None)
        fewest = frozenset(RESOURCE_FEATURES)
        for node, own in zip(nodes[chosen], features[chosen]):
            if node.level in tier.direct:
                fewest = min(fewest, tier.direct[node.level].linear.needs.difference(own), key=len)
        of = "the whole model" if whole else "single nodes"
        return "needs %s of %s" % (", ".join(sorted(fewest)), of) if fewest else ""

    @staticmethod
    def _refuse(tier: Tier, node: Node, kind: _Kind, own: Dict[str, float]) -> None:
        """Raises TreeError where a feature is not there, or 0, that never was 0 in the calibration."""
        group = node.primitive or "" if kind.is_leaf else node.level
        for name, ends in tier.ranges.get(group, {}).items():
            if ends[0] > 0.0 and name not in RESOURCE_FEATURES and not own.get(name, 0.0) > 0.0:
                raise TreeError(
                    "node %s lacks the feature %s, which this estimator needs for %s"
                    % (node.name[:80], name, group)
                )

    def _local(self, tier: Tier, node: Node, kind: _Kind, own: Dict[str, float]) -> _Local:
        """Everything about a node that its relatives do not change."""
        self._refuse(tier, node, kind, own)
        ranges, level = tier.ranges.get(node.level, {}), node.level
        flags = SIMULATED if self.simulated else 0
        leaf_j, factor, far = 0.0, 1.0, False
        reading, pool, beyond, interval = None, 1.0, 0.0, tier.interval
        try:
            if kind.is_leaf:
                leaf, whose, calibrated = tier.leaf_of(node.primitive)
                leaf_j = leaf(own)
                ranges = tier.ranges.get(whose, {})
                if tier.bend is not None:
                    leaf_j = tier.bend(whose, leaf_j, tier.fallback(own), distance(own, ranges))
                flags |= 0 if calibrated else UNCALIBRATED
            elif level in tier.correction:
                factor = tier.correction[level](own)
            alpha = 1.0 if tier.aggregation is None or kind.is_root else tier.aggregation(own)
            away = distance(own, ranges)
            if level in tier.direct:
                direct = tier.direct[level]
                if direct.linear.needs <= own.keys():
                    reading, pool, beyond = direct.linear(own), direct.pool, direct.beyond(own)
                else:
                    flags |= FELL_BACK
                    interval = self.tiers.get("static", tier).interval
            if level == "module":
                far = interval.is_far(own)
        except (OverflowError, ValueError):
            raise _not_finite(node) from None
        primitive = "fallback" if flags & UNCALIBRATED else node.primitive
        half, near = interval.half(level, primitive, away, far, beyond)
        unknown = half if flags & UNCALIBRATED else half - near
        doubt = leaf_j * (math.exp(unknown) - 1.0) if kind.is_leaf else 0.0
        flags |= EXTRAPOLATES if away + beyond > 0.0 else 0
        return _Local(leaf_j, factor, alpha, reading, pool, interval, half, doubt, away, beyond, flags)

    def _evaluate(
        self, tier: Tier, nodes: List[Node], children: List[List[int]], kinds: List[_Kind],
        features: List[Dict[str, float]], known: Optional[Dict[Any, _Local]] = None,
    ) -> List[_Value]:  # fmt: skip
        """Of nodes, parents before children; ``children`` may name a node more than once."""
        names = tier.names
        known = {} if known is None else known
        locals_: List[_Local] = []
        for node, kind, own in zip(nodes, kinds, features):
            key = (kind, tuple(map(own.get, names)))
            local = known.get(key)
            if local is None:
                local = known[key] = self._local(tier, node, kind, own)
            locals_.append(local)
        count = len(nodes)
        own_j, energy, doubt = [0.0] * count, [0.0] * count, [0.0] * count
        for index in range(count - 1, -1, -1):
            local = locals_[index]
            total, unsure = local.leaf_j, local.doubt
            for child in children[index]:
                alpha = locals_[child].alpha
                total = total + alpha * energy[child]
                unsure = unsure + alpha * doubt[child]
            own_j[index] = total = total * local.factor
            doubt[index] = unsure * local.factor
            if local.reading_j is not None:
                total = pooled(total, local.reading_j, local.pool)
            energy[index] = total
        root = locals_[0]
        if kinds[0].level == "model":
            far = total = 0.0
            for child in children[0]:
                share = locals_[child].alpha * energy[child]
                total = total + share
                if nodes[child].level == "module" and root.interval.is_far(features[child]):
                    far = far + share
            if far > 0.5 * total:
                half, _ = root.interval.half("model", None, root.away, True, root.beyond)
                locals_[0] = root._replace(half=half)
        if tier.gamma and root.reading_j is not None and own_j[0] > 0.0 and energy[0] > 0.0:
            scale = energy[0] / own_j[0]
            factors = {level: scale**gamma for level, gamma in tier.gamma.items()}
            for index in range(1, count):
                if nodes[index].level in factors:
                    energy[index] = own_j[index] * factors[nodes[index].level]
        inherits = tier.interval.inherits and not set(tier.direct).difference(["model"])
        out = []
        for index, (value, local) in enumerate(zip(energy, locals_)):
            half, flags = local.half, local.flags
            if inherits and children[index] and local.reading_j is None and own_j[index] > 0.0:
                unsure = max(doubt[index] / own_j[index], 0.0)
                half = min(half + math.log1p(unsure), WIDEST)
                flags |= EXTRAPOLATES if unsure > NOTABLE else 0
            low, high = sorted((value * math.exp(-half), value * math.exp(half)))
            out.append((value, low, high, local.alpha, flags))
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
