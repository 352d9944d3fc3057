"""The local functions of the ONNX graph, in ONNX's own text syntax, so that they read like equations 1 and 3.

Each is written once and called by every tier; the numbers of a tier come in as arguments. Functions hold no
initializers, only Constant nodes. All reals are float64. Comments above a function become its doc_string.
"""

from __future__ import annotations

from typing import Any

DOMAIN = "irene"
OPSET = 18

#: Logarithms see nothing smaller (as in `irene_runtime.equations`).
TINY = 1e-9
#: Depth is found by doubling, so this many rounds reach any depth that an int64 can count to.
_ROUNDS = 40

_FUNCTIONS = {
    "Known": (
        "Raw features, an absent one (NaN) replaced by what it stands for: 0 for a model feature, NaN for a "
        "resource feature. A last column of ones is added, which empty products and padding point to.",
        """
        Known (features, absent) => (known) {
            unknown = IsNaN(features)
            filled = Where(unknown, absent, features)
            right = Constant <value = int64[4] {0, 0, 0, 1}>()
            one = Constant <value = double {1.0}>()
            known = Pad(filled, right, one)
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
    "Factor": (
        "One factor of every term: row i takes the columns that the table names for its primitive (or level).",
        """
        Factor (columns, row, table) => (factor) {
            picks = Gather <axis = 0>(table, row)
            factor = GatherElements <axis = 1>(columns, picks)
        }""",
    ),
    "Standardise": (
        "(value - mean) / scale, with the mean and scale of the row's primitive.",
        """
        Standardise (value, row, mean, scale) => (z) {
            m = Gather <axis = 0>(mean, row)
            s = Gather <axis = 0>(scale, row)
            centred = Sub(value, m)
            z = Div(centred, s)
        }""",
    ),
    "Weigh": (
        "Sum over terms of weight * z, with the weights of the row's primitive (or level).",
        """
        Weigh (z, row, weight) => (total) {
            w = Gather <axis = 0>(weight, row)
            terms = Mul(z, w)
            axis = Constant <value = int64[1] {1}>()
            total = ReduceSum <keepdims = 0>(terms, axis)
        }""",
    ),
    "AtLeast": (
        "Not below the floor of the row's primitive; NaN stays NaN.",
        """
        AtLeast (joules, row, floor) => (raised) {
            least = Gather <axis = 0>(floor, row)
            below = Less(joules, least)
            raised = Where(below, least, joules)
        }""",
    ),
    "SquareDistance": (
        "Adds one coordinate to the squared distances of a row from the kernel centres of its primitive.",
        """
        SquareDistance (before, z, row, coordinate, centres) => (after) {
            here = Gather <axis = 1>(z, coordinate)
            there = Gather <axis = 0>(centres, row)
            away = Sub(here, there)
            square = Mul(away, away)
            after = Add(before, square)
        }""",
    ),
    "Matern32": (
        "(1 + r) exp(-r), r = sqrt(3) times the distance.",
        """
        Matern32 (square) => (k) {
            root3 = Constant <value = double {1.7320508075688772}>()
            one = Constant <value = double {1.0}>()
            distance = Sqrt(square)
            r = Mul(root3, distance)
            minus = Neg(r)
            decay = Exp(minus)
            rise = Add(one, r)
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
    "Correct": (
        "energy * exp(limit * tanh(correction / limit)): a smooth factor that is bounded.",
        """
        Correct (energy, row, correction, limit) => (corrected) {
            l = Gather <axis = 0>(limit, row)
            relative = Div(correction, l)
            bent = Tanh(relative)
            exponent = Mul(l, bent)
            factor = Exp(exponent)
            corrected = Mul(energy, factor)
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
        "Equation 3: alpha = 1 + tanh(polynomial) / tau, within 1 -+ 1/tau; 1 at a root.",
        """
        Alpha (polynomial, tau, parent) => (alpha) {
            one = Constant <value = double {1.0}>()
            none = Constant <value = int64 {0}>()
            bent = Tanh(polynomial)
            part = Div(bent, tau)
            inner = Add(one, part)
            is_root = Less(parent, none)
            alpha = Where(is_root, one, inner)
        }""",
    ),
    "Family": (
        "Where every node stands: the node above it (itself at a root), whether it has children, and whether the "
        "row makes sense: parents come before children, levels are 0 ml, 1 module, 2 model. `kind` is its row in "
        "the tables: unknown primitive, the primitives, unknown primitive, module, model, and both without children.",
        """
        Family (primitive, parent, level, listed) => (up, step, leaf, sound, kind) {
            zero = Constant <value = int64 {0}>()
            one = Constant <value = int64 {1}>()
            two = Constant <value = int64 {2}>()
            none = Constant <value = int64 {-1}>()
            first = Constant <value = int64[1] {0}>()
            shape = Shape(parent)
            count = Squeeze(shape, first)
            index = Range(zero, count, one)
            earlier = Less(parent, index)
            held_parent = Max(parent, none)
            parent_sound = Equal(held_parent, parent)
            held = Clip(level, zero, two)
            level_sound = Equal(held, level)
            one_sound = And(parent_sound, level_sound)
            sound = And(one_sound, earlier)
            below = GreaterOrEqual(parent, zero)
            counts = And(below, earlier)
            up = Where(counts, parent, index)
            step = Cast <to = 7>(counts)
            nothing = Sub(step, step)
            children = ScatterElements <axis = 0, reduction = "add">(nothing, up, step)
            leaf = Equal(children, zero)
            beyond = Add(listed, one)
            held_primitive = Clip(primitive, none, listed)
            row = Add(held_primitive, one)
            childless = Add(beyond, two)
            base = Where(leaf, childless, beyond)
            inner = Add(base, held)
            is_ml = Equal(held, zero)
            kind = Where(is_ml, row, inner)
        }""",
    ),
    "Depth": (
        "Distance from the root and index of the root of every node, by doubling: every round looks twice as far up.",
        f"""
        Depth (up, step) => (depth, root) {{
            rounds = Constant <value = int64 {{{_ROUNDS}}}>()
            yes = Constant <value = bool {{1}}>()
            depth, root = Loop (rounds, yes, step, up) <body = double_up
                (int64 round, bool go, int64[N] reach, int64[N] at)
                => (bool more, int64[N] reach_out, int64[N] at_out) {{
                nothing = Constant <value = int64 {{0}}>()
                beyond = Gather <axis = 0>(reach, at)
                reach_out = Add(reach, beyond)
                at_out = Gather <axis = 0>(at, at)
                furthest = ReduceMax <keepdims = 0>(beyond)
                more = Greater(furthest, nothing)
            }}>
        }}""",
    ),
    "Aggregate": (
        "A(n) = sum over children c of alpha(c) A(c), deepest level first: one round of the loop is one depth of the "
        "whole forest. `own` holds the leaves' joules and 0 above them.",
        """
        Aggregate (own, alpha, depth, up) => (total) {
            yes = Constant <value = bool {1}>()
            nothing = Constant <value = double {0.0}>()
            deepest = ReduceMax <keepdims = 0>(depth)
            turn = Sub(deepest, depth)
            total = Loop (deepest, yes, own) <body = one_depth
                (int64 round, bool go, double[N] sums) => (bool more, double[N] sums_out) {
                more = Identity(go)
                now = Equal(turn, round)
                share = Mul(alpha, sums)
                given = Where(now, share, nothing)
                sums_out = ScatterElements <axis = 0, reduction = "add">(sums, up, given)
            }>
        }""",
    ),
    "Pool": (
        "own^(1 - omega) * reading^omega where there is a reading and both are positive; else the reading alone.",
        """
        Pool (own, reading, reads, omega) => (pooled) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            own_positive = Greater(own, zero)
            reading_positive = Greater(reading, zero)
            both = And(own_positive, reading_positive)
            base = Where(both, own, one)
            other = Where(both, reading, one)
            rest = Sub(one, omega)
            left = Pow(base, rest)
            right = Pow(other, omega)
            mixed = Mul(left, right)
            with_reading = Where(both, mixed, reading)
            pooled = Where(reads, with_reading, own)
        }""",
    ),
    "AggregatePooled": (
        "As Aggregate, with the corrections of inner nodes, and where a child that has its own reading gives its "
        "parent the pooled value.",
        """
        AggregatePooled (own, alpha, correction, depth, up, reading, reads, omega) => (total) {
            yes = Constant <value = bool {1}>()
            nothing = Constant <value = double {0.0}>()
            deepest = ReduceMax <keepdims = 0>(depth)
            turn = Sub(deepest, depth)
            total = Loop (deepest, yes, own) <body = one_depth
                (int64 round, bool go, double[N] sums) => (bool more, double[N] sums_out) {
                more = Identity(go)
                now = Equal(turn, round)
                energy = Mul(sums, correction)
                pooled = irene.Pool(energy, reading, reads, omega)
                share = Mul(alpha, pooled)
                given = Where(now, share, nothing)
                sums_out = ScatterElements <axis = 0, reduction = "add">(sums, up, given)
            }>
        }""",
    ),
    "Rescale": (
        "Below a root that has a reading: A(n) * s^gamma of the node's level, s = P(root) / A(root).",
        """
        Rescale (energy, own, reads, root, parent, level, gamma, has_gamma) => (scaled) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            none = Constant <value = int64 {0}>()
            ratio = Div(energy, own)
            s = Gather <axis = 0>(ratio, root)
            root_reads = Gather <axis = 0>(reads, root)
            positive = Greater(s, zero)
            usable = And(root_reads, positive)
            below = GreaterOrEqual(parent, none)
            named = Gather <axis = 0>(has_gamma, level)
            below_usable = And(below, usable)
            applies = And(below_usable, named)
            base = Where(applies, s, one)
            exponent = Gather <axis = 0>(gamma, level)
            factor = Pow(base, exponent)
            product = Mul(own, factor)
            scaled = Where(applies, product, energy)
        }""",
    ),
    "Away": (
        "How far a node lies outside the calibrated ranges: the sum of ln(ratio to the nearer end), 0 inside. "
        "Absent features are skipped.",
        """
        Away (raw, kind, low, high) => (away) {
            tiny = Constant <value = double {1e-9}>()
            one = Constant <value = double {1.0}>()
            axis = Constant <value = int64[1] {1}>()
            small = Less(raw, tiny)
            x = Where(small, tiny, raw)
            bottom = Gather <axis = 0>(low, kind)
            top = Gather <axis = 0>(high, kind)
            above = Div(x, top)
            below = Div(bottom, x)
            ratio = Max(above, below)
            outside = Greater(ratio, one)
            counted = Where(outside, ratio, one)
            logs = Log(counted)
            away = ReduceSum <keepdims = 0>(logs, axis)
        }""",
    ),
    "Further": (
        "The larger of what is known so far and the distance from every point in one more column.",
        """
        Further (before, x, points) => (after) {
            difference = Sub(x, points)
            distance = Abs(difference)
            after = Max(before, distance)
        }""",
    ),
    "Far": (
        "Modules of no known kind (no point within reach in every column), and roots that get more than half of "
        "their joules from such children.",
        """
        Far (furthest, reach, level, parent, up, alpha, energy) => (far) {
            zero = Constant <value = double {0.0}>()
            half = Constant <value = double {0.5}>()
            none = Constant <value = int64 {0}>()
            module = Constant <value = int64 {1}>()
            middle = Constant <value = int64[1] {1}>()
            nearest = ReduceMin <keepdims = 0>(furthest, middle)
            unlike = Greater(nearest, reach)
            is_module = Equal(level, module)
            is_root = Greater(level, module)
            far_module = And(unlike, is_module)
            below = GreaterOrEqual(parent, none)
            gift = Mul(alpha, energy)
            given = Where(below, gift, zero)
            by_far = Where(far_module, given, zero)
            empty = Sub(parent, parent)
            nothing = Cast <to = 11>(empty)
            total = ScatterElements <axis = 0, reduction = "add">(nothing, up, given)
            far_total = ScatterElements <axis = 0, reduction = "add">(nothing, up, by_far)
            limit = Mul(half, total)
            mostly = Greater(far_total, limit)
            far_root = And(mostly, is_root)
            far = Or(far_module, far_root)
        }""",
    ),
    "HalfWidth": (
        "Half the 90 % interval in natural-log units: q (1 + slope * away), at most 16.",
        """
        HalfWidth (away, kind, q, slope) => (half) {
            one = Constant <value = double {1.0}>()
            widest = Constant <value = double {16.0}>()
            growth = Gather <axis = 0>(slope, kind)
            grown = Mul(growth, away)
            factor = Add(one, grown)
            wide = Mul(q, factor)
            half = Min(wide, widest)
        }""",
    ),
    "Ends": (
        "[P exp(-half), P exp(half)], the lower end first also where P < 0.",
        """
        Ends (energy, half) => (low, high) {
            minus = Neg(half)
            shrink = Exp(minus)
            stretch = Exp(half)
            one_end = Mul(energy, shrink)
            other_end = Mul(energy, stretch)
            low = Min(one_end, other_end)
            high = Max(one_end, other_end)
        }""",
    ),
}


def local_functions(used: set[str]) -> list[Any]:
    """The FunctionProtos of the named functions and of those that they call, in the order above."""
    from onnx import parser

    wanted = set(used)
    for name, (_, text) in reversed(_FUNCTIONS.items()):
        if name in wanted:
            wanted |= {other for other in _FUNCTIONS if f"{DOMAIN}.{other}(" in text}
    out = []
    for name, (doc, text) in _FUNCTIONS.items():
        if name in wanted:
            header = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}, "{DOMAIN}": 1]>'
            function = parser.parse_function(header + text)
            function.doc_string = doc
            out.append(function)
    return out
