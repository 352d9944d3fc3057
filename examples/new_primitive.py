"""A kernel of your own in the tree: register what it costs, and its leaf is a primitive like any other.

    python examples/new_primitive.py

The kernel here is a fused "linear with a squared ReLU". Without the formula below its work could not be seen: the leaf
would be marked ``unseen`` and its interval would be wide.
"""

from __future__ import annotations

import torch
from torch import nn

import irene_build as irene
from irene_build.trace.cost_registry import Called, Work, register_cost


@torch.library.custom_op("examples::linear_relu2", mutates_args=())
def linear_relu2(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """relu(x W^T) ^ 2, in one kernel on your device; here in plain PyTorch."""
    return (x @ weight.T).relu().square()


@linear_relu2.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@register_cost("examples::linear_relu2")
def _cost(call: Called) -> Work:
    """2 m n k FLOPs of the product, two more for every element; bytes are those of operands and result, once."""
    x, weight = call.args[:2]
    rows, (columns, inner) = x.numel() // x.shape[-1], weight.shape
    return Work(
        "Linear",
        matmul_flops=2.0 * rows * columns * inner,
        elementwise_flops=2.0 * call.elements,
        gemm=(1, rows, columns, inner),
    )


class FeedForward(nn.Module):
    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(4 * width, width))
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(linear_relu2(x, self.up))


def main() -> irene.ModelTree:
    tree = irene.trace_model(FeedForward(), inputs=torch.zeros(8, 128, 256), attention="eager")
    for node in tree.nodes:
        print(f"{node.name:20} {node.primitive or node.level:8} {node.features['matmul_flops']:8.1f} MFLOP")
    print(irene.predict("pc1", tree).table(depth=1))
    return tree


if __name__ == "__main__":
    main()
