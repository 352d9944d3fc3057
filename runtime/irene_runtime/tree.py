"""The model tree (IrEne, section 3.2) and its file, ``{"format": "irene-tree", "version": 1, ...}``.

Nodes are a flat list in pre-order: a node stands after its parent and before its next sibling.
``load`` and ``from_json`` check everything that later code relies on and name what is wrong. Time and
memory are bounded by the file's size, which is bounded itself. Unknown fields are ignored and not kept: a
later version may add some. Two nodes may bear one name; a key that stands twice in one object is refused.
"""

import json
import math
import os
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from .errors import OutputError, TreeError
from .features import FEATURES, PRIMITIVES

TREE_FORMAT = "irene-tree"
TREE_VERSION = 1
LEVELS = ("ml", "module", "model")
MAX_FILE_BYTES = 16 * 2**20
#: Objects and lists in a file: each takes some 64 bytes of memory, a node has up to ten.
MAX_OPENERS = 1_000_000
MAX_NODES = 1_000_000
MAX_DEPTH = 1_000
#: Digits of a whole number: float64 ends at 309, and longer ones take quadratic time.
MAX_DIGITS = 400
#: Keys of a tree file beside ``format``, ``version`` and ``nodes``, with their defaults.
HEADER = {
    "model": None, "batch_size": None, "seq_len": None, "phase": "forward", "past_len": 0,
    "dtype": "float32", "attention": "eager", "cost_model": "analytic", "weights": None,
    "clock_mhz": None, "power_limit_w": None, "traced_by": None,
}  # fmt: skip
#: Keys of the header that a file has only where something was asked for.
CONDITIONS = ("clock_mhz", "power_limit_w")


class Node:
    """One call of a module, or one ML primitive.

    ``scope`` is the dotted module path (empty at the root), ``type`` the class or function name,
    ``level`` one of ``ml``, ``module``, ``model``, ``parent`` an index into the tree's nodes (-1 at
    the root), ``primitive`` the leaf's primitive (None above the leaves), ``call`` counts the calls
    of one module in one pass. ``features`` maps names of ``irene_runtime.features`` to numbers in
    their units. ``energy_j`` and ``provenance`` are there on measured trees only.
    """

    __slots__ = (
        "scope", "type", "level", "parent", "primitive", "call", "features", "shapes",
        "energy_j", "provenance",
    )  # fmt: skip

    def __init__(
        self,
        scope: str,
        type: str,
        level: str,
        parent: int,
        primitive: Optional[str] = None,
        call: int = 0,
        features: Optional[Dict[str, float]] = None,
        shapes: Optional[Dict[str, Any]] = None,
        energy_j: Optional[float] = None,
        provenance: Optional[str] = None,
    ) -> None:
        self.scope = scope
        self.type = type
        self.level = level
        self.parent = parent
        self.primitive = primitive
        self.call = call
        self.features = {} if features is None else features
        self.shapes = shapes
        self.energy_j = energy_j
        self.provenance = provenance

    @property
    def name(self) -> str:
        """``scope:Type``, with ``#call`` from the second call on; unique enough to read, not a key."""
        text = "%s:%s" % (self.scope, self.type) if self.scope else self.type
        return "%s#%d" % (text, self.call) if self.call else text

    def to_json(self) -> Dict[str, Any]:  # build tool only
        out: Dict[str, Any] = {
            "scope": self.scope, "type": self.type, "level": self.level, "parent": self.parent,
            "primitive": self.primitive, "call": self.call, "features": self.features,
        }  # fmt: skip
        for key in ("shapes", "energy_j", "provenance"):
            value = getattr(self, key)
            if value is not None:
                out[key] = value
        return out


