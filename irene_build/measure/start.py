"""Writes a new campaign's plan into its journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from irene_build.measure.journal import Journal, pack
from irene_build.measure.plan import Plan, memory_bytes


def start_journal(journal: Journal, plan: Plan, header: Mapping[str, Any]) -> None:
    """Write a new campaign's plan; all of it or nothing. ``header``: hardware, boundary, provenance, ..."""
    with journal.transaction():
        journal.create(
            {
                **header,
                "arguments": dict(plan.arguments),
                "protocol": asdict(plan.protocol),
                "budget_s": plan.budget_s,
                "notes": list(plan.notes),
                "planned_s": plan.seconds(),
                "memory_bytes": [memory_bytes(tree) for tree in plan.trees],
                "finished": False,
            }
        )
        for number, (target, tree) in enumerate(zip(plan.targets, plan.trees, strict=True)):
            journal.insert("tree", (number, json.dumps(asdict(target)), len(tree.nodes), pack(tree.dumps())))
        for number, work in enumerate(plan.works):
            journal.insert("work", (number, work.key, work.name, work.estimate_s, None))
            journal.insert("node", *((tree, node, number) for tree, node in work.places))
