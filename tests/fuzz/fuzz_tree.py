"""Coverage-guided fuzzing of tree files with atheris (`pip install atheris`); not collected by pytest.

    python tests/fuzz/fuzz_tree.py [CORPUS] -max_total_time=60

Whatever the bytes are: a tree that predicts and prints, or an IreneError. Anything else is a finding.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["irene_runtime"]):
    from irene_runtime.errors import IreneError
    from irene_runtime.model import Estimator
    from irene_runtime.tree import loads

from tests.runtime.examples import estimator, tree

ESTIMATOR = Estimator(estimator())
SEED = tree().dumps()


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        p = ESTIMATOR.predict(loads(text))
        p.to_json()
        for out in (p.table(), p.to_csv(), p.to_openmetrics(), p.explain(len(p) - 1)):
            assert isinstance(out, str)
    except IreneError as error:
        assert len(str(error)) < 2000


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Starts from a real tree where the input is still empty."""
    return atheris.Mutate(data if len(data) > 10 else SEED.encode(), max_size)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
    atheris.Fuzz()
