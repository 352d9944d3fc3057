"""Local functions of the intervals: how far outside a node lies, of what kind it is, and its two ends."""

from __future__ import annotations

#: name -> (what it does, its text in ONNX's own syntax); as in the package's docstring.
INTERVALS = {
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
    "Doubt": (
        "Joules that a leaf which nobody measured may be wrong by: all of its half-width, or what lies outside.",
        """
        Doubt (own, half, near, leaf) => (doubt) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            unknown = Sub(half, near)
            factor = Exp(unknown)
            share = Sub(factor, one)
            joules = Mul(own, share)
            doubt = Where(leaf, joules, zero)
        }""",
    ),
    "Inherit": (
        "What share of a parent's joules the doubts below it are, and its half-width: its own and these; at most 16.",
        """
        Inherit (half, doubt, sums) => (counted, wider) {
            zero = Constant <value = double {0.0}>()
            one = Constant <value = double {1.0}>()
            widest = Constant <value = double {16.0}>()
            positive = Greater(sums, zero)
            base = Where(positive, sums, one)
            ratio = Div(doubt, base)
            sure = Max(ratio, zero)
            counted = Where(positive, sure, zero)
            grown = Add(one, counted)
            more = Log(grown)
            wide = Add(half, more)
            wider = Min(wide, widest)
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
