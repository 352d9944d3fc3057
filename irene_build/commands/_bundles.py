"""What `compare` and `sweep` share: an exported bundle, and MODELs traced the way it was calibrated."""

from __future__ import annotations

import fnmatch
import importlib.util
from pathlib import Path
from typing import Any

from irene_build.errors import EstimatorError, InputError


class Bundle:
    """The estimator of a folder that `irene-build export` wrote; predictions come from its own module.

    Raises EstimatorError where the folder holds none.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "irene_estimator.py"
        if not path.is_file():
            raise EstimatorError(
                f"{folder} holds no irene_estimator.py: `irene-build export {folder}` writes one"
            )
        spec = importlib.util.spec_from_file_location("irene_estimator", path)
        assert spec is not None and spec.loader is not None
        self._module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(self._module)
            self._estimator = self._module.Estimator()
        except (AttributeError, SyntaxError, ImportError) as error:
            raise EstimatorError(f"{path} is not an exported estimator ({error}); export it again") from None
        except Exception as error:
            if type(error).__name__ != "EstimatorError":
                raise
            # The module has error classes of its own.
            raise EstimatorError(f"{path}: {error}") from None
        self.cost_model = str(self._estimator.cost_model)
        self.attention = str(self._estimator.attention)

    def predict(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The prediction of a decoded tree file in the static tier, as `predict --json` prints it."""
        try:
            data: dict[str, Any] = self._estimator.predict(
                self._module.from_json(tree), tier="static"
            ).to_json()
        except Exception as error:
            if type(error).__name__ not in ("TreeError", "InputError", "EstimatorError"):
                raise
            raise InputError(f"{tree.get('model') or 'the tree'}: {error}") from None
        return data


def expand(names: list[str]) -> list[str]:
    """MODEL arguments, with patterns (``bert_uncased_*``) replaced by the named architectures that match."""
    from irene_build.models import architectures

    out: list[str] = []
    for name in names:
        if any(sign in name for sign in "*?[") and not Path(name).exists():
            found = fnmatch.filter(architectures(), name.removeprefix("google/"))
            if not found:
                raise InputError(f"no named model matches {name!r}: `irene-build models` lists them")
            out += found
        else:
            out.append(name)
    return list(dict.fromkeys(out))


def tree_of(
    model: str, bundle: Bundle, batch_size: int, seq_len: int, phase: str, past_len: int
) -> dict[str, Any]:
    """MODEL traced at one size under the bundle's cost model; a tree file is read as it is."""
    from irene_runtime.tree import load

    path = Path(model)
    if is_tree_file(path):
        tree = load(str(path))
        return tree.to_json()
    from irene_build.trace import trace

    return trace(
        model, batch_size, seq_len, phase=phase, past_len=past_len,
        attention=bundle.attention, cost_model=bundle.cost_model,
    ).to_json()  # fmt: skip


def is_tree_file(path: Path) -> bool:
    """Whether a JSON file is a tree and not a transformers configuration."""
    try:
        with path.open(encoding="utf-8") as file:
            return '"irene-tree"' in file.read(200)
    except (OSError, UnicodeDecodeError):
        return False


def whole_numbers(text: str, option: str) -> list[int]:
    """``1,2,4`` as numbers; InputError that names the option."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise InputError(f"{option} {text!r}: expected whole numbers above 0, such as 1,2,4")
    return sorted(set(numbers))


def accuracies_for(models: list[str], given: dict[str, float]) -> dict[str, float]:
    """The accuracies under the names that the models have here (with or without ``google/``)."""
    plain = {name.removeprefix("google/"): value for name, value in given.items()}
    return {model: plain[key] for model in models if (key := model.removeprefix("google/")) in plain}
