"""The local functions of the ONNX graph, in ONNX's own text syntax, so that they read like equations 1 and 3.

Each is written once and called by every tier; the numbers of a tier come in as arguments. Functions hold no
initializers, only Constant nodes. All reals are float64. Comments above a function become its doc_string.
"""

from __future__ import annotations

from typing import Any

from irene_build.export.functions.forest import FOREST
from irene_build.export.functions.formulas import FORMULAS
from irene_build.export.functions.intervals import INTERVALS
from irene_build.export.functions.sizes import SIZES

DOMAIN = "irene"
OPSET = 18

#: Logarithms see nothing smaller (as in `irene_runtime.equations`).
TINY = 1e-9

_FUNCTIONS = {**FORMULAS, **FOREST, **INTERVALS, **SIZES}


def local_functions(used: set[str]) -> list[Any]:
    """The FunctionProtos of the named functions and of those that they call, in the order above."""
    from onnx import parser

    wanted = set(used)
    for name, (_, text) in reversed(_FUNCTIONS.items()):
        if name in wanted:
            wanted |= {other for other in _FUNCTIONS if f"{DOMAIN}.{other}(" in text}
    out = []
    for name, (doc, text) in _FUNCTIONS.items():
        if name in wanted:
            header = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}, "{DOMAIN}": 1]>'
            function = parser.parse_function(header + text)
            function.doc_string = doc
            out.append(function)
    return out
