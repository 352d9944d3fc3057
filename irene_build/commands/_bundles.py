"""What `compare` and `sweep` share: an exported bundle, and MODELs traced the way it was calibrated."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
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
    estimator: Estimator,
    model: str,
    sizes: Iterable[tuple[int, int | None]],
    phase: str,
    past_len: int,
    dtype: str,
    inputs: Any = None,
    use_cache: bool = True,
) -> Iterator[dict[str, Any]]:
    """The static prediction of MODEL at each (batch size, length), as `predict --json` prints it.

    A tree file of one size is taken as it is. A decode step without ``past_len`` comes after the length; in other
    phases there is no past. Raises InputError where the model has fewer positions.
    """
    from irene_build.commands._trees import Sizes
    from irene_build.export.samples import attention_of
    from irene_runtime.symbolic import SymbolicTree

    past_len = past_len if phase == "decode" else 0
    file = estimator.load_tree(model) if is_tree_file(Path(model)) else None
    of_model = Sizes(
        model, phase, dtype, attention_of(estimator.attention), estimator.cost_model, inputs, use_cache
    )
    for batch_size, seq_len in sizes:
        if isinstance(file, SymbolicTree):
            tree: Any = file.at(
                batch_size,
                128 if seq_len is None else seq_len,
                past_len,
                phase if phase in file.phases else None,
            )
        else:
            tree = file or of_model.at(batch_size, seq_len, past_len)
        yield estimator.predict(tree, tier="static").to_dict()


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
