"""How one number came about, in words: terms, factors and alphas, down to the joule."""

from typing import Any, Dict, List

from .equations import distance
from .prediction import Prediction, joules, printable


def explanation(tier: Any, p: Prediction, index: int, features: List[Dict[str, float]]) -> str:
    """Text for node ``index``; ``tier`` is the ``equations.Tier`` that made ``p``."""
    node, own, nodes = p[index], features[index], p.tree.nodes
    children = p.tree.children[index]
    ends = tuple(map(joules, node.interval_j))
    lines = p.heading() + [
        "",
        "%s (%s): %s, 90 %% interval %s to %s%s"
        % (
            (nodes[index].name, node.primitive or node.level, joules(node.energy_j))
            + ends
            + ("".join(", " + flag for flag in node.flags),)
        ),
    ]
    total, factor = 0.0, None
    if children:
        lines.append("own sum (equation 3), alpha x energy of each child:")
        for child in children:
            alpha, energy = p[child].alpha or 0.0, p[child].energy_j
            total = total + alpha * energy
            lines.append("  %8.5f x %12s  %s" % (alpha, joules(energy), nodes[child].name))
        if node.level in tier.correction:
            factor = tier.correction[node.level](own)
    else:
        leaf, whose, _ = tier.leaf_of(node.primitive)
        lines.append("leaf (equation 1), terms of %s:" % whose)
        lines += ["  %12s  %s" % (joules(part), name) for name, part in leaf.linear.parts(own)]
        total = leaf.linear(own)
        if leaf.linear.floor is not None and total == leaf.linear.floor:
            lines.append("  raised to the floor, %s" % joules(total))
        if leaf.correction is not None:
            factor = leaf.correction(own)
    if factor is not None:
        total = total * factor
        lines.append("  x %.5f  correction" % factor)
    if not children and tier.bend is not None:
        law = tier.fallback(own)
        learned, total = total, tier.bend(whose, total, law, distance(own, tier.ranges.get(whose, {})))
        if abs(total - learned) > 1e-9 * abs(learned):
            lines.append("  held near the law, %s: x %.5f" % (joules(law), total / learned))
    lines.append("  = %s" % joules(total))
    direct = tier.direct.get(node.level)
    if direct is not None and direct.linear.needs <= own.keys():
        lines.append("own reading, pooled with weight %.4g:" % direct.pool)
        lines += ["  %12s  %s" % (joules(part), name) for name, part in direct.linear.parts(own)]
    if index and tier.gamma:
        lines.append(
            "rescaled by the whole model's reading to the power %.4g: %s"
            % (tier.gamma.get(node.level, 0.0), joules(node.energy_j))
        )
    lines.append("path to the root, energy x alpha:")
    while index >= 0:
        n = p[index]
        alpha_text = "           " if n.alpha is None else " x %8.5f" % n.alpha
        lines.append("  %12s%s  %s" % (joules(n.energy_j), alpha_text, nodes[index].name))
        index = n.parent
    return "".join(printable(line) + "\n" for line in lines)
