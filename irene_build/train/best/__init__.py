"""``--method best``: an interpretable tree, tuned by leaving training models out.

Leaves are roofline terms times a small correction, modules are their children and their own kernels, and what
a run tells (gpu_energy, latency) is pooled in where it is there. Nothing here ever sees the models that an
evaluation holds out: everything, intervals included, is chosen inside the dataset that ``fit`` is given.

- Fitted: terms (non-negative weights), tiles and waves, lengths and variances of leaf corrections (likelihood), their
  inducing_points (forward selection).
- Chosen (``forms``, ``settings``, ``readings``, ``tiers``), from grids that span orders of magnitude: waves or none,
  bytes apart or alike (evidence); how noisy a leaf's cost is, how far and how strongly corrections above the leaves
  reach, their constants, the pooling of unlabelled kernels (models and families left out); forms of readings, pools
  and powers (models left out).
- Capacity: most inducing_points of a correction (``static``). The bundle's size sets them; more change little
  (``benchmarks/bench_nested.py --capacity``).
- Set by hand while PC1 was in view, and not without weight: FLOOR of a leaf (``leaves``), Huber's constant and LEAST of
  a prior (``robust``), the tie of one per cent (``folds``), LIMIT of a correction (``smooth``);
  ``benchmarks/bench_nested.py --sensitivity`` prints what each moves. Set by hand and of little weight: rounds of
  corrections (as deep as modules lie in each other), equality of kinds up to rounding (``kinds``), UNKNOWN widths.
"""

from .fit import fit

__all__ = ["fit"]
