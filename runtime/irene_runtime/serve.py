"""``serve``: joules of a running server, attributed to its own counters of tokens, as OpenMetrics for Prometheus.

Between two scrapes a server generated G tokens in n steps and read P tokens of prompts. The steps are n decode passes
of G / n sequences (n by its histogram of steps, else G over the running requests) after the mean number of cached
tokens; the prompts are passes of their mean length, one by one, without tokens found in the prefix cache. Nothing is
charged between passes: ``irene_measured_watts`` shows what idling takes.
"""

import math
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from .errors import HardwareError, InputError, RunError, TreeError
from .gpu import find_gpu
from .prediction import printable
from .serve_metrics import ServerReading, server_reading

#: Seconds that an average of drift looks back.
DRIFT_S = 300.0
#: Cached tokens of a step where the server says nothing of its cache.
CONTEXT = 512
_LARGEST = 1 << 26  #: bytes of a scrape


class Passes:
    """Joules of prefill and decode passes of one symbolic tree, between whole batch sizes on a line."""

    def __init__(self, estimator: Any, tree: Any) -> None:
        if not hasattr(tree, "at"):
            raise InputError("serve wants a symbolic tree (`irene-build trace MODEL --symbolic -o FILE`)")
        self._estimator, self._tree = estimator, tree
        self._known: Dict[Any, Tuple[float, float, float]] = {}

    def prefill(self, prompt: float) -> Tuple[float, float, float]:
        """Energy and ends of its interval, of one prompt of this mean length."""
        return self._between(prompt, lambda tokens: self._one("prefill", 1, tokens))

    def decode(self, batch: float, past: float) -> Tuple[float, float, float]:
        """The same of one step of so many sequences, each after so many cached tokens."""
        return self._between(batch, lambda size: self._one("decode", size, max(1, int(round(past)))))

    @staticmethod
    def _between(x: float, at: Callable[[int], Tuple[float, float, float]]) -> Tuple[float, float, float]:
        low = max(1, int(math.floor(x)))
        part = min(1.0, max(0.0, x - low))
        first = at(low)
        if part == 0.0:
            return first
        second = at(low + 1)
        mixed = [(1.0 - part) * a + part * b for a, b in zip(first, second)]
        return mixed[0], mixed[1], mixed[2]

    def _one(self, phase: str, batch: int, tokens: int) -> Tuple[float, float, float]:
        key = (phase, batch, tokens)
        if key not in self._known:
            if len(self._known) > 4096:
                self._known.clear()
            length, past = (tokens, 0) if phase == "prefill" else (1, tokens)
            tree = self._tree.at(batch_size=batch, seq_len=length, past_len=past, phase=phase)
            p = self._estimator.predict(tree, tier="static")
            self._known[key] = (p.energy_j, p.interval_j[0], p.interval_j[1])
        return self._known[key]


