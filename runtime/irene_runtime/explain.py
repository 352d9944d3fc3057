"""How one number came about, in words: terms, factors and alphas, down to the joule."""

from typing import Any, Dict, List

from .prediction import Prediction, joules


def explanation(tier: Any, prediction: Prediction, index: int, features: List[Dict[str, float]]) -> str:
    """Text for node ``index``; ``tier`` is the ``equations.Tier`` that made ``prediction``."""
    node, own = prediction[index], features[index]
    tree = prediction.tree
    children = tree.children[index]
    low, high = node.interval_j
    lines = prediction.heading() + [
        "",
        "%s (%s): %s, 90 %% interval %s to %s%s"
        % (
            tree.nodes[index].name, node.primitive or node.level, joules(node.energy_j), joules(low),
            joules(high), "".join(", " + flag for flag in node.flags),
        ),
    ]  # fmt: skip
    total = 0.0
    if children:
        lines.append("own sum (equation 3), alpha x energy of each child:")
        for child in children:
            c = prediction[child]
            total = total + (c.alpha or 0.0) * c.energy_j
            lines.append("  %8.5f x %12s  %s" % (c.alpha or 0.0, joules(c.energy_j), tree.nodes[child].name))
        if node.level in tier.correction:
            factor = tier.correction[node.level](own)
            total = total * factor
            lines.append("  x %.5f  correction of this level" % factor)
    else:
        leaf, whose, _ = tier.leaf_of(node.primitive)
        lines.append("leaf (equation 1), terms of %s:" % whose)
        for name, part in leaf.linear.parts(own):
            total = total + part
            lines.append("  %12s  %s" % (joules(part), name))
        if leaf.linear.floor is not None and total < leaf.linear.floor:
            total = leaf.linear.floor
            lines.append("  raised to the floor, %s" % joules(total))
        if leaf.correction is not None:
            factor = leaf.correction(own)
            total = total * factor
            lines.append("  x %.5f  correction" % factor)
    lines.append("  = %s" % joules(total))
    direct = tier.direct.get(node.level)
    if direct is not None and direct[0].needs <= own.keys():
        lines.append("own reading, pooled with weight %.4g:" % direct[1])
        lines += ["  %12s  %s" % (joules(part), name) for name, part in direct[0].parts(own)]
    if index and tier.gamma and prediction.tier == "live":
        lines.append(
            "rescaled by the whole model's reading to the power %.4g: %s"
            % (tier.gamma.get(node.level, 0.0), joules(node.energy_j))
        )
    lines.append("path to the root, energy x alpha:")
    at = index
    while at >= 0:
        n = prediction[at]
        alpha = "           " if n.alpha is None else " x %8.5f" % n.alpha
        lines.append("  %12s%s  %s" % (joules(n.energy_j), alpha, tree.nodes[at].name))
        at = n.parent
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines) + "\n"
