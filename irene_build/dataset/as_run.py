"""What the published runs executed beside their published rows, where today's transformers executes something else.

The authors ran transformers 4.2.2 (paper, appendix A); a tree is traced with the version that is installed. The
rows are the same in both, but not all that a module does between them: since then attention masks of padding that is
not there are left out, GPT-2 keeps its keys and values without copying them, and DistilBERT scales scores instead of
queries.
Sources: ``models/{bert,roberta,distilbert,gpt2}/modeling_*.py`` of transformers 4.2.2, called with input_ids alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from irene_build.errors import DatasetError
from irene_runtime.tree import ModelTree, Node

RAN_ON = "transformers 4.2.2"
_OWN = ("Elementwise", "Copy", "Reduction")
_FLOAT, _INT64, _BOOL = 4, 8, 1
_MIB = 2.0**20


@dataclass(frozen=True)
class Kernel:
    """One kernel of a module's own: elements written, bytes read and written, and whether it calculates."""

    elements: int
    read: int
    write: int
    calculates: bool = True


@dataclass(frozen=True)
class Sizes:
    """Elements of the ids (batch x length), of a square mask, of the hidden states, and of the attention's scores."""

    ids: int
    square: int
    states: int
    scores: int


def _plain(elements: int, more: int = 0) -> Kernel:
    """One float in, one out, and ``more`` bytes of something broadcast."""
    return Kernel(elements, _FLOAT * elements + more, _FLOAT * elements)


def _moved(elements: int, read: int = _FLOAT, write: int = _FLOAT) -> Kernel:
    return Kernel(elements, read * elements, write * elements, calculates=False)


def _heads(n: Sizes) -> list[Kernel]:
    """Copies of queries, keys and values that make their products contiguous, and of the heads brought together."""
    return [_moved(n.states)] * 4


def _openai_attention(n: Sizes) -> list[Kernel]:
    """Scale, times the mask, plus (1 - mask) * -10000."""
    mask = _FLOAT * n.square
    return [
        _plain(n.scores), _plain(n.scores, mask), _plain(n.square), _plain(n.square), _plain(n.scores, mask),
        *_heads(n),
    ]  # fmt: skip


def _bert_attention(n: Sizes) -> list[Kernel]:
    """Scale, add the mask, bring the heads together."""
    return [_plain(n.scores), _plain(n.scores, _FLOAT * n.ids), *_heads(n)]


def _bert_model(n: Sizes) -> list[Kernel]:
    """A mask of ones becomes one of zeros: fill, (1 - mask) * -10000."""
    return [_moved(n.ids, read=0), _plain(n.ids), _plain(n.ids)]


def _distilbert_attention(n: Sizes) -> list[Kernel]:
    """Scale the queries, compare the mask with 0, fill the scores where it is, bring the heads together."""
    return [
        _plain(n.states), Kernel(n.ids, _FLOAT * n.ids, _BOOL * n.ids), _plain(n.scores, _BOOL * n.ids),
        *_heads(n),
    ]  # fmt: skip


def _gpt2_attention(n: Sizes) -> list[Kernel]:
    """Scale, the causal mask as booleans, choose by it; stack keys and values (use_cache), bring heads together."""
    return [
        _plain(n.scores), _plain(n.scores, _BOOL * n.square),
        _moved(n.square, _BOOL, _BOOL), _moved(n.states), _moved(n.states), *_heads(n),
    ]  # fmt: skip


def _gpt2_model(n: Sizes) -> list[Kernel]:
    """Number the positions, add their embeddings."""
    length = round(n.square**0.5)
    positions = n.states * length // n.ids
    return [_moved(length, 0, _INT64), _plain(n.states, _FLOAT * positions)]


#: Class of a module -> what it ran itself. Classes that are not here did as they do today.
_RAN: dict[str, Callable[[Sizes], list[Kernel]]] = {
    "BertSelfAttention": _bert_attention,
    "RobertaSelfAttention": _bert_attention,
    "DistilBertSelfAttention": _distilbert_attention,
    "GPT2Attention": _gpt2_attention,
    "Attention": _openai_attention,
    "BertModel": _bert_model,
    "RobertaModel": _bert_model,
    "GPT2Model": _gpt2_model,
}
#: Features that a module sums over what is in it.
_SUMMED = ("flops", "elementwise_flops", "mem_bytes", "read_bytes", "write_bytes", "kernels")


