"""Symbolic trees: one file whose features are expressions in batch, sequence and cached tokens (tree format 2).

``SymbolicTree.at(batch_size=3, seq_len=137)`` is the ``ModelTree`` that tracing this size would give. Subtrees
that are equal (the layers of a transformer) stand in the file once, as blocks, and are evaluated once.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .errors import TreeError
from .expressions import MAX_SIZE, Expression, Monomials, Number, Sizes, evaluated, expression, monomials
from .features import FEATURES, PRIMITIVES
from .outline import SUMMED, Block, Folded, Outline
from .tree import HEADER, MAX_DEPTH, MAX_NODES, TREE_FORMAT, ModelTree, Node, from_json, is_whole, load

SYMBOLIC_VERSION = 2
#: ``extend``: several tokens behind cached ones (a chunk of a prefill, a check of guessed tokens).
PHASES = ("forward", "prefill", "decode", "extend")
#: Keys of a symbolic tree beside its nodes.
SYMBOLIC_HEADER = (
    "model", "dtype", "attention", "cost_model", "weights", "traced_by", "positions", "cache", "logits", "encoder",
)  # fmt: skip


class Section(NamedTuple):
    """Sizes of one phase that share their expressions."""

    phase: str
    batch_size: Sizes
    seq_len: Sizes
    past_len: Sizes
    root: int
    kind: str  # the class of the model

    def holds(self, batch_size: int, seq_len: int, past_len: int) -> bool:
        sizes = ((self.batch_size, batch_size), (self.seq_len, seq_len), (self.past_len, past_len))
        return all(allowed.holds(value) for allowed, value in sizes)

    def __str__(self) -> str:
        past = " behind %s cached" % (self.past_len,) if self.phase in ("decode", "extend") else ""
        return "%s of batch %s, %s tokens%s" % (self.phase, self.batch_size, self.seq_len, past)


class SymbolicTree(Outline):
    """What ``load_tree`` gives for a file of tree format 2. ``header``: what holds for every size.

    Raises TreeError where ``data`` is no such file.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.header = {key: data.get(key) for key in SYMBOLIC_HEADER}
        for key in ("dtype", "attention", "cost_model"):
            if not isinstance(self.header[key], str):
                raise TreeError("%s is %.40r, expected a string" % (key, self.header[key]))
        raw = _list(data, "expressions")
        self.expressions: List[Expression] = [expression(r, "expression %d" % i) for i, r in enumerate(raw)]
        raw = _list(data, "blocks")
        super().__init__([_block(r, i, len(raw), len(self.expressions)) for i, r in enumerate(raw)])
        _bounded(self.blocks)
        self.sections = [_section(r, len(self.blocks)) for r in _list(data, "sections")]
        #: Sizes that were found to follow no expression: each with ``why``.
        self.refused: List[Dict[str, Any]] = list(data.get("refused") or [])

    @property
    def phases(self) -> List[str]:
        """The phases that the file holds, in its order."""
        return list(dict.fromkeys(section.phase for section in self.sections))

    def size(
        self,
        batch_size: Any,
        seq_len: Any = None,
        past_len: Any = 0,
        phase: Optional[str] = None,
    ) -> Tuple[str, int, int, int]:
        """Phase, batch, input tokens and cached tokens that are meant. Raises TreeError.

        Without ``phase``: ``decode`` (``extend`` with more than one token) behind cached tokens, else the first in
        the file. A decode step without ``past_len`` stands behind ``seq_len`` tokens, as the tracer has it.
        """
        if batch_size is None or (seq_len is None and not past_len and not self._fixed(phase)):
            raise TreeError("a symbolic tree has no size of its own: give batch_size and seq_len")
        if phase is None:
            phase = self.phases[0]
            if past_len:
                phase = "decode" if seq_len in (None, 1) else "extend"
        if seq_len is None:
            seq_len = self._fixed(phase) or 1
        if phase == "decode":
            seq_len, past_len = 1, past_len or seq_len
        for name, value, low in (
            ("batch_size", batch_size, 1),
            ("seq_len", seq_len, 1),
            ("past_len", past_len, 0),
        ):
            if not is_whole(value) or not low <= value <= MAX_SIZE:
                raise TreeError("%s is %.40r, expected a whole number from %d on" % (name, value, low))
        return phase, batch_size, seq_len, past_len

    def _fixed(self, phase: Optional[str]) -> Optional[int]:
        """Input tokens of a model that takes no other number (images)."""
        found = [s.seq_len for s in self.sections if phase in (None, s.phase) and s.phase != "decode"]
        only = {sizes.low for sizes in found if sizes.low == sizes.high}
        return only.pop() if len(only) == 1 and all(s.low == s.high for s in found) else None

    def section(self, phase: str, batch_size: int, seq_len: int, past_len: int) -> Section:
        """The section that holds at a size. Raises TreeError that says which sizes there are."""
        name: Any = self.header["model"]
        positions: Any = self.header["positions"]
        if phase not in PHASES:
            raise TreeError("phase %.20r: expected one of %s" % (phase, ", ".join(PHASES)))
        if phase not in self.phases:
            raise TreeError(
                "this tree of %s holds %s, not %s: `irene-build trace %s --symbolic --phase %s` adds it"
                % (name, ", ".join(self.phases), phase, name, phase)
            )
        if is_whole(positions) and seq_len + past_len > positions:
            behind = " behind %d cached ones" % past_len if past_len else ""
            raise TreeError(
                "%s has %d positions: %d tokens%s do not fit" % (name, positions, seq_len, behind)
            )
        for section in self.sections:
            if section.phase == phase and section.holds(batch_size, seq_len, past_len):
                return section
        for entry in self.refused:
            sizes = (
                (entry, "batch_size", batch_size),
                (entry, "seq_len", seq_len),
                (entry, "past_len", past_len),
            )
            if entry.get("phase") == phase and all(_sizes(e, key).holds(value) for e, key, value in sizes):
                raise TreeError("%s %d x %d cannot be had from a symbolic tree: %s; trace this size"
                                % (name, batch_size, seq_len, entry.get("why")))  # fmt: skip
        known = "; ".join(str(section) for section in self.sections if section.phase == phase)
        raise TreeError(
            "batch %d, %d tokens, %d cached are outside of this tree of %s, which holds for %s"
            % (batch_size, seq_len, past_len, name, known)
        )

    def folded(self, section: Section, at: Monomials) -> Folded:
        """The tree at a size, equal subtrees once; ``batch_size`` and ``seq_len`` are not among the features yet."""
        blocks, wanted = self.used(section.root)
        values: Dict[int, Number] = dict(zip(wanted, evaluated([self.expressions[i] for i in wanted], at)))
        raw = {
            index: {name: values[i] for name, i in self.blocks[index].features.items()} for index in blocks
        }
        return self.assembled(section.root, raw)

    def headed(
        self, section: Section, batch_size: Number, seq_len: Number, past_len: Number
    ) -> Dict[str, Any]:
        """The header of a tree at a size."""
        out = {key: self.header[key] for key in HEADER if key in self.header}
        by = dict(out["traced_by"] or {}, symbolic=True)
        by["class"] = section.kind
        by.update((key, self.header[key]) for key in ("cache", "logits") if self.header[key])
        out.update(
            batch_size=batch_size, seq_len=seq_len, past_len=past_len, phase=section.phase, traced_by=by
        )
        return out

    def at(
        self, batch_size: Any = None, seq_len: Any = None, past_len: Any = 0, phase: Optional[str] = None
    ) -> "SizedTree":
        """The tree of one size, feature for feature what tracing it gives. Raises TreeError."""
        phase, batch, length, past = self.size(batch_size, seq_len, past_len, phase)
        section = self.section(phase, batch, length, past)
        folded = self.folded(section, monomials(batch, length, past))
        for node in folded.nodes:
            node.features.update(batch_size=float(batch), seq_len=float(length))
        return SizedTree(folded, self.headed(section, batch, length, past))


