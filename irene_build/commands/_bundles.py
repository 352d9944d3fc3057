"""What `compare` and `sweep` share: an exported bundle, and MODELs traced the way it was calibrated."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build.errors import InputError

if TYPE_CHECKING:
    from irene_runtime.model import Estimator


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


def predicted(
    estimator: Estimator, model: str, batch_size: int, seq_len: int, phase: str, past_len: int, dtype: str
) -> dict[str, Any]:
    """The static prediction of MODEL at one size, as `predict --json` prints it; a tree file is taken as is.

    A decode step without ``past_len`` comes after ``seq_len`` tokens; in other phases there is no past.
    """
    if is_tree_file(Path(model)):
        tree = estimator.load_tree(model)
    else:
        from irene_build.export.samples import attention_of
        from irene_build.trace import trace

        tree = trace(
            model, batch_size, seq_len, phase=phase, dtype=dtype,
            past_len=past_len if phase == "decode" else 0, attention=attention_of(estimator.attention),
            cost_model=estimator.cost_model,
        )  # fmt: skip
    return estimator.predict(tree, tier="static").to_dict()


def is_tree_file(path: Path) -> bool:
    """Whether this is a tree file, and not a transformers configuration or no file at all."""
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


def accuracies_for(models: Iterable[str], given: dict[str, float]) -> dict[str, float]:
    """The accuracies under the names that the models have here (with or without ``google/``)."""
    plain = {name.removeprefix("google/"): value for name, value in given.items()}
    return {model: plain[key] for model in models if (key := model.removeprefix("google/")) in plain}