class Ledger:
    """The sums that are exported. ``passes``: a ``Passes``; ``watts``: measured now, None where there is no NVML."""

    def __init__(
        self,
        passes: Any,
        about: Dict[str, str],
        context: int = CONTEXT,
        watts: Optional[Callable[[], Optional[float]]] = None,
    ) -> None:
        self._passes, self._about, self._context, self._watts = passes, about, context, watts
        self._lock = threading.Lock()
        self._before: Optional[ServerReading] = None
        self._joules = {phase: [0.0, 0.0, 0.0] for phase in ("prefill", "decode")}
        self._tokens = {"prefill": 0.0, "decode": 0.0}
        self._gauges: Dict[str, float] = {}
        self._missing: Dict[str, str] = {}
        self._problem = "not scraped yet"
        self._scrapes = self._failures = self._measured_j = 0.0
        self._recent = [0.0, 0.0]  # measured and predicted joules, fading

    def failed(self, reason: str) -> None:
        """A scrape that did not work; the sums stay."""
        with self._lock:
            self._failures = self._failures + 1.0
            self._problem, self._before = reason, None

    def take(self, reading: ServerReading) -> None:
        """Attribute what happened since the last reading."""
        measured = self._watts() if self._watts is not None else None
        with self._lock:
            self._scrapes = self._scrapes + 1.0
            self._missing = dict(reading.missing)
            if "prompt_tokens" not in reading.values or "generation_tokens" not in reading.values:
                self._problem = "the server counts no tokens"
                self._before = None
                return
            before, self._before = self._before, reading
            if measured is not None:
                self._gauges["measured_watts"] = measured
            if before is None:
                self._problem = ""
                return
            seconds = max(1e-9, reading.time_s - before.time_s)
            try:
                parts = self._attributed(before, reading)
            except TreeError as error:
                self._problem = str(error)
                return
            self._problem = ""
            self._add(parts, seconds, measured)

    def _attributed(self, before: ServerReading, now: ServerReading) -> Dict[str, Tuple[float, List[float]]]:
        """Per phase the tokens since ``before``, and joules with the ends of their interval."""
        prompt, generated = _grown(before, now, "prompt_tokens"), _grown(before, now, "generation_tokens")
        prompt = max(0.0, prompt - _grown(before, now, "cached_tokens"))
        running = max(1.0, 0.5 * (before.values.get("running", 0.0) + now.values.get("running", 0.0)))
        steps = _grown(before, now, "steps") or generated / running
        batch = max(1.0, generated / steps) if steps else running
        past = float(self._context)
        if now.values.get("used_tokens", 0.0) > 0.0 and now.values.get("running", 0.0) > 0.0:
            past = now.values["used_tokens"] / now.values["running"]
        self._gauges.update(batch_size=batch if generated else 0.0, cached_tokens=past)
        out: Dict[str, Tuple[float, List[float]]] = {}
        if prompt:
            count = max(1.0, _grown(before, now, "prompts"))
            out["prefill"] = (
                prompt,
                [count * part for part in self._passes.prefill(max(1.0, prompt / count))],
            )
        if generated:
            passes = generated / batch
            out["decode"] = (generated, [passes * part for part in self._passes.decode(batch, past)])
        return out

    def _add(
        self, parts: Dict[str, Tuple[float, List[float]]], seconds: float, measured: Optional[float]
    ) -> None:
        joules = tokens = 0.0
        for phase, (count, ends) in parts.items():
            self._tokens[phase] = self._tokens[phase] + count
            self._joules[phase] = [a + b for a, b in zip(self._joules[phase], ends)]
            joules = joules + ends[0]
            tokens = tokens + (count if phase == "decode" else 0.0)
        self._gauges["predicted_watts"] = joules / seconds
        if tokens:
            self._gauges["energy_per_token_joules"] = joules / tokens
        if measured is None:
            return
        self._measured_j = self._measured_j + measured * seconds
        keep = math.exp(-seconds / DRIFT_S)
        self._recent = [keep * self._recent[0] + measured * seconds, keep * self._recent[1] + joules]
        if self._recent[1] > 0.0:
            self._gauges["drift_ratio"] = self._recent[0] / self._recent[1]

    def openmetrics(self) -> str:
        """All of it as OpenMetrics text."""
        with self._lock:
            problem, lines = self._problem, []  # type: str, List[str]

            def family(name: str, kind: str, words: str, samples: Any) -> None:
                """``samples``: (value, labels of its own), beside those that all have."""
                lines.append("# TYPE irene_%s %s" % (name, kind))
                unit = name.rsplit("_", 1)[-1]
                if unit in ("joules", "watts", "ratio"):
                    lines.append("# UNIT irene_%s %s" % (name, unit))
                lines.append("# HELP irene_%s %s" % (name, words))
                for value, labels in samples:
                    pairs = [
                        '%s="%s"' % (k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
                        for k, v in dict(self._about, **labels).items()
                    ]
                    end = "_total" if kind == "counter" else ""
                    lines.append("irene_%s%s{%s} %r" % (name, end, ",".join(pairs), float(value)))

            what = "SIMULATED " if self._about.get("provenance") == "simulated" else ""
            said = "Predicted %senergy of the passes that the server made%%s." % what
            for end, (name, words) in enumerate((
                ("energy", ""), ("energy_low", ", lower end of 90 %"), ("energy_high", ", upper end of 90 %"),
            )):  # fmt: skip
                samples = [(ends[end], {"phase": phase}) for phase, ends in self._joules.items()]
                family(name + "_joules", "counter", said % words, samples)
            samples = [(count, {"phase": phase}) for phase, count in self._tokens.items()]
            family("tokens", "counter", "Tokens that were attributed: of prompts, and generated.", samples)
            for name, words in _GAUGES:
                if name in self._gauges:
                    family(name, "gauge", words, [(self._gauges[name], {})])
            if self._watts is not None:
                family(
                    "measured_energy_joules",
                    "counter",
                    "Joules of the GPUs by NVML.",
                    [(self._measured_j, {})],
                )
            for name, words, count in (
                ("scrapes", "Scrapes that worked.", self._scrapes),
                ("scrape_failures", "Scrapes that did not.", self._failures),
            ):  # fmt: skip
                family(name, "counter", words, [(count, {})])
            up = (0.0 if problem else 1.0, {"reason": problem})
            family("up", "gauge", "1 where the last scrape could be attributed; the reason where not.", [up])
            samples = [(1.0, {"what": key, "names": names}) for key, names in sorted(self._missing.items())]
            family(
                "missing_metric", "gauge", "What the server does not say, with all names looked for.", samples
            )
            return "\n".join(lines) + "\n# EOF\n"


_GAUGES = (
    ("predicted_watts", "Predicted joules between the last two scrapes, a second."),
    ("measured_watts", "Draw of the GPUs at the last scrape, by NVML."),
    ("energy_per_token_joules", "Predicted joules of prompts and steps, a token generated."),
    ("drift_ratio", "Measured joules, idling included, over predicted ones, the last five minutes."),
    ("batch_size", "Sequences of a decode step between the last two scrapes."),
    ("cached_tokens", "Cached tokens of a sequence."),
)


def _grown(before: ServerReading, now: ServerReading, key: str) -> float:
    """What a counter grew by; all of it where the server was started anew."""
    if key not in now.values or key not in before.values:
        return 0.0
    growth = now.values[key] - before.values[key]
    return growth if growth >= 0.0 else now.values[key]


def scraped(url: str, timeout_s: float, model: str) -> ServerReading:
    """One scrape. Raises RunError where the server does not answer, InputError where it is another."""
    import http.client
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, headers={"Accept": "text/plain"}), timeout=timeout_s) as answer:
            text = answer.read(_LARGEST).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise RunError("%s does not answer: %s" % (url, getattr(error, "reason", None) or error)) from None
    return server_reading(text, time.monotonic(), model)


