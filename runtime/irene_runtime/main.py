"""The command line of an exported estimator: ``python -I -S irene_estimator.py predict tree.json``."""

import json
import os
import sys
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from .equations import FLAGS
from .errors import EstimatorError, InputError, IreneError
from .model import TIERS, Estimator
from .monitor import differences, machine_fingerprint
from .prediction import Prediction
from .tree import ModelTree, from_json, load


def _parser() -> Any:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise InputError("%s (see %s --help)" % (message, self.prog))

    parser = Parser(description="Energy of neural networks, node by node, on the PC calibrated for.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    predict = commands.add_parser("predict", help="joules of every node of a tree file")
    add = predict.add_argument
    add("tree", metavar="TREE", help="a tree file (irene-build trace writes them)")
    for form in ("json", "csv", "openmetrics"):
        add("--" + form, action="store_true", help="print %s instead of the table" % form)
    add("--explain", metavar="SCOPE", help="how one node's number came about")
    add("--tier", choices=TIERS, help="default: the best that the tree's features allow")
    add("--engine", choices=("python", "onnx"), default="python", help="default: python")
    add("--co2", type=float, metavar="G_PER_KWH", help="grams of CO2 of one kWh")
    add("--depth", type=int, default=3, help="depth of the table (default 3)")
    commands.add_parser("selftest", help="evaluate the golden trees; exit code 1 where they differ")
    about = commands.add_parser("info", help="what this estimator is, and how good")
    watch = commands.add_parser("monitor", help="run a command and show its resource features")
    watch.add_argument("--runs", type=int, default=1, help="forward passes that the command makes")
    watch.add_argument("--tree", metavar="TREE", help="also predict this tree in the live tier")
    for command in (about, watch):
        command.add_argument("--json", action="store_true", help="as JSON")
    watch.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")
    return parser


def _dumps(data: Any) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _predict(args: Any) -> str:
    if args.json + args.csv + args.openmetrics + (args.explain is not None) > 1:
        raise InputError("--json, --csv, --openmetrics and --explain: one at a time")
    if args.co2 is not None and not 0.0 <= args.co2 < 1e6:
        raise InputError("--co2 %r: expected grams of CO2 per kWh" % args.co2)
    p = Estimator(engine=args.engine).predict(load(args.tree), tier=args.tier)
    if args.explain is not None:
        return p.explain(args.explain)
    if args.json:
        return _dumps(p.to_json() if args.co2 is None else dict(p.to_json(), co2_g=p.co2_g(args.co2)))
    if args.csv or args.openmetrics:
        return p.to_csv() if args.csv else p.to_openmetrics()
    return p.table(depth=args.depth, g_per_kwh=args.co2)


def info() -> Dict[str, Any]:
    """What the estimator is, how good it was, and whether this is the PC that it was calibrated on."""
    est = Estimator()
    here = machine_fingerprint()
    out: Dict[str, Any] = {"format": "irene-info", "version": 1, "exported_by": globals().get("VERSION")}
    out.update((k, v) for k, v in sorted(est.data.items()) if k not in ("format", "version", "features"))
    out.update(digest=est.digest, tiers=list(est.tiers), this_pc=here)
    out["differs"] = differences(est.fingerprint, here) if est.fingerprint else None
    return out


def _info(args: Any) -> str:
    data = info()
    if args.json:
        return _dumps(data)
    lines = ["SIMULATED: calibrated on simulated energy."] if data["provenance"] == "simulated" else []
    for tier, protocols in (data.pop("evaluation") or {}).items():
        for protocol, levels in protocols.items():
            errors = ["%s %.2f %%" % (k, v["mape"]) for k, v in levels.items() if "mape" in v]
            data["error, " + tier] = "%s: %s" % (protocol, ", ".join(errors))
    for key, value in data.items():
        if isinstance(value, dict):
            value = ["%s %s" % (k, len(v) if isinstance(v, list) else v) for k, v in value.items()]
        lines.append("%-14s %s" % (key, ", ".join(value) if isinstance(value, list) else value))
    return "\n".join(lines) + "\n"


def golden_tree(golden: Mapping[str, Any], times: float) -> ModelTree:
    """The tree of GOLDEN; every other feature ``times`` the middle of what was calibrated, the rest a part of it."""
    nodes = []
    for index, line in enumerate(golden["nodes"]):
        parent, level, primitive, *pairs = line.split()
        features: Dict[str, float] = {}
        for name, _, value in (pair.partition("=") for pair in pairs):
            features[name] = float(value) * times if len(features) % 2 else float(value) / times
        nodes.append({
            "scope": str(index), "type": primitive, "level": level, "parent": int(parent), "features": features,
            "primitive": None if primitive == "-" else primitive,
        })  # fmt: skip
    return from_json(dict(golden["header"], format="irene-tree", version=1, model="golden", nodes=nodes))


def _off(case: Dict[str, Any], p: Prediction) -> Iterator[Tuple[float, float, str]]:
    """For every number of a golden case: how far it is off, how far it may be, and what it is."""
    allowed = [float(text) for text in case["tolerance_j"].split()]
    for n, text, may in zip(p, case["energy_j"].split(), allowed):
        yield abs(n.energy_j - float.fromhex(text)), may, "energy of node %d" % n.index
    for end, key in enumerate(("sum_low_j", "sum_high_j")):
        total = bound = 0.0
        for n, may in zip(p, allowed):
            total = total + n.interval_j[end]
            # An end is the energy times a factor, and so is its rounding error.
            bound += may * (max(1.0, abs(n.interval_j[end] / n.energy_j)) if n.energy_j else 1.0)
        yield abs(total - float.fromhex(case[key])), bound, key


def selftest() -> Tuple[str, bool]:
    """Evaluates the golden tree; the report, and whether every number lies within its tolerance."""
    golden = globals().get("GOLDEN")
    if not golden:
        raise EstimatorError("no golden tree here: use a module that `irene-build export` wrote")
    est = Estimator()
    lines, good, largest, exact, count = [], True, (0.0, ""), 0, 0
    for case in golden["cases"]:
        p = est.predict(golden_tree(golden, case["times"]), tier=case["tier"])
        flags = "".join("%x" % sum(bit for bit, name in FLAGS.items() if name in n.flags) for n in p)
        same = p.tier == case["tier"] and flags == case["flags"]
        same = same and len(p) == len(case["energy_j"].split()) == len(case["tolerance_j"].split())
        for off, may, what in _off(case, p):
            same = same and off <= may
            count, exact = count + 1, exact + (off == 0.0)
            largest = max(largest, (off, " (%s, tier %s, %s)" % (case["name"], case["tier"], what)))
        good = good and same
        verdict = "ok" if same else "FAIL"
        lines.append("%-4s %s, tier %s, %d nodes" % (verdict, case["name"], case["tier"], len(p)))
    lines.append("largest deviation %r J%s" % (largest[0], largest[1] if largest[0] else ""))
    lines.append("%d of %d numbers equal to the last bit" % (exact, count))
    if est.simulated:
        lines.append("SIMULATED: calibrated on simulated energy.")
    return "\n".join(lines) + "\n", good


def _monitor(args: Any) -> Tuple[str, int]:
    import subprocess

    command = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not command:
        raise InputError("monitor: give the command after `--`")
    est = Estimator()
    tree = load(args.tree) if args.tree else None
    try:
        with est.monitor(runs=args.runs) as live:
            code = subprocess.call(command)
    except OSError as error:
        raise InputError("cannot run %s: %s" % (command[0], error.strerror or error)) from None
    p = None if tree is None else est.predict(tree, live)
    if args.json:
        data = {key: getattr(live, key) for key in ("features", "missing", "runs", "seconds", "differs")}
        return _dumps(dict(data, exit_code=code, prediction=p and p.to_json())), code
    lines = ["%-11s %.6g" % item for item in live.features.items()]
    lines += ["%-11s missing: %s" % item for item in live.missing.items()]
    return "\n".join(lines) + "\n" + ("\n" + p.table() if p else ""), code


def main(argv: Optional[List[str]] = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong input; ``monitor``: the code of its command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        parser, code = _parser(), 0
        args = parser.parse_args(argv)
        if args.command == "predict":
            text = _predict(args)
        elif args.command == "info":
            text = _info(args)
        elif args.command == "selftest":
            text, good = selftest()
            code = 0 if good else 1
        elif args.command == "monitor":
            text, code = _monitor(args)
        else:
            text, code = parser.format_help(), 2
        sys.stdout.write(text)
        sys.stdout.flush()
        return code
    except IreneError as error:
        sys.stderr.write("irene-estimator: %s\n" % error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
