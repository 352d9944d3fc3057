"""One regressor per primitive from shapes alone: non-negative roofline terms times a small smooth correction.

The terms are those of a roofline (launch, bytes, operations); matrix products also pay for whole waves of
tiles, ceil(m / tile) x ceil(n / tile) tiles in groups of as many as the device works on at once. Tile and
wave are fitted, never taken from a data sheet, so that any device is served, with waves or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.train.best import gaussian_process, huber_nnls
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.schema import Term

#: Byte counts that a roofline may charge apart.
POINTWISE = ("read_bytes", "write_bytes", "weight_bytes")
TILES = ((128, 128), (128, 64), (64, 64), (256, 128))
WAVES = (
    8, 10, 12, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 52, 56, 60, 64, 68, 72,
    76, 80, 82, 84, 92, 96, 100, 108, 112, 120, 128, 132, 144, 160, 168, 192, 216, 264,
)  # fmt: skip
#: Waves have three more terms and three more numbers to find: fewer shapes than this cannot tell them.
ENOUGH = 12
#: A search of waves looks at so many again, robustly; a shape that is missed by more than this share counts no more.
FINALISTS, MISSED = 12, 0.3
#: No prediction is below this share of the least that was measured.
FLOOR = 0.5
GEMM = ("gemm_batch", "gemm_m", "gemm_n", "gemm_k")
#: What a correction may depend on, first those that tell most.
SHAPE = (("rows", "cols", "elements"), ("elements", "mem_bytes", "flops", "kernels"))
#: Primitives that can stand in for one that was never calibrated, nearest first.
KIN = (
    ("Linear", "Conv1D", "GroupedExperts", "MatMul"),
    ("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "BatchNorm1d", "Softmax"),
    ("GELU", "SiLU", "ReLU", "Tanh", "Sigmoid", "LeakyReLU", "LogSigmoid", "Activation", "GatedActivation",
     "Elementwise", "RotaryEmbedding", "Copy"),
    ("Attention", "MatMul"),
    ("Reduction", "Softmax", "Elementwise"),
)  # fmt: skip


def kin(primitive: str, found: dict[str, dict[str, Any]]) -> str | None:
    """A calibrated primitive that can stand in for one that is not."""
    for group in KIN:
        if primitive in group:
            for other in group:
                if other != primitive and other in found:
                    return other
    return None


@dataclass
class Shapes:
    """Distinct shapes of one primitive.

    ``features``: float64[s, names]. ``energy_j``: float64[s], the middle of what was measured. ``count``:
    how many measurements. ``nodes``: how many nodes. ``noise``: spread of one measurement in log units.
    """

    features: np.ndarray
    energy_j: np.ndarray
    count: np.ndarray
    nodes: np.ndarray
    noise: float


@dataclass(frozen=True)
class Form:
    """How one primitive is fitted.

    ``wave``: tile height, tile width and tiles at once, None without. ``apart``: the byte counts that have a term of
    their own, none where all bytes are charged alike.
    """

    wave: tuple[int, int, int] | None = None
    apart: tuple[str, ...] = ()


def by_shape(features: np.ndarray, energy_j: np.ndarray, nodes: np.ndarray, copied: np.ndarray) -> Shapes:
    """Fold measurements of equal shapes; ``copied`` (bool[n]) are those of other shapes."""
    _, first, of = np.unique(features, axis=0, return_index=True, return_inverse=True)
    return fold(features[first], of.ravel(), energy_j, nodes, copied)


def fold(
    shapes: np.ndarray, of: np.ndarray, energy_j: np.ndarray, nodes: np.ndarray, copied: np.ndarray
) -> Shapes:
    """Measurements of ``shapes`` (float64[s, names]), ``of``: int64[n], the shape of each.

    Copies count where a shape has nothing else: as much work on the same PC is the best that is known of it.
    """
    own = np.bincount(of[~copied], minlength=len(shapes)) > 0
    kept = ~copied | ~own[of]
    points = gaussian_process.gather(shapes, of[kept], np.log(energy_j[kept]), nodes[kept])
    noise = points.noise
    if not own.all() and own.any():
        places, among = np.unique(of[~copied], return_inverse=True)
        noise = gaussian_process.gather(
            shapes[places], among, np.log(energy_j[~copied]), nodes[~copied]
        ).noise
    return Shapes(shapes, np.exp(points.residual), points.count, points.nodes, noise)


def terms_of(book: ColumnRegistry, shapes: np.ndarray, form: Form) -> list[tuple[str, list[int]]]:
    """The candidate terms for these shapes: name and columns of each."""
    where = {name: index for index, name in enumerate(book.names)}

    def has(name: str) -> bool:
        return name in where and bool((shapes[:, where[name]] > 0.0).any())

    out: list[tuple[str, list[int]]] = [("launch", [book.raw("kernels")] if has("kernels") else [])]
    if form.apart:
        out += [(name, [book.raw(name)]) for name in form.apart]
    elif has("mem_bytes"):
        out.append(("mem_bytes", [book.raw("mem_bytes")]))
    if has("matmul_flops"):
        out.append(("matmul_flops", [book.raw("matmul_flops")]))
    elif has("flops"):
        out.append(("flops", [book.raw("flops")]))
    if form.wave is not None:
        height, width, group = form.wave
        tiles = [
            book.raw("gemm_batch"),
            book.raw("gemm_m", "ceil_div", height),
            book.raw("gemm_n", "ceil_div", width),
        ]
        waves = book.of(tiles, "ceil_div", group)
        out += [("waves", [waves]), ("wave_work", [waves, book.raw("gemm_k")])]
        out.append(("tile_work", [*tiles, book.raw("gemm_k")]))
    return out


def apart(names: Sequence[str], shapes: np.ndarray) -> tuple[str, ...]:
    """The byte counts that these shapes have."""
    where = {name: index for index, name in enumerate(names)}
    return tuple(name for name in POINTWISE if name in where and (shapes[:, where[name]] > 0.0).any())


def form_of(names: Sequence[str], shapes: Shapes) -> Form:
    """The form of a primitive: every byte count apart; waves where it is a matrix product of enough shapes."""
    counts = apart(names, shapes.features)
    return Form(fit_wave(names, shapes, counts), counts)


def has_weights(names: Sequence[str], shapes: np.ndarray) -> bool:
    """Whether a primitive has weights: its sizes are then the input's and the layer's own."""
    return "weight_bytes" in names and bool((shapes[:, list(names).index("weight_bytes")] > 0.0).any())


def design_of(
    book: ColumnRegistry, terms: Sequence[tuple[str, list[int]]], features: np.ndarray
) -> np.ndarray:
    """float64[rows, terms]: the product of each term's columns."""
    columns = book.over(features)
    out = np.ones((len(features), len(terms)))
    for index, (_, chosen) in enumerate(terms):
        for column in chosen:
            out[:, index] *= columns[column]
    return out


