"""``--method best``: an interpretable tree, tuned by leaving training models out.

Leaves are roofline terms times a small correction, modules are their children and their own kernels, and what
a run tells (gpu_energy, latency) is pooled in where it is there. Nothing here ever sees the models that an
evaluation holds out: everything, intervals included, is chosen inside the dataset that ``fit`` is given.
"""

from .fit import fit

__all__ = ["fit"]