class SizedTree(ModelTree):
    """A symbolic tree at one size: an ordinary ModelTree that remembers which of its nodes are equal."""

    def __init__(self, folded: Folded, header: Mapping[str, Any]) -> None:
        nodes = []
        for block, scope, parent, call in folded.places:
            n = folded.nodes[block]
            nodes.append(Node(scope, n.type, n.level, parent, n.primitive, call, dict(n.features), n.shapes))
        super().__init__(nodes, header)
        self.folded = folded

    def with_leaf(self, leaf: Node) -> "SizedTree":
        return SizedTree(self.folded.with_leaf(leaf), self.header)


def _list(data: Mapping[str, Any], key: str) -> List[Any]:
    raw = data.get(key)
    if not isinstance(raw, list) or (not raw and key != "expressions") or len(raw) > MAX_NODES:
        raise TreeError("%s must be a list that is not empty" % key)
    return raw


def _block(raw: Any, index: int, blocks: int, expressions: int) -> Block:
    where = "block %d" % index
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        raise TreeError("%s: expected an object with a type" % where)
    primitive, features, links = raw.get("primitive"), raw.get("features"), raw.get("children", [])
    shapes = raw.get("shapes")
    if primitive is not None and primitive not in PRIMITIVES:
        raise TreeError("%s: unknown primitive %.40r" % (where, primitive))
    if not isinstance(features, dict) or not isinstance(links, list):
        raise TreeError("%s: features must be an object, children a list" % where)
    if (primitive is not None and links) or not (shapes is None or isinstance(shapes, dict)):
        raise TreeError("%s: a leaf has children, or shapes is no object" % where)
    for name, at in features.items():
        if name not in FEATURES or not is_whole(at) or not 0 <= at < expressions:
            raise TreeError(
                "%s: feature %.40s is %.40r, expected the index of an expression" % (where, name, at)
            )
    absent = set(SUMMED).difference(features) if primitive is not None else ()
    if absent:
        raise TreeError("%s: a leaf lacks %s" % (where, ", ".join(sorted(absent))))
    children: List[Tuple[str, int]] = []
    for link in links:
        if not isinstance(link, list) or len(link) not in (2, 4) or not isinstance(link[0], str):
            raise TreeError("%s: a child is [scope, block] or [scope, block, first, count]" % where)
        if not all(is_whole(n) and n >= 0 for n in link[1:]) or not index < link[1] < blocks:
            raise TreeError("%s: child %.60r is no later block" % (where, link))
        if len(link) == 2:
            children.append((link[0], link[1]))
        elif link[3] > MAX_NODES or link[0].count("{}") != 1:
            raise TreeError("%s: child %.60r repeats too often, or lacks {}" % (where, link))
        else:
            children += [(link[0].replace("{}", str(link[2] + i)), link[1]) for i in range(link[3])]
        if len(children) > MAX_NODES:
            raise TreeError("%s has more than %d children" % (where, MAX_NODES))
    return Block(raw["type"], primitive, features, shapes, children)


