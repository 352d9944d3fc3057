"""``--method best``: an interpretable tree, tuned by leaving training models out. METHOD.md is its one page.

Nothing here ever sees the models that an evaluation holds out: everything, intervals included, is chosen inside the
dataset that ``fit`` is given.
"""

from .fit import fit

__all__ = ["fit"]
