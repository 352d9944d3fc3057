"""The command line of an exported estimator: ``python -I -S irene_estimator.py predict tree.json``."""

import json
import os
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .equations import FLAGS
from .errors import EstimatorError, InputError, IreneError
from .features import FEATURES
from .model import TIERS, Estimator
from .monitor import differences, machine_fingerprint
from .prediction import printable
from .serve import serve_command
from .symbolic import SymbolicTree, load_any
from .tree import LEVELS, ModelTree, from_json, load


def _parser() -> Any:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise InputError("%s (see %s --help)" % (message, self.prog))

    data, digest = globals().get("ESTIMATOR") or {}, globals().get("DIGEST", "")
    parser = Parser(
        description="Joules of every part of a neural network on the PC %s." % data.get("hardware", "?")
    )
    version = "irene-build %s, estimator %.12s" % (globals().get("VERSION"), digest)
    parser.add_argument("--version", action="version", version=version)
    parser.set_defaults(run=lambda args: (parser.format_help(), 2))
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> Any:
        made = commands.add_parser(name, help=text)
        made.set_defaults(run=run)
        return made.add_argument

    add = command("predict", _predict, "joules of every node of a tree file")
    add("tree", metavar="TREE", help="a tree file (irene-build trace writes them)")
    for form in ("json", "csv", "openmetrics"):
        add("--" + form, action="store_true", help="print %s instead of the table" % form)
    for name, text in (
        ("--batch", "batch size of a symbolic tree (default 1)"), ("--seq", "input tokens of one sequence"),
        ("--past", "cached tokens"), ("--prompt", "predict a request: tokens of its prompt"),
        ("--new", "new tokens of a request (default 256)"),
    ):  # fmt: skip
        add(name, type=int, help=text)
    add("--phase", help="phase of a symbolic tree (default: decode behind cached tokens, else the first)")
    add("--explain", metavar="SCOPE", help="how one node's number came about")
    add("--tier", choices=TIERS, help="default: the best that the tree's features allow")
    add("--backend", choices=("python", "onnx"), default="python", help="default: python")
    add("--co2", type=float, metavar="G_PER_KWH", help="grams of CO2 of one kWh")
    add("--depth", type=int, default=3, help="depth of the table (default 3)")
    command("selftest", _selftest, "evaluate the golden tree; exit code 1 where a number differs")
    add = command("info", _info, "what this estimator is, and how good")
    add("--json", action="store_true", help="as JSON")
    add = command("monitor", _monitor, "run a command and show its resource features")
    add("--json", action="store_true", help="as JSON")
    add("--runs", type=int, default=1, help="forward passes that the command makes")
    add("--tree", metavar="TREE", help="also predict this tree in the live tier")
    add("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")
    add = command("serve", _serve, "joules of a running vLLM or SGLang server, as OpenMetrics")
    add(
        "--metrics", metavar="URL", required=True, help="the server's metrics (http://127.0.0.1:8000/metrics)"
    )
    add("--tree", metavar="TREE", required=True, help="the symbolic tree of the model that it serves")
    add(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:9476",
        help="where to answer (default 127.0.0.1:9476)",
    )
    add("--interval", type=float, default=5.0, help="seconds between two scrapes (default 5)")
    add("--model", default="", help="of several that the server serves the one meant")
    add("--context", type=int, default=512, help="cached tokens where the server says nothing of its cache")
    add("--gpu", default="all", help="whose draw is measured: all, cuda:N, an NVML index or a UUID")
    add("--once", action="store_true", help="one interval, printed; then end")
    return parser


