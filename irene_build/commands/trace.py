"""``irene-build trace``: the model tree of an architecture, printed, saved, or compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from irene_build.console import emit_json, note, say, table
from irene_build.errors import InputError
from irene_build.files import check_writable, write_text_atomic

app = typer.Typer()

_MODEL = "A named architecture, a transformers config file or folder, ORGANISATION/NAME, or package.module:factory."


@app.command(name="trace")
def trace_command(
    model: str = typer.Argument("", help=_MODEL, show_default=False),
    batch_size: int = typer.Option(8, "--batch", "-b", help="Batch size."),
    seq_len: int = typer.Option(
        None, "--seq", "-s", help="Input tokens of one sequence (default: 128).", show_default=False
    ),
    output: Path = typer.Option(
        None, "--output", "-o", help="Write the tree to this file.", show_default=False
    ),
    phase: str = typer.Option(
        "",
        "--phase",
        help="forward (the default), prefill, decode, or extend: tokens behind cached ones. With --symbolic several, "
        "with commas (default: all that the model has of the last three, else forward).",
        show_default=False,
    ),
    past_len: int = typer.Option(
        0, "--past", help="Cached tokens in phases decode (default: --seq) and extend."
    ),
    symbolic: bool = typer.Option(False, "--symbolic", help="One tree for every size, instead of -b and -s."),
    all_logits: bool = typer.Option(
        False,
        "--all-logits",
        help="A prefill computes logits of every token, not of the last as generate does.",
    ),
    dtype: str = typer.Option(
        "", "--dtype", help="float32, float16 or bfloat16 (default: what the checkpoint says, else float32)."
    ),
    weights: str = typer.Option(
        "",
        "--weights",
        help="How matrices of Linear layers are stored: int8, int8-pure, int4, nf4, gptq, awq, fp8, fp8-block, nvfp4, "
        "mxfp4, or full (default: what the checkpoint says).",
    ),
    quantise_head: bool = typer.Option(
        False,
        "--quantise-head",
        help="With --weights: the output projection as well, which no common recipe does.",
    ),
    cache: str = typer.Option(
        "dynamic",
        "--cache",
        help="dynamic (copied as it grows, as generate does) or static (written in place).",
    ),
    images: int = typer.Option(
        None, "--images", help="Images a sequence, beside the text.", show_default=False
    ),
    image_size: str = typer.Option(
        "", "--image-size", help="Their height and width, as 448x672 or 448.", show_default=False
    ),
    attention: str = typer.Option("sdpa", "--attention", help="eager or sdpa."),
    cost_model: str = typer.Option(
        "analytic", "--cost-model", help="analytic or irene2021 (the paper's counts)."
    ),
    inputs: list[str] = typer.Option(
        [], "--inputs", help="module:function that returns inputs, or name=8x3x224x224[:dtype], repeated."
    ),
    depth: int = typer.Option(None, "--depth", help="Levels below the root to print.", show_default=False),
    sort: str = typer.Option(
        "", "--sort", help="Order siblings by flops, bytes or params.", show_default=False
    ),
    every: bool = typer.Option(False, "--all", help="Print each of equal siblings."),
    diff: tuple[str, str] = typer.Option(
        ("", ""),
        "--diff",
        help="Compare two tree files or models instead.",
        metavar="A B",
        show_default=False,
    ),
    cpu_limit: float = typer.Option(
        120.0,
        "--cpu-limit",
        help="Seconds a pass with real tensors may take, where values steer a model.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the tree (or the difference) as JSON."),
) -> None:
    """Count the work of every part of a model, without its weights."""
    from irene_build.trace import contents, render

    if sort and sort not in render.SORTS:
        raise InputError(f"--sort {sort}: expected one of {', '.join(render.SORTS)}")
    if depth is not None and depth < 0:
        raise InputError(f"--depth {depth}: expected levels from 0 on")

    if output is not None:
        if not output.parent.is_dir():
            raise InputError(f"cannot write {output}: there is no folder {output.parent}; name another place")
        check_writable(output)
    if symbolic:
        beside = [
            name
            for name, given in (
                ("--batch", batch_size != 8), ("--seq", seq_len is not None), ("--past", past_len),
                ("--inputs", inputs), ("--diff", diff[0]), ("--cost-model", cost_model != "analytic"),
                ("--images", images is not None),
                ("--image-size", image_size),
            )
            if given
        ]  # fmt: skip
        if beside:
            raise InputError(f"{', '.join(beside)}: not beside --symbolic, whose tree holds for every size")
        if not model:
            raise InputError("which model? `irene-build models` lists the named ones")
        from irene_build.commands._symbolic import trace_every_size

        phases = [name.strip() for name in phase.split(",") if name.strip()]
        options = {
            "dtype": dtype or None, "attention": attention, "weights": weights or None, "cache": cache,
            "quantise_head": quantise_head, "all_logits": all_logits,
        }  # fmt: skip
        trace_every_size(model, phases, options, output, as_json)
        return
    phase = phase or "forward"

    def tree_of(spec: str) -> Any:
        if Path(spec).is_file() and _is_tree(Path(spec)):
            from irene_runtime.tree import load

            return load(spec)
        from irene_build.trace import trace
        from irene_build.trace.shapes import parse

        return trace(
            spec,
            batch_size,
            128 if seq_len is None else seq_len,
            phase,
            past_len,
            dtype or None,
            attention,
            cost_model,
            weights or None,
            parse(inputs),
            cpu_limit,
            quantise_head=quantise_head,
            cache=cache,
            images=images,
            image_size=_size(image_size),
            all_logits=all_logits,
            cut=seq_len is None,
        )

    if diff[0]:
        _difference(tree_of(diff[0]), tree_of(diff[1]), as_json)
        return
    if not model:
        raise InputError("which model? `irene-build models` lists the named ones")
    tree = tree_of(model)
    if output is not None:
        write_text_atomic(output, tree.dumps(), parents=False)
    if as_json:
        say(tree.dumps().rstrip())
        return
    say(render.title(tree))
    header = ("node", "primitive", "FLOPs", "memory", "parameters", "kernels")
    say(table(render.rows(tree, depth, sort, collapse=not every), header))
    for message in (*contents.said(tree), render.otherwise(tree), render.fallback(tree), render.reach(tree)):
        if message:
            note(message)
    if output is not None:
        note(f"wrote {output}")


def _size(text: str) -> tuple[int, int] | None:
    """``448x672`` as (height, width), ``448`` as a square."""
    if not text:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() for side in sides):
        raise InputError(f"--image-size {text}: expected a height and a width, as 448x672, or one number")
    return int(sides[0]), int(sides[-1])


def _is_tree(path: Path) -> bool:
    """Whether a file says that it is a tree; a configuration or anything else is a model."""
    with path.open("rb") as file:
        head = file.read(4096)
    return b'"irene-tree"' in head or (b'"nodes"' in head and b'"model_type"' not in head)


def _difference(a: Any, b: Any, as_json: bool) -> None:
    from irene_build.trace import render

    found = render.difference(a, b)
    if as_json:
        emit_json(found)
        return
    say(f"a: {found['a']}\nb: {found['b']}\n")
    lines = []
    for name, entry in found["primitives"].items():
        for feature, show in (("flops", lambda v: render.amount(v * 1e6)), ("mem_bytes", render.size)):
            left, right = entry[feature]
            if left != right:
                lines.append([name, feature, show(left), show(right), _change(left, right)])
    for feature, (left, right) in found["totals"].items():
        if left != right:
            lines.append(["total", feature, f"{left:.6g}", f"{right:.6g}", _change(left, right)])
    say(
        table(lines, ("primitive", "feature", "a", "b", "change")) if lines else "no difference in the totals"
    )
    only = [
        (n["scope"], n["type"], "a" if n["b"] is None else "b")
        for n in found["nodes"]
        if None in (n["a"], n["b"])
    ]
    if only:
        say(f"\n{len(only)} nodes in one tree only; the first:")
        say(table(only[:20], ("scope", "type", "in")))


def _change(left: float, right: float) -> str:
    return f"{100 * (right - left) / left:+.1f} %" if left else "new"
