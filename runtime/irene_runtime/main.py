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

    about = "Predicts the energy of neural networks, node by node, on the PC that it was calibrated on."
    parser = Parser(description=about, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    predict = commands.add_parser("predict", help="joules of every node of a tree file")
    predict.add_argument("tree", metavar="TREE", help="a tree file (irene-build trace writes them)")
    form = predict.add_mutually_exclusive_group()
    for name, text in (
        ("json", "the whole prediction as JSON"),
        ("csv", "one line a node"),
        ("openmetrics", "OpenMetrics text"),
    ):
        form.add_argument("--" + name, dest="form", action="store_const", const=name, help=text)
    form.add_argument("--explain", metavar="SCOPE", help="how one node's number came about")
    predict.add_argument("--tier", choices=TIERS, help="default: the best that the tree's features allow")
    predict.add_argument("--engine", choices=("python", "onnx"), default="python", help="default: python")
    predict.add_argument("--co2", type=float, metavar="G_PER_KWH", help="grams of CO2 of one kWh")
    predict.add_argument("--depth", type=int, default=3, help="depth of the table (default 3)")
    commands.add_parser("selftest", help="evaluate the golden trees; exit code 1 where they differ")
    info = commands.add_parser("info", help="what this estimator is, and how good")
    info.add_argument("--json", action="store_true", help="as JSON")
    monitor = commands.add_parser("monitor", help="run a command and show its resource features")
    monitor.add_argument("--runs", type=int, default=1, help="forward passes that the command makes")
    monitor.add_argument("--tree", metavar="TREE", help="also predict this tree in the live tier")
    monitor.add_argument("--json", action="store_true", help="as JSON")
    monitor.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")
    return parser


def _predict(args: Any) -> str:
    est = Estimator(engine=args.engine)
    if args.co2 is not None and not 0.0 <= args.co2 < 1e6:
        raise InputError("--co2 %r: expected grams of CO2 per kWh" % args.co2)
    prediction = est.predict(load(args.tree), tier=args.tier)
    if args.explain is not None:
        return prediction.explain(args.explain)
    if args.form == "json":
        out = prediction.to_json()
        if args.co2 is not None:
            out["co2_g"] = prediction.co2_g(args.co2)
        return json.dumps(out, indent=1, allow_nan=False) + "\n"
    if args.form == "csv":
        return prediction.to_csv()
    if args.form == "openmetrics":
        return prediction.to_openmetrics()
    return prediction.table(depth=args.depth, g_per_kwh=args.co2)


def info() -> Dict[str, Any]:
    """What the estimator is, how good it was, and whether this is the PC that it was calibrated on."""
    est = Estimator()
    data = est.data
    here = machine_fingerprint()
    out = {
        "format": "irene-info",
        "version": 1,
        "exported_by": globals().get("VERSION"),
        "digest": est.digest,
    }
    out.update((k, data[k]) for k in sorted(data) if k not in ("format", "version", "tiers", "features"))
    out["tiers"] = [tier for tier in TIERS if tier in est.tiers]
    out["this_pc"] = here
    out["differs"] = differences(est.fingerprint, here) if est.fingerprint else None
    return out


def _info(args: Any) -> str:
    data = info()
    if args.json:
        return json.dumps(data, indent=1, allow_nan=False) + "\n"
    evaluation = data.pop("evaluation", None) or {}
    lines = ["SIMULATED: calibrated on simulated energy."] if data["provenance"] == "simulated" else []
    for key, value in data.items():
        if isinstance(value, dict):
            value = ["%s %s" % (k, v if not isinstance(v, list) else len(v)) for k, v in value.items()]
        lines.append("%-13s %s" % (key, ", ".join(value) if isinstance(value, list) else value))
    for tier, protocols in evaluation.items():
        for protocol, levels in protocols.items():
            errors = ["%s %.2f %%" % (k, v["mape"]) for k, v in levels.items() if "mape" in v]
            lines.append("%-13s tier %s, %s: %s" % ("mean error", tier, protocol, ", ".join(errors)))
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
            for key, got in (
                ("energy_j", n.energy_j),
                ("low_j", n.interval_j[0]),
                ("high_j", n.interval_j[1]),
            ):
                want = float.fromhex(case[key][i])
                off = abs(got - want)
                # An end is the energy times a factor, and so is its rounding error.
                factor = max(1.0, abs(want / n.energy_j)) if n.energy_j else 1.0
                same = same and off <= case["tolerance_j"][i] * factor
                count, exact = count + 1, exact + (got == want)
                largest = max(largest, (off, " (%s, %s, %s)" % (case["name"], p.tree.nodes[i].name, key)))
        good = good and same
        lines.append(
            "%-4s %s, tier %s, %d nodes" % ("ok" if same else "FAIL", case["name"], case["tier"], len(p))
        )
    where = largest[1] if largest[0] else ""
    lines.append(
        "largest deviation %r J%s; %d of %d numbers equal to the last bit" % (largest[0], where, exact, count)
    )
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
    prediction = None if tree is None else est.predict(tree, live)
    if args.json:
        data = {key: getattr(live, key) for key in ("features", "missing", "runs", "seconds", "differs")}
        data["exit_code"] = code
        if prediction is not None:
            data["prediction"] = prediction.to_json()
        return json.dumps(data, indent=1, allow_nan=False) + "\n", code
    lines = ["%-11s %.6g" % item for item in live.features.items()]
    lines += ["%-11s missing: %s" % item for item in live.missing.items()]
    if prediction is not None:
        lines += ["", prediction.table().rstrip()]
    return "\n".join(lines) + "\n", code


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
