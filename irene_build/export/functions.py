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

_FUNCTIONS = {
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
        "Squared distances of every row of z [rows, dims] from its own kernel centres [rows, dims, centres].",
        """
        SquareDistance (z, centres) => (square) {
            last = Constant <value = int64[1] {2}>()
            middle = Constant <value = int64[1] {1}>()
            here = Unsqueeze(z, last)
            away = Sub(here, centres)
            parts = Mul(away, away)
            square = ReduceSum <keepdims = 0>(parts, middle)
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
    "Family": (
        "Where every node stands: its index, the node above it (itself at a root), whether there is one (also as "
        "0 or 1), whether it has no children, and whether the row makes sense: parents come before children, levels "
        "are 0 ml, 1 module, 2 model. `inner` are modules and models with children. `kind` is the node's row in "
        "the tables: unknown primitive, the primitives, unknown primitive, module, model, and both without children.",
        """
        Family (primitive, parent, level, listed) => (index, up, below, step, leaf, inner, sound, kind) {
            zero = Constant <value = int64 {0}>()
            one = Constant <value = int64 {1}>()
            two = Constant <value = int64 {2}>()
            none = Constant <value = int64 {-1}>()
            count = Size(parent)
            index = Range(zero, count, one)
            earlier = Less(parent, index)
            held_parent = Max(parent, none)
            parent_sound = Equal(held_parent, parent)
            held = Clip(level, zero, two)
            level_sound = Equal(held, level)
            one_sound = And(parent_sound, level_sound)
            sound = And(one_sound, earlier)
            from_zero = GreaterOrEqual(parent, zero)
            below = And(from_zero, earlier)
            up = Where(below, parent, index)
            step = Cast <to = 7>(below)
            nothing = Sub(step, step)
            children = ScatterElements <axis = 0, reduction = "add">(nothing, up, step)
            leaf = Equal(children, zero)
            held_primitive = Clip(primitive, none, listed)
            row = Add(held_primitive, one)
            beyond = Add(listed, one)
            childless = Add(beyond, two)
            base = Where(leaf, childless, beyond)
            above = Add(base, held)
            is_ml = Equal(held, zero)
            kind = Where(is_ml, row, above)
            small = Or(is_ml, leaf)
            inner = Not(small)
        }""",
    ),
    "Distinct": (
        "Which rows must be computed: `first` are rows that stand for all that equal them, `of` is for every row the "
        "position in `first` of the one that it equals. Models repeat their layers, so these are few. Rows are brought "
        "together by one number each (`twin` is one row with the same number) and then compared feature by feature: "
        "a row that differs from its twin stands for itself, none is taken for another.",
        """
        Distinct (x, kind, index, mix, kind_mix) => (first, of) {
            zero = Constant <value = double {0.0}>()
            none = Constant <value = int64 {0}>()
            start = Constant <value = int64[1] {0}>()
            second = Constant <value = int64[1] {1}>()
            last = Constant <value = int64[1] {-1}>()
            end = Constant <value = int64[1] {9223372036854775807}>()
            product = MatMul(x, mix)
            of_features = Squeeze(product, second)
            number = Cast <to = 11>(kind)
            of_kind = Mul(number, kind_mix)
            mixed = Add(of_features, of_kind)
            unordered = IsNaN(mixed)
            key = Where(unordered, zero, mixed)
            count = Shape(key)
            keys, order = TopK <axis = 0, sorted = 1>(key, count)
            upper = Slice(keys, start, last)
            lower = Slice(keys, second, end)
            repeats = Equal(upper, lower)
            changes = Not(repeats)
            steps = Cast <to = 7>(changes)
            jumps = Concat <axis = 0>(start, steps)
            group = CumSum(jumps, none)
            begins = Concat <axis = 0>(second, steps)
            is_head = Cast <to = 9>(begins)
            heads = Compress <axis = 0>(order, is_head)
            head = GatherElements(heads, group)
            twin = ScatterElements(order, order, head)
            its = Gather <axis = 0>(x, twin)
            equal = Equal(x, its)
            bits = Cast <to = 2>(equal)
            all = ReduceMin <keepdims = 0>(bits, second)
            same_features = Cast <to = 9>(all)
            its_kind = GatherElements(kind, twin)
            same_kind = Equal(kind, its_kind)
            same = And(same_features, same_kind)
            source = Where(same, twin, index)
            is_first = Equal(source, index)
            first = Compress <axis = 0>(index, is_first)
            ones = Cast <to = 7>(is_first)
            position = CumSum <exclusive = 1>(ones, none)
            of = GatherElements(position, source)
        }""",
    ),
    "Aggregate": (
        "A(n) = sum over children c of weight(c) A(c), weight = alpha times the correction of inner nodes. Every round "
        "of the loop brings joules one level further up in the whole forest, until no node has an ancestor beyond. "
        "`own` holds the leaves' joules and 0 above them; `root` is the node at which every way up ends.",
        """
        Aggregate (own, weight, up, below, step) => (total, root) {
            yes = Constant <value = bool {1}>()
            nothing = Constant <value = double {0.0}>()
            most = Size(up)
            total, root = Loop (most, yes, own, up) <body = one_level
                (int64 round, bool go, double[N] sums, int64[N] at)
                => (bool more, double[N] sums_out, int64[N] at_out) {
                share = Mul(weight, sums)
                given = Where(below, share, nothing)
                sums_out = ScatterElements <axis = 0, reduction = "add">(own, up, given)
                at_out = GatherElements(up, at)
                beyond = GatherElements(step, at)
                furthest = ReduceMax <keepdims = 0>(beyond)
                more = Cast <to = 9>(furthest)
            }>
        }""",
    ),
    "Readings": (
        "What pooling needs of every node's own reading: reading^omega, 1 - omega, and whether there is a positive "
        "reading.",
        """
        Readings (reading, reads, omega) => (power, rest, usable) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            positive = Greater(reading, zero)
            usable = And(reads, positive)
            base = Where(usable, reading, one)
            power = Pow(base, omega)
            rest = Sub(one, omega)
        }""",
    ),
    "Pool": (
        "own^(1 - omega) * reading^omega where there is a reading and both are positive; else the reading alone.",
        """
        Pool (own, reading, reads, power, rest, usable) => (pooled) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            positive = Greater(own, zero)
            both = And(usable, positive)
            base = Where(both, own, one)
            left = Pow(base, rest)
            mixed = Mul(left, power)
            single = Where(reads, reading, own)
            pooled = Where(both, mixed, single)
        }""",
    ),
    "AggregatePooled": (
        "As Aggregate, with the corrections of inner nodes, and where a child that has its own reading gives its "
        "parent the pooled value.",
        """
        AggregatePooled (own, alpha, correction, up, below, step, reading, reads, power, rest, usable)
            => (total, root) {
            yes = Constant <value = bool {1}>()
            nothing = Constant <value = double {0.0}>()
            most = Size(up)
            total, root = Loop (most, yes, own, up) <body = one_level
                (int64 round, bool go, double[N] sums, int64[N] at)
                => (bool more, double[N] sums_out, int64[N] at_out) {
                energy = Mul(sums, correction)
                pooled = irene.Pool(energy, reading, reads, power, rest, usable)
                share = Mul(alpha, pooled)
                given = Where(below, share, nothing)
                sums_out = ScatterElements <axis = 0, reduction = "add">(own, up, given)
                at_out = GatherElements(up, at)
                beyond = GatherElements(step, at)
                furthest = ReduceMax <keepdims = 0>(beyond)
                more = Cast <to = 9>(furthest)
            }>
        }""",
    ),
    "Rescale": (
        "Below a root that has a reading: A(n) * s^gamma of the node's level, s = P(root) / A(root).",
        """
        Rescale (energy, own, reads, root, below, level, gamma, has_gamma) => (scaled) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            ratio = Div(energy, own)
            s = GatherElements(ratio, root)
            root_reads = GatherElements(reads, root)
            positive = Greater(s, zero)
            usable = And(root_reads, positive)
            named = GatherElements(has_gamma, level)
            below_usable = And(below, usable)
            applies = And(below_usable, named)
            base = Where(applies, s, one)
            exponent = GatherElements(gamma, level)
            factor = Pow(base, exponent)
            product = Mul(own, factor)
            scaled = Where(applies, product, energy)
        }""",
    ),
    "Away": (
        "How far a node lies outside the calibrated ranges: the sum of ln(ratio to the nearer end), 0 inside. "
        "Absent features are skipped.",
        """
        Away (raw, bottom, top) => (away) {
            tiny = Constant <value = double {1e-9}>()
            one = Constant <value = double {1.0}>()
            axis = Constant <value = int64[1] {1}>()
            small = Less(raw, tiny)
            x = Where(small, tiny, raw)
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
    "Unlike": (
        "Whether a node is of no known kind: no point within reach in every column.",
        """
        Unlike (furthest, reach) => (unlike) {
            middle = Constant <value = int64[1] {1}>()
            nearest = ReduceMin <keepdims = 0>(furthest, middle)
            unlike = Greater(nearest, reach)
        }""",
    ),
    "Far": (
        "Modules of no known kind, and roots that get more than half of their joules from such children.",
        """
        Far (unlike, level, up, below, alpha, energy) => (far) {
            zero = Constant <value = double {0.0}>()
            half = Constant <value = double {0.5}>()
            module = Constant <value = int64 {1}>()
            is_module = Equal(level, module)
            is_root = Greater(level, module)
            far_module = And(unlike, is_module)
            gift = Mul(alpha, energy)
            given = Where(below, gift, zero)
            by_far = Where(far_module, given, zero)
            empty = Sub(up, up)
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
        HalfWidth (away, q, slope) => (half) {
            one = Constant <value = double {1.0}>()
            widest = Constant <value = double {16.0}>()
            grown = Mul(slope, away)
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
