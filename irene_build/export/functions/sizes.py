"""Local function of symbolic trees: one tree at many sizes becomes a forest."""

from __future__ import annotations

#: name -> (what it does, its text in ONNX's own syntax); as in the package's docstring.
SIZES = {
    "AtSizes": (
        "A tree whose features are sums of coefficient times monomial, at every size: the features of size 0, of "
        "size 1 and so on, one tree after the other. What no monomial changes stands in `features`; NaN stays unknown.",
        """
        AtSizes (features, coefficients, monomials, primitive, parent, level)
            => (x, all_primitive, all_parent, all_level) {
            zero = Constant <value = int64 {0}>()
            one = Constant <value = int64 {1}>()
            first = Constant <value = int64[1] {0}>()
            flat = Constant <value = int64[1] {-1}>()
            column = Constant <value = int64[2] {-1, 1}>()
            by_monomial = Transpose <perm = [1, 0]>(monomials)
            products = MatMul(coefficients, by_monomial)
            each = Transpose <perm = [2, 0, 1]>(products)
            summed = Add(each, features)
            width = Shape <start = 1>(features)
            rows = Concat <axis = 0>(flat, width)
            x = Reshape(summed, rows)
            count = Shape <start = 0, end = 1>(monomials)
            all_primitive = Tile(primitive, count)
            all_level = Tile(level, count)
            nodes = Size(parent)
            sizes = Squeeze(count, first)
            number = Range(zero, sizes, one)
            starts = Mul(number, nodes)
            start = Reshape(starts, column)
            moved = Add(parent, start)
            below = GreaterOrEqual(parent, zero)
            kept = Where(below, moved, parent)
            all_parent = Reshape(kept, flat)
        }""",
    ),
}
