"""Compile the estimator that ships with the package, and predict a model of your own with it, part by part.

    python examples/export_and_predict.py [FOLDER]

Needs irene-build (and so torch); what it writes to FOLDER/irene_estimator.py needs nothing but Python.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from torch import nn, zeros

import irene_build as irene


def classifier() -> nn.Module:
    """A model as you would write it; any nn.Module will do."""
    return nn.Sequential(nn.Embedding(30_000, 256), nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))


def main(folder: Path) -> irene.Prediction:
    # Tracing runs the model once, without its weights' values; the tree can be saved and sent to another machine.
    tree = irene.trace_model(classifier(), inputs=zeros(8, 128, dtype=int), attention="eager")
    irene.export_bundle("pc1", folder, trees={"classifier.json": tree}, force=True)
    prediction = irene.predict(folder, tree)
    low, high = prediction.interval_j
    print(prediction.table(depth=1))
    print(f"{prediction.energy_j:.3g} J, 90 % interval {low:.3g} to {high:.3g} J; flags: {prediction.flags}")
    return prediction


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "out")