class ModelTree:
    """A model at one input size: ``nodes`` in pre-order, ``header`` as in ``HEADER``."""

    def __init__(self, nodes: List[Node], header: Optional[Mapping[str, Any]] = None) -> None:
        self.nodes = nodes
        self.header: Dict[str, Any] = dict(HEADER)
        self.header.update(header or {})

    @property
    def children(self) -> List[List[int]]:
        """Per node the indices of its children, in order."""
        out: List[List[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            if node.parent >= 0:
                out[node.parent].append(index)
        return out

    @property
    def depths(self) -> List[int]:
        """Per node its distance from the root."""
        out: List[int] = []
        for node in self.nodes:
            out.append(0 if node.parent < 0 else out[node.parent] + 1)
        return out

    def with_leaf(self, leaf: Node) -> "ModelTree":
        """A tree with one more leaf, the last under the root."""
        return ModelTree(self.nodes + [leaf], self.header)

    def to_json(self) -> Dict[str, Any]:  # build tool only
        out: Dict[str, Any] = {"format": TREE_FORMAT, "version": TREE_VERSION}
        out.update((k, v) for k, v in self.header.items() if v is not None or k not in CONDITIONS)
        out["nodes"] = [node.to_json() for node in self.nodes]
        return out

    def dumps(self) -> str:  # build tool only
        """The file's text: one node a line, keys in a fixed order, floats by ``repr``."""
        head = json.dumps({k: v for k, v in self.to_json().items() if k != "nodes"}, allow_nan=False)
        nodes = ",\n".join(json.dumps(n.to_json(), allow_nan=False) for n in self.nodes)
        return '%s, "nodes": [\n%s\n]}\n' % (head[:-1], nodes)

    def save(self, path: str) -> None:  # build tool only
        """Write the tree file; what was there stays where that fails. Raises OutputError."""
        part = path
        try:
            if os.path.isfile(path) or not os.path.exists(path):
                part = "%s.%d.part" % (path, os.getpid())
            with open(part, "w", encoding="utf-8") as file:
                file.write(self.dumps())
            if part != path:
                os.replace(part, path)
        except OSError as error:
            raise OutputError("cannot write %s: %s" % (path, error.strerror or error)) from None
        finally:
            if part != path and os.path.exists(part):
                os.remove(part)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TreeError("%s is %s, expected a number" % (where, type(value).__name__))
    try:
        number = float(value)
    except OverflowError:
        raise TreeError("%s does not fit a float64" % where) from None
    if not math.isfinite(number):
        raise TreeError("%s is %r, expected a finite number" % (where, number))
    return number


def is_whole(value: Any) -> bool:
    """A count, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def _node(raw: Any, index: int, depths: List[int]) -> Node:
    where = "node %d" % index

    def check(good: bool, text: str, *values: Any) -> None:
        if not good:
            raise TreeError("%s: %s" % (where, text % values))

    check(isinstance(raw, dict), "is %s, expected an object", type(raw).__name__)
    for key in ("scope", "type", "level", "parent", "features"):
        check(key in raw, "lacks %r", key)
    scope, kind, level, parent = raw["scope"], raw["type"], raw["level"], raw["parent"]
    check(isinstance(scope, str) and isinstance(kind, str), "scope and type must be strings")
    where = "node %d (%s:%s)" % (index, scope[:80], kind[:80])
    check(level in LEVELS, "level is %.40r, expected one of %s", level, LEVELS)
    check(is_whole(parent), "parent is %.40r, expected an index", parent)
    check(index > 0 or parent == -1, "the first node is the root, its parent must be -1")
    check(
        index == 0 or 0 <= parent < index,
        "parent %d is not an earlier node; nodes stand in pre-order, without cycles, under one root", parent,
    )  # fmt: skip
    depths.append(depths[parent] + 1 if index else 0)
    check(depths[index] <= MAX_DEPTH, "deeper than %d levels", MAX_DEPTH)
    primitive, call, features = raw.get("primitive"), raw.get("call", 0), raw["features"]
    if level == "ml":
        check(primitive in PRIMITIVES, "unknown primitive %.40r; known are %s", primitive, PRIMITIVES)
    else:
        check(primitive is None, "only leaves (level ml) have a primitive")
    check(is_whole(call) and call >= 0, "call is %.40r, expected a count", call)
    check(isinstance(features, dict), "features must be an object")
    clean: Dict[str, float] = {}
    for key, value in features.items():
        clean[key] = _number(value, "%s: feature %.40s" % (where, key))
        check(clean[key] >= 0.0 or key not in FEATURES, "feature %s is negative (%r)", key, value)
    shapes, energy, provenance = raw.get("shapes"), raw.get("energy_j"), raw.get("provenance")
    check(shapes is None or isinstance(shapes, dict), "shapes must be an object")
    energy = None if energy is None else _number(energy, where + ": energy_j")
    check(provenance is None or isinstance(provenance, str), "provenance must be a string")
    return Node(scope, kind, level, parent, primitive, call, clean, shapes, energy, provenance)


def from_json(data: Any) -> ModelTree:
    """Check ``data`` (a decoded tree file) and build the tree.

    Raises TreeError that names the node and the field.
    """
    if not isinstance(data, Mapping) or data.get("format") != TREE_FORMAT:
        raise TreeError('not a model tree: expected an object with "format": "%s"' % TREE_FORMAT)
    version: Any = data.get("version")
    raw: Any = data.get("nodes")
    if not is_whole(version):
        raise TreeError("version is %.40r, expected a whole number" % (version,))
    if version == 2:
        raise TreeError("a symbolic tree (version 2) where a tree of one size is wanted: take it `at` a size")
    if version != TREE_VERSION:
        known = "newer than 2, the newest known here: update irene-build" if version > 1 else "not known"
        raise TreeError("tree version %d is %s" % (version, known))
    if not isinstance(raw, list) or not raw:
        raise TreeError("nodes must be a list that is not empty")
    if len(raw) > MAX_NODES:
        raise TreeError("%d nodes, at most %d are read" % (len(raw), MAX_NODES))
    depths: List[int] = []
    nodes = [_node(item, index, depths) for index, item in enumerate(raw)]
    path: List[int] = []
    for index, node in enumerate(nodes):
        wrong = ""
        del path[depths[index] :]
        if index and path[-1] != node.parent:
            wrong = "nodes are not in pre-order (parent %d)" % node.parent
        elif index and nodes[node.parent].level == "ml":
            wrong = "its parent %d is a leaf: a leaf has children" % node.parent
        elif index and node.level == "model":
            wrong = "a model below the root"
        if wrong:
            raise TreeError("node %d (%s): %s" % (index, node.name[:80], wrong))
        path.append(index)
    header = {key: data.get(key, default) for key, default in HEADER.items()}
    for key in ("batch_size", "seq_len", "past_len"):
        value: Any = header[key]
        if value is not None or key == "past_len":
            whole = is_whole(value) or (isinstance(value, float) and value.is_integer())
            if not whole or not 0 <= value < 2**53:
                raise TreeError("%s is %.40r, expected a count" % (key, value))
            header[key] = int(value)
    for key in CONDITIONS:
        if header[key] is not None and not _number(header[key], key) > 0.0:
            raise TreeError("%s is %r, expected a positive number" % (key, header[key]))
    for key in ("model", "phase", "dtype", "attention", "cost_model"):
        if not isinstance(header[key], str) and not (key == "model" and header[key] is None):
            raise TreeError("%s is %.40r, expected a string" % (key, header[key]))
    return ModelTree(nodes, header)


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise TreeError("not a model tree: a number of %d digits" % len(text))
    return int(text)


def _constant(text: str) -> float:
    raise TreeError("not a model tree: %s is not JSON" % text)


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    out: Dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise TreeError("not a model tree: the key %.40r stands twice in one object" % key)
        out[key] = value
    return out


def loads(text: str, build: Callable[[Any], Any] = from_json) -> Any:
    """Parse and check the text of a tree file: a ModelTree, or what ``build`` makes of the decoded file."""
    if len(text) > MAX_FILE_BYTES or text.count("{") + text.count("[") > MAX_OPENERS:
        raise TreeError("too large for a model tree (%d characters)" % len(text))
    try:
        data = json.loads(text, parse_int=_whole, parse_constant=_constant, object_pairs_hook=_object)
    except RecursionError:
        raise TreeError("not a model tree: JSON nested too deeply") from None
    except ValueError as error:
        raise TreeError("not a model tree: %s" % error) from None
    return build(data)


def load(path: str, build: Callable[[Any], Any] = from_json) -> Any:
    """Read a tree file, as ``loads`` does. Raises TreeError where it is missing, too large or wrong."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TreeError("cannot read %s: %s" % (path, error.strerror or error)) from None
    if len(raw) > MAX_FILE_BYTES:
        raise TreeError("%s is larger than %d MiB, too large for a model tree" % (path, MAX_FILE_BYTES >> 20))
    try:
        return loads(raw.decode("utf-8"), build)
    except UnicodeDecodeError as error:
        raise TreeError("%s is not UTF-8 text (byte %d)" % (path, error.start)) from None
    except TreeError as error:
        raise TreeError("%s: %s" % (path, error)) from None


def scopes(nodes: Iterable[Node]) -> List[str]:
    """The scopes of nodes, as a list; handy in tests and joins."""
    return [node.scope for node in nodes]
