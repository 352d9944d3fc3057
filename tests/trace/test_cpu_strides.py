"""Results on meta and on fake tensors are laid out as the CPU lays them out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from irene_build.models.specs import Spec
from irene_build.trace import fallbacks, tracer
from irene_build.trace.request import Pass

IMAGE = (2, 8, 6, 4)
#: An image of one, as a view of tokens gives it: the stride of its batch decides what kernels make of it.
ONE = (1, 8, 6, 4)


def last(x: torch.Tensor) -> torch.Tensor:
    """The same values laid out channels last, by way of tokens [batch, height x width, channels]."""
    batch, channels, height, width = x.shape
    tokens = x.flatten(2).transpose(1, 2).contiguous()
    return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class Net(nn.Module):  # type: ignore[misc]
    """Runs one layer, then copies its result where its layout asks for it."""

    def __init__(self, layer: nn.Module | None, prepare: Any, call: Any) -> None:
        super().__init__()
        self.layer, self.prepare, self.call = layer, prepare, call
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.prepare(x + self.weight)
        y = self.layer(y) if self.layer is not None else self.call(y)
        return y.reshape(-1) * y.contiguous().sum()


CASES: dict[str, tuple[tuple[int, ...], Any, Any, Any]] = {
    # name: shape of the input, layer, how the input is laid out, function
    "convolution": (IMAGE, lambda: nn.Conv2d(8, 4, 2), last, None),
    "convolution of one image": (ONE, lambda: nn.Conv2d(8, 4, 2), last, None),
    "transposed convolution of one image": (ONE, lambda: nn.ConvTranspose2d(8, 4, 2, 2), last, None),
    "convolution of one channel": ((2, 1, 6, 4), lambda: nn.Conv2d(1, 4, 2), last, None),
    "convolution of turned rows": ((2, 8, 8), lambda: nn.Conv1d(8, 8, 3, groups=8), lambda x: x.transpose(1, 2), None),
    "bilinear interpolation of one image": (
        ONE, None, last, lambda x: functional.interpolate(x, size=(3, 5), mode="bilinear")),
    "bicubic interpolation of one image": (
        ONE, None, last, lambda x: functional.interpolate(x, size=(3, 5), mode="bicubic")),
    "batch norm of turned rows": ((2, 4, 8), lambda: nn.BatchNorm1d(8), lambda x: x.transpose(1, 2), None),
    "batch norm of images": (IMAGE, lambda: nn.BatchNorm2d(8), last, None),
    "batch norm of spectra": (
        (2, 1, 6, 8), lambda: nn.BatchNorm2d(8), lambda x: x.transpose(1, 3), None),
    "group norm": (IMAGE, lambda: nn.GroupNorm(2, 8), last, None),
    "max pooling of turned rows": ((2, 4, 8), lambda: nn.MaxPool1d(2), lambda x: x.transpose(1, 2), None),
    "log-sigmoid": (IMAGE, lambda: nn.LogSigmoid(), last, None),
    "roll": (IMAGE, None, lambda x: last(x)[:, :, :1], lambda x: x.roll(1, 1)),
    "roll of two dimensions": (IMAGE, None, last, lambda x: x.roll((1, -1), (2, 3))),
    "pixel shuffle": (IMAGE, None, last, lambda x: functional.pixel_shuffle(x, 2)),
    "reflection": (IMAGE, None, last, lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect")),
    "replication": (IMAGE, None, last, lambda x: functional.pad(x, (1, 1, 1, 1), mode="replicate")),
    "sums of embeddings": ((2, 4), lambda: nn.EmbeddingBag(5, 3, mode="sum"), lambda x: (x * 0).long(), None),
}  # fmt: skip


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_one_tree(name: str, inference: bool) -> None:
    shape, layer, prepare, call = CASES[name]

    def build() -> nn.Module:
        net = Net(layer() if layer else None, prepare, call)
        if inference:
            net.forward = torch.inference_mode()(net.forward)  # type: ignore[method-assign]
        return net

    run = Pass(2, 8, inputs=lambda *_: {"x": torch.ones(shape)})
    spec = Spec(name, None, None, factory=build)
    trees = [
        tracer.record(_built(build, "meta"), name, run)[0],
        fallbacks.on_fake(spec, name, run),
        tracer.record(_built(build, "cpu"), name, replace(run, tensors="cpu"))[0],
    ]
    meta, fake, real = ([node.to_json() for node in tree.nodes] for tree in trees)
    assert meta == real
    assert fake == real


def _built(build: Any, device: str) -> nn.Module:
    with torch.device(device):
        return build().eval()
