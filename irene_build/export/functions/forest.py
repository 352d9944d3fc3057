"""Local functions that look at the forest: who is whose parent, which rows repeat, equation 3, readings."""

from __future__ import annotations

#: name -> (what it does, its text in ONNX's own syntax); as in the package's docstring.
FOREST = {
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
}
