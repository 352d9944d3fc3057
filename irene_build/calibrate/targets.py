"""Which models at which sizes a campaign measures: the defaults, a grid, or a plan file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build.errors import InputError

if TYPE_CHECKING:
    from irene_build.measure.plan import Target

#: Miniatures of BERT at small sizes: four widths, two depths; and two layers of BERT-base at 8 x 128, part by part.
SMALL_PLAN = (
    ("bert_uncased_L-2_H-128_A-2", "8x32", "all"),
    ("bert_uncased_L-4_H-128_A-2", "8x32", "all"),
    ("bert_uncased_L-2_H-256_A-4", "4x64", "all"),
    ("bert_uncased_L-4_H-256_A-4", "4x64", "all"),
    ("bert_uncased_L-2_H-512_A-8", "1x128", "all"),
    ("bert_uncased_L-2_H-768_A-12", "8x128", "all"),
)
SMALL_GRID = ("2x32", "8x64", "4x128", "16x32")
SMALL_MODELS = (
    "bert_uncased_L-2_H-128_A-2", "bert_uncased_L-4_H-256_A-4", "bert_uncased_L-4_H-512_A-8",
    "bert_uncased_L-2_H-768_A-12",
)  # fmt: skip
PAPER_MODELS = (
    "bert-base-uncased", "roberta-base", "distilbert-base-uncased", "gpt2", "distilgpt2", "openai-gpt",
)  # fmt: skip
PAPER_GRID = ("8x32", "8x128", "16x64", "16x256", "24x128", "32x64", "32x512")


def parse_grid(text: str) -> list[tuple[int, int]]:
    """``8x32,16x64`` as (batch size, sequence length) pairs."""
    cells = [cell.strip() for cell in text.split(",") if cell.strip()]
    if not cells:
        raise InputError("the grid is empty: write batch x length pairs, as in --grid 8x32,16x64")
    found = []
    for cell in cells:
        match = re.fullmatch(r"(\d{1,7})[xX×](\d{1,7})", cell)
        if not match or not int(match[1]) or not int(match[2]):
            raise InputError(f"grid {cell!r}: write batch x length, both at least 1, as in --grid 8x32,16x64")
        found.append((int(match[1]), int(match[2])))
    return found


def read_plan_file(path: Path) -> list[Target]:
    """Targets of a TOML file: ``[[target]]`` tables with model, grid and any other field of ``Target``."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    from irene_build.measure.plan import Target

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"plan {path}: {error}") from None
    tables = data.get("target")
    if not isinstance(tables, list) or not tables:
        raise InputError(f"plan {path}: expected [[target]] tables with model = ... and grid = ...")
    known = {"model", "phase", "past_len", "dtype", "attention", "parts"}
    targets = []
    for number, table in enumerate(tables, 1):
        unknown = sorted(set(table) - known - {"grid"})
        if unknown or not isinstance(table.get("model"), str) or not isinstance(table.get("grid"), str):
            what = f"unknown {', '.join(unknown)}" if unknown else "model and grid must be text"
            raise InputError(
                f"plan {path}, target {number}: {what}; known are grid, {', '.join(sorted(known))}"
            )
        fields = {key: table[key] for key in known if key in table}
        targets += [Target(batch_size=b, seq_len=s, **fields) for b, s in parse_grid(table["grid"])]
    return targets


def default_targets(device: str, budget_s: float | None, models: Sequence[str], grid: str) -> list[Target]:
    """Targets where none, or only models or only a grid, were named."""
    from irene_build.measure.plan import Target

    gpu = device != "cpu"
    if models or grid:
        chosen = list(models) or list(PAPER_MODELS if gpu else SMALL_MODELS)
        sizes = parse_grid(grid or ",".join(PAPER_GRID if gpu else SMALL_GRID))
        return [Target(model, b, s) for model in chosen for b, s in sizes]
    if gpu:
        return [Target(m, b, s) for m in PAPER_MODELS for b, s in parse_grid(",".join(PAPER_GRID))]
    targets = [Target(m, *parse_grid(size)[0], parts=parts) for m, size, parts in SMALL_PLAN]
    if budget_s is None or budget_s > 600.0:
        targets += [Target(m, b, s) for m in SMALL_MODELS for b, s in parse_grid(",".join(SMALL_GRID))]
    return targets


def trace_target(target: Target) -> tuple[Any, list[str | None]]:
    """The tree of a target and the work keys of its nodes."""
    from irene_build.trace import trace
    from irene_build.trace.keys import work_keys

    tree = trace(**trace_arguments(target))
    return tree, list(work_keys(tree))


def trace_arguments(target: Target) -> dict[str, Any]:
    """The arguments of ``irene_build.trace`` for a target."""
    fields = asdict(target)
    fields.pop("parts")
    return fields


def check_models(targets: Sequence[Target]) -> None:
    """Raises InputError or ModelError for the first model that cannot be found; nothing is traced."""
    from irene_build.models import resolve

    for model in dict.fromkeys(target.model for target in targets):
        resolve(model)
