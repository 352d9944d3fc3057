"""`trace --symbolic`: every size of a model in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irene_build.console import note, say, table
from irene_build.files import write_text_atomic


def trace_every_size(
    model: str, phases: Sequence[str], options: Mapping[str, Any], output: Path | None, as_json: bool
) -> None:
    """Trace, save the file, and say which sizes it holds for. ``options``: of ``trace_symbolic``."""
    from irene_build.trace.symbolic import dumps, trace_symbolic

    tree = trace_symbolic(model, phases, **options)
    text = dumps(tree)
    if output is not None:
        write_text_atomic(output, text, parents=False)
    if as_json:
        say(text.rstrip())
        return
    kinds = ", ".join(dict.fromkeys(section.kind for section in tree.sections))
    say(f"{tree.header['model']} ({kinds}), {tree.header['dtype']}, {tree.header['attention']} attention")
    lines = [
        [
            s.phase,
            *map(str, (s.batch_size, s.seq_len, s.past_len)),
            len(tree.places(s.root)),
            len(tree.used(s.root)[0]),
        ]
        for s in tree.sections
    ]
    say(table(lines, ("phase", "batch", "tokens", "cached", "nodes", "of which differ")))
    for entry in tree.refused:
        note(
            f"refused: {entry['phase']}, batch {entry['batch_size']}, tokens {entry['seq_len']}, cached "
            f"{entry['past_len']}: {entry['why']}"
        )
    if output is not None:
        note(f"wrote {output}, {len(text.encode()) / 1000:.1f} KB")
