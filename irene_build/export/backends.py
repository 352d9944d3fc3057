"""One estimator, several engines: every one gives the outputs of the ONNX graph, by name, for one tree and tier.

The module runs in a process of its own (``python -I -S``), as on a user's machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.errors import EstimatorError, InputError, ParityError, TreeError
from irene_build.export.arrays import encode
from irene_build.export.builder import OUTPUTS, TIERS
from irene_runtime.equations import FLAGS
from irene_runtime.law import Law
from irene_runtime.tree import ModelTree

Outputs = dict[str, np.ndarray]
_BITS = {name: bit for bit, name in FLAGS.items()}
#: Flags that every engine gives per node; the others belong to a whole prediction.
NODE_FLAGS = 3
_TIMEOUT_S = 120


class OnnxRuntime:
    """The graph in onnxruntime, on one thread. Raises EstimatorError where the bytes are no graph of ours."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own
            raise EstimatorError(f"onnxruntime cannot load the graph: {error!s:.200}") from None
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)

    def run_arrays(self, arrays: Mapping[str, np.ndarray], tier: str) -> Outputs:
        found = self.session.run(list(OUTPUTS), {**arrays, "tier": np.array(TIERS.index(tier))})
        return dict(zip(OUTPUTS, found, strict=True))


class Reference:
    """The graph in ``onnx.reference``, the specification's own evaluator.

    Its GatherElements (np.choose) stops at 64 rows in one dimension; ours is the operator's definition in numpy.
    """

    def __init__(self, model: Any) -> None:
        from onnx.reference import ReferenceEvaluator
        from onnx.reference.op_run import OpRun

        class GatherElements(OpRun):
            def _run(self, data: Any, indices: Any, axis: int = 0) -> tuple[Any]:
                return (np.take_along_axis(data, indices, axis=axis or 0),)

        class Evaluator(ReferenceEvaluator):  # functions are evaluated by the class of their caller
            def __init__(self, proto: Any, new_ops: Any = None, **options: Any) -> None:
                super().__init__(proto, new_ops=[GatherElements], **options)

        self.evaluator = Evaluator(model)

    def run_arrays(self, arrays: Mapping[str, np.ndarray], tier: str) -> Outputs:
        with np.errstate(all="ignore"):
            found = self.evaluator.run(list(OUTPUTS), {**arrays, "tier": np.array(TIERS.index(tier))})
        return dict(zip(OUTPUTS, [np.asarray(x) for x in found], strict=True))


def trainer(estimator: Mapping[str, Any], tree: ModelTree, tier: str) -> Outputs:
    """The trainer's own arithmetic (irene_build.train.arithmetic)."""
    from irene_build.train.arithmetic import predict

    with np.errstate(all="ignore"):  # what has no value is NaN in every engine, and compared as such
        found = predict(estimator, [Law.with_host(tree) if estimator.get("law") else tree], tier)[0]
    if found.tier != tier:
        raise ParityError(f"the trainer predicts in tier {found.tier} where the module does in tier {tier}")
    return {
        "energy": found.energy_j, "low": found.low_j, "high": found.high_j, "alpha": found.alpha,
        "leaf_energy": found.leaf_j, "flags": found.flags,
    }  # fmt: skip


def module(
    path: Path, tree_path: Path, tier: str, python: Sequence[str] = (sys.executable, "-I", "-S")
) -> Outputs:
    """``irene_estimator.py predict TREE --json`` in a separate Python without packages.

    Raises TreeError where the module refuses the tree, ParityError where it fails or takes another tier.
    """
    command = [*python, str(path), "predict", str(tree_path), "--json", "--tier", tier]
    done = run(command)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        if done.returncode == TreeError.exit_code:
            raise TreeError(last.removeprefix("irene-estimator: "))
        raise ParityError(f"{path.name} predict {tree_path.name} --tier {tier} failed: {last:.300}")
    try:
        data = json.loads(done.stdout)
    except ValueError:
        raise ParityError(f"{' '.join(python)} printed no prediction: is it a Python?") from None
    if data["tier"] != tier:
        raise ParityError(f"{path.name} predicts {tree_path.name} in tier {data['tier']} instead of {tier}")
    nodes = data["nodes"]
    return {
        "energy": np.array([n["energy_j"] for n in nodes]),
        "low": np.array([n["interval_j"][0] for n in nodes]),
        "high": np.array([n["interval_j"][1] for n in nodes]),
        "alpha": np.array([1.0 if n["alpha"] is None else n["alpha"] for n in nodes]),
        "flags": np.array([sum(_BITS[f] for f in n["flags"]) & NODE_FLAGS for n in nodes]),
    }


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command and keeps what it prints. Raises InputError where it cannot be run, ParityError where it hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except OSError as error:
        raise InputError(f"cannot run {command[0]}: {error.strerror or error}; name a Python") from None
    except subprocess.TimeoutExpired:
        raise ParityError(f"{' '.join(command[:4])} did not end within {_TIMEOUT_S} s") from None


def arrays_of(estimator: Mapping[str, Any], tree: ModelTree) -> dict[str, np.ndarray]:
    """One tree as the graph's inputs."""
    return encode(estimator, [tree])