def _dumps(data: Any) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _predict(args: Any) -> Tuple[str, int]:
    if args.json + args.csv + args.openmetrics + (args.explain is not None) > 1:
        raise InputError("--json, --csv, --openmetrics and --explain: one at a time")
    if args.co2 is not None and not 0.0 <= args.co2 < 1e6:
        raise InputError("--co2 %r: expected grams of CO2 per kWh" % args.co2)
    if args.depth < 0:
        raise InputError("--depth %d: expected 0 (the model alone) or more" % args.depth)
    if args.prompt is not None or args.new is not None:
        return _request(args)
    tree, size = load_any(args.tree), (args.batch, args.seq, args.past or 0, args.phase)
    if isinstance(tree, SymbolicTree) and args.batch is None:
        size = (1,) + size[1:]
    p = Estimator(backend=args.backend).predict(tree, None, args.tier, *size)
    if args.json:
        return _dumps(p.to_dict() if args.co2 is None else dict(p.to_dict(), co2_g=p.co2_g(args.co2))), 0
    if args.csv or args.openmetrics:
        return p.to_csv() if args.csv else p.to_openmetrics(), 0
    if args.explain is not None:
        return p.explain(args.explain), 0
    return p.table(depth=args.depth, g_per_kwh=args.co2), 0


def _request(args: Any) -> Tuple[str, int]:
    """A request of a symbolic tree, as table or JSON."""
    others = ("csv", "openmetrics", "explain", "tier", "seq", "past", "phase")
    given = ["--" + name for name in others if getattr(args, name)]
    if given:
        raise InputError("%s: not beside --prompt and --new" % ", ".join(given))
    size = [
        default if given is None else given
        for given, default in ((args.prompt, 512), (args.new, 256), (args.batch, 1))
    ]
    found = Estimator(backend=args.backend).request(load_any(args.tree), *size)  # type: ignore[arg-type]
    return _dumps(found.to_json()) if args.json else found.table(args.depth), 0


def info() -> Dict[str, Any]:
    """What the estimator is, how good it was, and whether this is the PC that it was calibrated on."""
    est = Estimator()
    here = machine_fingerprint()
    out: Dict[str, Any] = {"format": "irene-info", "version": 1, "exported_by": globals().get("VERSION")}
    out.update((k, v) for k, v in sorted(est.data.items()) if k not in ("format", "version", "features"))
    out.update(digest=est.digest, tiers=list(est.tiers), this_pc=here)
    out["differs"] = differences(est.fingerprint, here) if est.fingerprint else None
    return out


def _info(args: Any) -> Tuple[str, int]:
    from textwrap import wrap

    data = info()
    if args.json:
        return _dumps(data), 0
    lines = ["SIMULATED: calibrated on simulated energy."] if data["provenance"] == "simulated" else []
    if data["provenance"] == "datasheet":
        lines = ["DATASHEET: nothing was measured."]
    del data["format"], data["version"]
    if data["differs"] == "":
        data["differs"] = "no"
    for tier, protocols in (data.pop("evaluation") or {}).items():
        for protocol, levels in protocols.items():
            errors = ["%s %.2f %%" % (k, levels[k]["mape"]) for k in LEVELS if "mape" in levels.get(k, ())]
            data.setdefault("error, " + tier, []).append("%s: %s" % (protocol, ", ".join(errors)))
    for name, number in sorted(((data.pop("law", None) or {}).get("numbers") or {}).items()):
        what = number.get("meaning"), number.get("source"), number.get("prior")
        data["law, " + name] = "%g %s (%s; %s, prior %g)" % ((number["value"], number.get("unit")) + what)
    for key, value in data.items():
        if isinstance(value, dict):
            value = ["%s %s" % (k, len(v) if isinstance(v, list) else v) for k, v in value.items()]
        text = ", ".join(value) if isinstance(value, list) else str("" if value is None else value)
        lines += wrap("%-14s %s" % (key, text or "not known"), 100, subsequent_indent=15 * " ")
    return "\n".join(lines) + "\n", 0


def golden_tree(golden: Mapping[str, Any], times: float) -> ModelTree:
    """The tree of GOLDEN; every other feature ``times`` the middle of what was calibrated, the rest a part of it."""
    nodes = []
    for index, line in enumerate(golden["nodes"]):
        node = dict(line, scope=str(index), type=line.get("primitive", "-"), features={})
        for number, name in enumerate(n for n in FEATURES if n in line):
            node["features"][name] = line[name] * times if number % 2 else line[name] / times
        nodes.append(node)
    return from_json(dict(golden["header"], format="irene-tree", version=1, model="golden", nodes=nodes))


