"""``--method best``: an interpretable tree, tuned by leaving training models out.

Leaves are roofline terms times a small correction, modules are their children and their own kernels, and what
a run tells (gpu_energy, latency) is pooled in where it is there. Nothing here ever sees the models that an
evaluation holds out: everything, intervals included, is chosen inside the dataset that ``fit`` is given.

Found in the training data: tiles and waves, terms (by non-negative weights), lengths and variances of corrections
(likelihood), their centers (forward selection), forms of readings, pools and powers (models left out), the reach
of corrections and the pooling of unlabelled kernels (``settings``), widths and slopes of intervals (models and
sizes left out). Fixed: most centers (the bundle's size), two rounds of corrections (parents see their children's),
the list of features, and bounds of the last resort (``LIMIT`` of a correction, ``UNKNOWN`` widths). The usual
reach 0.4 and pooling 0.03, from which ``settings`` departs where both halves of the models gain, and the reach of
a kind (``kinds.REACH``, equality up to rounding) were set on the published measurements of one PC.
"""

from .fit import fit

__all__ = ["fit"]
