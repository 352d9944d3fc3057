"""`predict --prompt N --new N`: what a request costs, printed, as JSON, or as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build import console
from irene_build.errors import InputError
from irene_runtime.symbolic import SymbolicTree

if TYPE_CHECKING:
    from irene_runtime.model import Estimator
    from irene_runtime.request_prediction import RequestPrediction

#: New tokens of a request where only its prompt is given, and the other way round.
DEFAULT_NEW, DEFAULT_PROMPT = 256, 512


def speculation(text: str) -> tuple[int, float] | None:
    """``4,0.7`` as guesses a check and the share of them that is accepted. Raises InputError."""
    if not text:
        return None
    parts = text.split(",")
    try:
        return int(parts[0]), float(parts[1])
    except (ValueError, IndexError):
        raise InputError(
            f"--speculative {text}: expected guesses and the share that is accepted, such as 4,0.7"
        ) from None


def request(
    estimator: Estimator,
    what: str,
    file: Path | None,
    options: dict[str, Any],
    dtype: str,
    attention: str,
    use_cache: bool,
) -> tuple[SymbolicTree, RequestPrediction]:
    """The prediction of a request of MODEL, or of a file's symbolic tree. ``options``: of ``Estimator.request``."""
    from irene_build.commands import _trees

    if file is not None:
        tree = estimator.load_tree(str(file))
        if not isinstance(tree, SymbolicTree):
            raise InputError(
                f"{what} is a tree of one size: a request needs `irene-build trace MODEL --symbolic -o FILE`"
            )
    else:
        several = bool(options.get("shared_prefix") or options.get("speculative"))
        tree = _trees.generating(what, several, dtype, attention, use_cache)
    return tree, estimator.request(tree, **options)


def shown(
    estimator: Estimator,
    tree: SymbolicTree,
    found: RequestPrediction,
    depth: int,
    html: Path | None,
    as_json: bool,
    co2: float | None,
) -> None:
    """Print a request, and write its page."""
    data = found.to_json()
    if co2 is not None:
        data["co2_g"] = found.energy_j / 3.6e6 * co2
    if html is not None:
        from irene_build.files import write_text_atomic
        from irene_build.report.requests import page

        write_text_atomic(html, page(estimator, tree, found), parents=False)
        console.note(f"wrote {html}")
    if as_json:
        console.emit_json(data)
        return
    text = found.table(depth=depth).rstrip("\n")
    if co2 is not None:
        text += f"\n\n{data['co2_g']:.4g} g CO2"
    console.say(text)