def as_run(traced: ModelTree) -> ModelTree:
    """The tree with the modules' own leaves as transformers 4.2.2 ran them; the nodes of ``traced`` stay untouched.

    Raises DatasetError for an attention without the leaves that tell its sizes.
    """
    below: list[list[int]] = [[] for _ in traced.nodes]
    for index, node in enumerate(traced.nodes[1:], 1):
        below[node.parent].append(index)
    nodes: list[Node] = []

    def put(index: int, parent: int) -> None:
        old = traced.nodes[index]
        here = len(nodes)
        nodes.append(
            Node(
                old.scope,
                old.type,
                old.level,
                parent,
                old.primitive,
                old.call,
                dict(old.features),
                old.shapes,
            )
        )
        ran = _RAN.get(old.type) if old.level != "ml" else None
        if old.primitive == "MatMul":
            _contiguous(nodes[-1])
        for child in below[index]:
            if ran is None or traced.nodes[child].primitive not in _OWN:
                put(child, here)
        if ran is not None:
            nodes.extend(_leaves(old, here, ran(_sizes(traced, below, index))))

    put(0, -1)
    _add_up(nodes)
    return ModelTree(nodes, dict(traced.header))


def _contiguous(node: Node) -> None:
    """A product alone, as its row was published: of contiguous matrices, one kernel; copies are the module's."""
    f = node.features
    m, n, k = (f[name] for name in ("gemm_m", "gemm_n", "gemm_k"))
    size = f["gemm_batch"] * f["bytes_per_element"] / _MIB
    f.update(kernels=1.0, read_bytes=size * k * (m + n), write_bytes=size * m * n)
    f["mem_bytes"] = f["read_bytes"] + f["write_bytes"] + f["weight_bytes"]


def _sizes(traced: ModelTree, below: Sequence[Sequence[int]], index: int) -> Sizes:
    batch, length = (int(traced.header[name]) for name in ("batch_size", "seq_len"))
    node = traced.nodes[index]
    leaves = [traced.nodes[child] for child in below[index]]
    of = {
        name: [int(leaf.features["elements"]) for leaf in leaves if leaf.primitive == name]
        for name in ("Softmax", "MatMul", "Embedding")
    }
    if node.level == "model":
        states, scores = max(of["Embedding"], default=0), 0
    elif of["Softmax"] and of["MatMul"]:
        states, scores = of["MatMul"][-1], of["Softmax"][0]
    else:
        raise DatasetError(f"{node.name}: traced without MatMul and Softmax; trace it with eager attention")
    return Sizes(batch * length, length * length, states, scores)


def _leaves(module: Node, parent: int, kernels: Sequence[Kernel]) -> Iterator[Node]:
    for primitive, calculates in (("Elementwise", True), ("Copy", False)):
        mine = [kernel for kernel in kernels if kernel.calculates is calculates]
        if not mine:
            continue
        elements = float(sum(kernel.elements for kernel in mine))
        read, write = (sum(getattr(kernel, name) for kernel in mine) / _MIB for name in ("read", "write"))
        flops = elements / 1e6 if calculates else 0.0
        yield Node(module.scope, primitive, "ml", parent, primitive, 0, {
            **{name: module.features[name] for name in ("batch_size", "seq_len")},
            "flops": flops, "matmul_flops": 0.0, "elementwise_flops": flops, "mem_bytes": read + write,
            "weight_bytes": 0.0, "read_bytes": read, "write_bytes": write, "kernels": float(len(mine)),
            "num_parameters": 0.0, "elements": elements, "bytes_per_element": float(_FLOAT),
        }, None)  # fmt: skip


def _add_up(nodes: Sequence[Node]) -> None:
    """Sums of modules from their children, in place."""
    inner = {node.parent for node in nodes[1:]}
    for index in inner:
        nodes[index].features.update(dict.fromkeys(_SUMMED, 0.0))
    for index in range(len(nodes) - 1, 0, -1):
        parent = nodes[nodes[index].parent].features
        for name in _SUMMED:
            parent[name] += nodes[index].features.get(name, 0.0)
