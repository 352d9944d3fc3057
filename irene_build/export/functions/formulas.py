"""Local functions that look at one row alone: columns, equation 1, corrections and alpha (`core` calls them)."""

from __future__ import annotations

#: name -> (what it does, its text in ONNX's own syntax); as in the package's docstring.
FORMULAS = {
    "Known": (
        "Model features; an absent one (NaN) does not apply to the node and is 0.",
        """
        Known (features) => (known) {
            zero = Constant <value = double {0.0}>()
            absent = IsNaN(features)
            known = Where(absent, zero, features)
        }""",
    ),
    "Log": (
        "ln(max(x, 1e-9)); NaN stays NaN.",
        """
        Log (x) => (y) {
            tiny = Constant <value = double {1e-9}>()
            low = Less(x, tiny)
            raised = Where(low, tiny, x)
            y = Log(raised)
        }""",
    ),
    "Log1p": (
        "ln(1 + x), exact also where 1 + x rounds (ln(u) x / (u - 1) with u = 1 + x, after Kahan).",
        """
        Log1p (x) => (y) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            u = Add(one, x)
            rest = Sub(u, one)
            lost = Equal(rest, zero)
            divisor = Where(lost, one, rest)
            log = Log(u)
            correction = Div(x, divisor)
            product = Mul(log, correction)
            y = Where(lost, x, product)
        }""",
    ),
    "Inverse": (
        "1 / max(x, 1e-9); NaN stays NaN.",
        """
        Inverse (x) => (y) {
            tiny = Constant <value = double {1e-9}>()
            low = Less(x, tiny)
            raised = Where(low, tiny, x)
            y = Reciprocal(raised)
        }""",
    ),
    "CeilDiv": (
        "ceil(x / by): how many tiles of a size cover a shape.",
        """
        CeilDiv (x, by) => (y) {
            tiles = Div(x, by)
            y = Ceil(tiles)
        }""",
    ),
    "WithOnes": (
        "A last column of ones, which empty products and padding point to.",
        """
        WithOnes (x) => (columns) {
            right = Constant <value = int64[4] {0, 0, 0, 1}>()
            one = Constant <value = double {1.0}>()
            columns = Pad(x, right, one)
        }""",
    ),
    "Standardise": (
        "(value - mean) / scale.",
        """
        Standardise (value, mean, scale) => (z) {
            centred = Sub(value, mean)
            z = Div(centred, scale)
        }""",
    ),
    "Weigh": (
        "Sum over terms of weight * z, one row at a time.",
        """
        Weigh (z, weight) => (total) {
            terms = Mul(z, weight)
            axis = Constant <value = int64[1] {1}>()
            total = ReduceSum <keepdims = 0>(terms, axis)
        }""",
    ),
    "AtLeast": (
        "Not below the floor; NaN stays NaN.",
        """
        AtLeast (joules, floor) => (raised) {
            below = Less(joules, floor)
            raised = Where(below, floor, joules)
        }""",
    ),
    "SquareDistance": (
        "Squared distances of every row of z [rows, dims] from its own kernel centres [dims, rows, centres].",
        """
        SquareDistance (z, centres) => (square) {
            first = Constant <value = int64[1] {0}>()
            last = Constant <value = int64[1] {2}>()
            columns = Transpose <perm = [1, 0]>(z)
            here = Unsqueeze(columns, last)
            away = Sub(here, centres)
            parts = Mul(away, away)
            square = ReduceSum <keepdims = 0>(parts, first)
        }""",
    ),
    "GridDistance": (
        "Squared distances of every row of z [rows, dims] from centres that all rows share and that lie on few lines. "
        "`lines`: the coordinates, one dimension after the other; `dim`: of which dimension each is; `at` [dims, 1, "
        "centres]: which of them each centre has. Sums are products with zeros and ones, which round nothing.",
        """
        GridDistance (z, lines, dim, at) => (square) {
            zero = Constant <value = int64 {0}>()
            one = Constant <value = int64 {1}>()
            first = Constant <value = int64[1] {0}>()
            column = Constant <value = int64[2] {-1, 1}>()
            dims = Shape <start = 1>(z)
            dims_count = Squeeze(dims, first)
            each_dim = Range(zero, dims_count, one)
            dim_column = Reshape(each_dim, column)
            is_of = Equal(dim, dim_column)
            spread = CastLike(is_of, z)
            x = MatMul(z, spread)
            away = Sub(x, lines)
            parts = Mul(away, away)
            count = Size(lines)
            each_line = Range(zero, count, one)
            line_column = Reshape(each_line, column)
            is_at = Equal(at, line_column)
            ones = CastLike(is_at, z)
            chosen = ReduceSum <keepdims = 0>(ones, first)
            square = MatMul(parts, chosen)
        }""",
    ),
    "Matern32": (
        "(1 + r) exp(-r), r = sqrt(3) times the distance.",
        """
        Matern32 (square) => (k) {
            one = Constant <value = double {1.0}>()
            minus_root = Constant <value = double {-1.7320508075688772}>()
            distance = Sqrt(square)
            minus_r = Mul(minus_root, distance)
            decay = Exp(minus_r)
            rise = Sub(one, minus_r)
            k = Mul(rise, decay)
        }""",
    ),
    "Gaussian": (
        "exp(-distance^2 / 2).",
        """
        Gaussian (square) => (k) {
            half = Constant <value = double {-0.5}>()
            exponent = Mul(half, square)
            k = Exp(exponent)
        }""",
    ),
    "Bend": (
        "exp(limit * tanh(correction / limit)): a smooth factor that is bounded.",
        """
        Bend (correction, limit) => (factor) {
            relative = Div(correction, limit)
            bent = Tanh(relative)
            exponent = Mul(limit, bent)
            factor = Exp(exponent)
        }""",
    ),
    "BendBack": (
        "A leaf's joules within exp(limit) of the law's, nearer to them the farther it lies from data.",
        """
        BendBack (learned, law, away, limit, reach) => (bent) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            some = Greater(learned, zero)
            lawful = Greater(law, zero)
            both = And(some, lawful)
            a = Where(both, learned, one)
            b = Where(both, law, one)
            log_a = Log(a)
            log_b = Log(b)
            ratio = Sub(log_a, log_b)
            least = Neg(limit)
            raised = Max(ratio, least)
            held = Min(raised, limit)
            far = Div(away, reach)
            grown = Add(one, far)
            share = Div(held, grown)
            factor = Exp(share)
            product = Mul(b, factor)
            bent = Where(both, product, learned)
        }""",
    ),
    "Products": (
        "Products of two rows of a table that has one column a node: the next degree of a polynomial.",
        """
        Products (left, right, left_rows, right_rows) => (product) {
            a = Gather <axis = 0>(left, left_rows)
            b = Gather <axis = 0>(right, right_rows)
            product = Mul(a, b)
        }""",
    ),
    "Form": (
        "sum_k z_k (sum_m weight_km monomial_m): a polynomial as a bilinear form, z with a last row of ones.",
        """
        Form (z, monomials, weight) => (value) {
            inner = MatMul(weight, monomials)
            parts = Mul(inner, z)
            first = Constant <value = int64[1] {0}>()
            value = ReduceSum <keepdims = 0>(parts, first)
        }""",
    ),
    "Alpha": (
        "Equation 3: alpha = 1 + tanh(polynomial) / tau, within 1 -+ 1/tau.",
        """
        Alpha (polynomial, tau) => (alpha) {
            one = Constant <value = double {1.0}>()
            bent = Tanh(polynomial)
            part = Div(bent, tau)
            alpha = Add(one, part)
        }""",
    ),
}