def term_data(terms: Sequence[tuple[str, list[int]]], weights: np.ndarray) -> list[Term]:
    """The TERM objects; those of weight 0 are left out."""
    return [
        {
            "name": name,
            "columns": list(columns),
            "weight": gaussian_process.rounded(w),
            "mean": 0.0,
            "scale": 1.0,
        }
        for (name, columns), w in zip(terms, weights.tolist(), strict=True)
        if w > 0.0
    ]


def fit_wave(
    names: Sequence[str], shapes: Shapes, apart: tuple[str, ...], groups: Sequence[int] = WAVES
) -> tuple[int, int, int] | None:
    """Tile height, tile width and tiles at once that suit a matrix product best; None where it is none.

    ``groups``: the numbers of tiles to try.
    """
    columns = [index for index, name in enumerate(names) if name in GEMM]
    if (
        len(columns) < len(GEMM)
        or not (shapes.features[:, columns] > 0.0).all()
        or len(shapes.count) < ENOUGH
    ):
        return None
    weight = np.sqrt(shapes.nodes)

    def loss(wave: tuple[int, int, int], rounds: int) -> float:
        book = ColumnRegistry(names)
        design = design_of(book, terms_of(book, shapes.features, Form(wave, apart)), shapes.features)
        found = huber_nnls.nnls(design, shapes.energy_j, weight, rounds=rounds)
        error = np.abs(design @ found / shapes.energy_j - 1.0)
        return float(np.average(np.minimum(error, MISSED), weights=weight))

    waves = sorted(((h, w, g) for h, w in TILES for g in groups), key=lambda wave: loss(wave, 1))
    return min(waves[:FINALISTS], key=lambda wave: loss(wave, 2))


def correction_columns(book: ColumnRegistry, shapes: np.ndarray) -> list[int]:
    """Log features that vary over the shapes, none of them a combination of those before."""
    where = {name: index for index, name in enumerate(book.names)}

    def has_all(names: Sequence[str]) -> bool:
        return all(name in where and bool((shapes[:, where[name]] > 0.0).all()) for name in names)

    gemm = has_all(GEMM)
    names = (
        ("gemm_m", "gemm_n", "gemm_k", "gemm_batch")
        if gemm
        else SHAPE[0]
        if has_all(SHAPE[0][:2])
        else SHAPE[1]
    )
    basis = [np.ones(len(shapes))]
    out = []
    for name in names:
        if not has_all([name]):
            continue
        x = np.log(shapes[:, where[name]])
        if not gemm:
            a = np.column_stack(basis)
            x = x - a @ np.linalg.lstsq(a, x, rcond=None)[0]
        if np.std(x) < 0.02:
            continue
        basis.append(np.log(shapes[:, where[name]]))
        out.append(book.raw(name, "log"))
    return out


def fit_leaf(
    book: ColumnRegistry, shapes: Shapes, form: Form, rank: int, using: dict[str, Any], name: str
) -> dict[str, Any]:
    """A LEAF for one primitive. ``using`` remembers the scales of its correction, by ``name`` and what it reads."""
    terms = terms_of(book, shapes.features, form)
    design = design_of(book, terms, shapes.features)
    weights = huber_nnls.nnls(design, shapes.energy_j, np.sqrt(shapes.nodes))
    floor = gaussian_process.rounded(FLOOR * float(shapes.energy_j.min()))
    data: dict[str, Any] = {"terms": term_data(terms, weights), "floor": floor, "correction": None}
    columns = correction_columns(book, shapes.features)
    if not columns:
        return data
    values = book.over(shapes.features)
    z = np.column_stack([values[c] for c in columns])
    residual = np.log(shapes.energy_j / np.maximum(design @ weights, floor))
    points = gaussian_process.Points(z, residual, shapes.count, shapes.noise, shapes.nodes)
    # Fewer models may vary in fewer features: scales and centers of others would say nothing there.
    key = " ".join((name, *(str(book.columns[c]["feature"]) for c in columns)))
    if key not in using:
        cache = gaussian_process.KernelCache(z, has_weights(book.names, shapes.features))
        using[key] = gaussian_process.scales(points, cache)
    data["correction"] = gaussian_process.fit(points, columns, rank, using[key])
    return data
