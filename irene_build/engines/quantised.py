"""What `transformers` launches for quantised matrices: bitsandbytes works beside every product, from Python.

NF4 with double quantisation dequantises the blocks' scales, then multiplies in one kernel (one row), or dequantises
the whole matrix before a product (many rows). INT8 quantises the rows that come in and scales what comes out; by
default it looks for outliers first, which the host waits for, and multiplies those in 16 bits. Counted are device
kernels and host calls of that size, from bitsandbytes 0.43 to 0.46 (`MatMul4Bit`, `MatMul8bitLt`).
"""

from __future__ import annotations

from irene_runtime.tree import ModelTree, Node

#: Launches of one product beyond the one that the tree counts.
LAUNCHES = {"nf4": 8.0, "int4": 8.0, "int8-pure": 12.0, "int8": 30.0}
_PRODUCTS = ("Linear", "Conv1D", "MatMul")
_MIB = 2.0**20


def launched(tree: ModelTree) -> ModelTree:
    """The tree with what bitsandbytes launches around its quantised products; the same tree where there are none."""
    scheme = str(tree.header.get("weights") or "")
    if scheme not in LAUNCHES:
        return tree
    nodes = [Node(n.scope, n.type, n.level, n.parent, n.primitive, n.call, dict(n.features), n.shapes)
             for n in tree.nodes]  # fmt: skip
    for node in nodes:
        if not _is_quantised(node):
            continue
        added = {"kernels": LAUNCHES[scheme]}
        if scheme in ("nf4", "int4") and node.features.get("gemm_m", 0.0) > 1.0:
            whole = 2.0 * node.features["gemm_n"] * node.features["gemm_k"] / _MIB
            added.update(write_bytes=whole, read_bytes=whole, mem_bytes=2.0 * whole)
        above = node
        while True:
            for name, value in added.items():
                above.features[name] = above.features.get(name, 0.0) + value
            if above.parent < 0:
                break
            above = nodes[above.parent]
    return ModelTree(nodes, tree.header)


def _is_quantised(node: Node) -> bool:
    """A product whose stored matrix takes less than 16 bits a value."""
    f = node.features
    values = f.get("gemm_n", 0.0) * f.get("gemm_k", 0.0)
    return (
        node.primitive in _PRODUCTS
        and values > 0.0
        and 0.0 < f.get("weight_bytes", 0.0) * _MIB < 1.5 * values
    )
