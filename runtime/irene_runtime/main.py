"""The command line of an exported estimator: ``python -I -S irene_estimator.py predict tree.json``."""

import json
import os
import sys
from typing import Any, Dict, List, Optional, Tuple

from .equations import FLAGS
from .errors import EstimatorError, InputError, IreneError
from .model import TIERS, Estimator
from .monitor import differences, machine_fingerprint
from .tree import from_json, load


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


def selftest() -> Tuple[str, bool]:
    """Evaluates the golden trees; the report, and whether every number lies within its tolerance."""
    golden = globals().get("GOLDEN")
    if not golden:
        raise EstimatorError("no golden trees here: use a module that `irene-build export` wrote")
    est = Estimator()
    lines, good, largest, exact, count = [], True, (0.0, ""), 0, 0
    for case in golden:
        p = est.predict(from_json(case["tree"]), tier=case["tier"])
        same = p.tier == case["tier"] and len(p) == len(case["energy_j"])
        for i, n in enumerate(p.nodes if same else ()):
            same = same and case["flags"][i] == sum(bit for bit, name in FLAGS.items() if name in n.flags)
            for key, got in zip(("energy_j", "low_j", "high_j"), (n.energy_j,) + n.interval_j):
                want = float.fromhex(case[key][i])
                off = abs(got - want)
                # An end is the energy times a factor, and so is its rounding error.
                factor = max(1.0, abs(want / n.energy_j)) if n.energy_j else 1.0
                same = same and off <= case["tolerance_j"][i] * factor
                count, exact = count + 1, exact + (got == want)
                largest = max(largest, (off, " (%s, %s, %s)" % (case["name"], p.tree.nodes[i].name, key)))
        good = good and same
        verdict = "ok" if same else "FAIL"
        lines.append("%-4s %s, tier %s, %d nodes" % (verdict, case["name"], case["tier"], len(p)))
    off, where = largest
    lines.append("largest deviation %r J%s" % (off, where if off else ""))
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