def _bounded(blocks: Sequence[Block]) -> None:
    """Few lines can name very many nodes: refuses more than a tree may have."""
    sizes, depths = [1] * len(blocks), [0] * len(blocks)
    for index in range(len(blocks) - 1, -1, -1):
        for _, child in blocks[index].children:
            sizes[index] += sizes[child]
            depths[index] = max(depths[index], depths[child] + 1)
        if sizes[index] > MAX_NODES or depths[index] > MAX_DEPTH:
            raise TreeError("block %d: more than %d nodes or %d levels" % (index, MAX_NODES, MAX_DEPTH))


def _sizes(raw: Mapping[str, Any], key: str) -> Sizes:
    pair = raw.get(key, [0, 0])
    good = isinstance(pair, list) and len(pair) == 2 and is_whole(pair[0])
    if not good or not (pair[1] is None or is_whole(pair[1])):
        raise TreeError("%s is %.40r, expected [low, high or null]" % (key, pair))
    return Sizes(pair[0], pair[1])


def _section(raw: Any, blocks: int) -> Section:
    if not isinstance(raw, dict) or raw.get("phase") not in PHASES:
        raise TreeError("a section must be an object with a phase of %s" % ", ".join(PHASES))
    root: Any = raw.get("root")
    if not is_whole(root) or not 0 <= root < blocks:
        raise TreeError("section %s: its root %.40r is no block" % (raw["phase"], root))
    sizes = [_sizes(raw, key) for key in ("batch_size", "seq_len", "past_len")]
    return Section(raw["phase"], sizes[0], sizes[1], sizes[2], root, str(raw.get("class") or ""))


def any_tree(data: Any) -> Union[ModelTree, SymbolicTree]:
    """A decoded tree file of either version. Raises TreeError."""
    if (
        isinstance(data, dict)
        and data.get("format") == TREE_FORMAT
        and data.get("version") == SYMBOLIC_VERSION
    ):
        return SymbolicTree(data)
    return from_json(data)


def load_any(path: str) -> Union[ModelTree, SymbolicTree]:
    """Read a tree file of one size or of every size. Raises TreeError."""
    return load(path, any_tree)  # type: ignore[no-any-return]