def nvml_watts(which: str) -> Optional[Callable[[], Optional[float]]]:
    """What reads the draw of GPUs (``all``, or one as NVML or CUDA number it).

    ``all`` takes what there is: None without NVML or a GPU. A GPU that was named must be there: raises HardwareError.
    """
    try:
        import pynvml
    except ImportError:
        if which == "all":
            return None
        raise HardwareError(
            "--gpu %s: NVML cannot be read without the package nvidia-ml-py" % which
        ) from None
    try:
        pynvml.nvmlInit()
        if which == "all":
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        else:
            handles = [find_gpu(pynvml, which)]
        for handle in handles:
            pynvml.nvmlDeviceGetPowerUsage(handle)
    except pynvml.NVMLError as error:
        if which == "all":
            return None
        raise HardwareError("--gpu %s: NVML: %s" % (which, error)) from None
    if not handles:
        return None

    def watts() -> Optional[float]:
        total = 0.0
        for handle in handles:
            try:
                total = total + pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3
            except pynvml.NVMLError:  # noqa: PERF203
                return None
        return total

    return watts


class Exporter:
    """Scrapes ``url`` every ``interval_s`` in the background, and answers /metrics on ``listen`` (host, port)."""

    def __init__(
        self, ledger: Ledger, url: str, interval_s: float, listen: Tuple[str, int], model: str = ""
    ) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        if not url.startswith(("http://", "https://")):
            raise InputError("--metrics %r: expected the address of a server's metrics, http://..." % url)
        self.ledger, self._url, self._interval_s, self._model = ledger, url, interval_s, model
        self._stop = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                code, kind, text = 404, "text/plain", "see /metrics\n"
                if path == "/metrics":
                    code, kind = 200, "application/openmetrics-text; version=1.0.0; charset=utf-8"
                    text = ledger.openmetrics()
                elif path == "/healthz":
                    code, text = 200, "ok\n"
                body = text.encode("utf-8")
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Says nothing: a scrape every few seconds is no news."""

        self._handler, self._listen, self._server = Handler, listen, ThreadingHTTPServer
        self.address = ""

    def scrape(self) -> None:
        """One scrape now; what is wrong is kept and told by ``irene_up``."""
        try:
            self.ledger.take(scraped(self._url, min(5.0, max(1.0, self._interval_s)), self._model))
        except (InputError, RunError) as error:
            self.ledger.failed(str(error))

    def _scrape(self) -> None:
        while not self._stop.is_set():
            self.scrape()
            self._stop.wait(self._interval_s)

    def __enter__(self) -> "Exporter":
        host, port = self._listen
        try:
            self._http = self._server((host, port), self._handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError("cannot listen on %s:%d: %s" % (host, port, reason)) from None
        self._http.daemon_threads = True
        self.address = "http://%s:%d/metrics" % (host, self._http.server_address[1])
        for target in (self._http.serve_forever, self._scrape):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._http.shutdown()
        self._http.server_close()


def serve_command(args: Any, estimator: Any, tree: Any, say: Callable[[str], Any]) -> int:
    """``serve``: until Ctrl-C; with ``--once`` one interval, and what it came to on standard output."""
    host, colon, port = args.listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InputError("--listen %r: expected HOST:PORT" % args.listen)
    if not 0.05 <= args.interval <= 3600.0:
        raise InputError("--interval %r: expected seconds, 0.05 to 3600" % args.interval)
    if args.context < 1:
        raise InputError("--context %d: expected cached tokens, 1 or more" % args.context)
    about = {key: str(getattr(estimator, key)) for key in ("hardware", "boundary", "provenance")}
    about.update(estimator=estimator.digest[:12], model=str(tree.header["model"]))
    ledger = Ledger(Passes(estimator, tree), about, args.context, nvml_watts(args.gpu))
    with Exporter(ledger, args.metrics, args.interval, (host, int(port)), args.model) as exporter:
        if args.once:
            time.sleep(args.interval * 1.5)
            say(ledger.openmetrics())
            return 0
        say("joules of %s at %s\n" % (printable(args.metrics), exporter.address))
        while True:
            time.sleep(3600.0)