def selftest() -> Tuple[str, bool]:
    """Evaluates the golden tree; the report, and whether every number lies within its tolerance."""
    golden = globals().get("GOLDEN")
    if not golden:
        raise EstimatorError("no golden tree here: use a module that `irene-build export` wrote")
    est = Estimator()
    lines, good, found = [], True, []
    for case in golden["cases"]:
        label = "%s, tier %s" % (case["name"], case["tier"])
        p = est.predict(golden_tree(golden, case["times"]), tier=case["tier"])
        texts = case["energy_j"].split() + [case["sum_low_j"], case["sum_high_j"]]
        want = [float.fromhex(text) for text in texts]
        allowed = [float(text) for text in case["tolerance_j"].split()]
        got = [n.energy_j for n in p]
        for end in (0, 1):
            total = bound = 0.0
            for n, may in zip(p, allowed):
                total = total + n.interval_j[end]
                # An end is the energy times a factor, and so is its rounding error.
                bound += may * (max(1.0, abs(n.interval_j[end] / n.energy_j)) if n.energy_j else 1.0)
            got.append(total)
            allowed.append(bound)
        flags = "".join("%x" % sum(bit for bit, name in FLAGS.items() if name in n.flags) for n in p)
        off = [abs(a - b) for a, b in zip(got, want)]
        same = p.tier == case["tier"] and flags == case["flags"] and len(got) == len(want) == len(allowed)
        same = same and all(o <= may for o, may in zip(off, allowed))
        found += [(o, " (%s, number %d)" % (label, i)) for i, o in enumerate(off)]
        good = good and same
        lines.append("%-4s %s, %d nodes" % ("ok" if same else "FAIL", label, len(p)))
    largest, where = max(found)
    exact = [off for off, _ in found].count(0.0)
    lines.append("largest deviation %r J%s" % (largest, where if largest else ""))
    lines.append("%d of %d numbers equal to the last bit" % (exact, len(found)))
    if est.simulated:
        lines.append("SIMULATED: calibrated on simulated energy.")
    return "\n".join(lines) + "\n", good


def _serve(args: Any) -> Tuple[str, int]:
    est = Estimator()

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return "", serve_command(args, est, est.load_tree(args.tree), say)


def _selftest(args: Any) -> Tuple[str, int]:
    text, good = selftest()
    return text, 0 if good else 1


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
            code = code if code >= 0 else 128 - code  # killed by a signal: as a shell says it
    except OSError as error:
        raise InputError("cannot run %s: %s" % (command[0], error.strerror or error)) from None
    p = None if tree is None else est.predict(tree, live)
    if args.json:
        data = {
            key: getattr(live, key)
            for key in ("features", "missing", "runs", "seconds", "differs", "cpu_source")
        }
        return _dumps(dict(data, exit_code=code, prediction=p and p.to_dict())), code
    lines = ["%-11s %.6g %s" % (name, value, FEATURES[name][1]) for name, value in live.features.items()]
    if live.cpu_source == "container" and "cpu_util" in live.features:
        lines.append("cpu_util is this container's, of all CPUs of the host")
    reasons: Dict[str, List[str]] = {}
    for name, reason in live.missing.items():
        reasons.setdefault(reason, []).append(name)
    lines += ["missing: %s: %s" % (", ".join(names), reason) for reason, names in reasons.items()]
    return "\n".join(lines) + "\n" + ("\n" + p.table() if p else ""), code


def _written(text: str) -> bool:
    """Whether the text got out: not into a pipe that was closed, nor onto a full disk, which is told."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
        return True
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is not tried again at the end
        if not isinstance(error, BrokenPipeError) and sys.stderr is not None:
            sys.stderr.write("irene-estimator: cannot write the output: %s\n" % (error.strerror or error))
        return False


def main(argv: Optional[List[str]] = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong input; ``monitor``: the code of its command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        args = _parser().parse_args(argv)
        text, code = args.run(args)
        return int(code) if _written(text) else 1
    except IreneError as error:
        if sys.stderr is not None:
            sys.stderr.write("irene-estimator: %s\n" % printable(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
