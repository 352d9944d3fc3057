"""``serve``: joules of a server by its own counters, over real HTTP."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from irene_runtime.errors import InputError, RunError, TreeError
from irene_runtime.serve import Exporter, Ledger, Passes, serve_command
from irene_runtime.serve_metrics import metric_lines, server_reading

#: In the form of vLLM 0.11 (engine V1), with what each counter is at two moments.
VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="Qwen/Qwen3-8B"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="Qwen/Qwen3-8B"}} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="Qwen/Qwen3-8B"}} 0.25
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{{engine="0",model_name="Qwen/Qwen3-8B"}} {hits}
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="Qwen/Qwen3-8B"}} {prompt}
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="Qwen/Qwen3-8B"}} {generated}
# TYPE vllm:request_success_total counter
vllm:request_success_total{{engine="0",finished_reason="stop",model_name="Qwen/Qwen3-8B"}} 6.0
vllm:request_success_total{{engine="0",finished_reason="length",model_name="Qwen/Qwen3-8B"}} 3.0
# TYPE vllm:request_prompt_tokens histogram
vllm:request_prompt_tokens_bucket{{engine="0",le="1.0",model_name="Qwen/Qwen3-8B"}} 0.0
vllm:request_prompt_tokens_count{{engine="0",model_name="Qwen/Qwen3-8B"}} {prompts}
vllm:request_prompt_tokens_sum{{engine="0",model_name="Qwen/Qwen3-8B"}} {prompt}
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{{engine="0",le="+Inf",model_name="Qwen/Qwen3-8B"}} {steps}
vllm:iteration_tokens_total_count{{engine="0",model_name="Qwen/Qwen3-8B"}} {steps}
vllm:iteration_tokens_total_sum{{engine="0",model_name="Qwen/Qwen3-8B"}} 2581.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{{block_size="16",cache_dtype="auto",num_cpu_blocks="None",num_gpu_blocks="500"}} 1.0
"""
FIRST: dict[str, float] = {
    "running": 10,
    "hits": 0,
    "prompt": 1000,
    "generated": 5000,
    "prompts": 10,
    "steps": 600,
}
LATER: dict[str, float] = {
    "running": 10,
    "hits": 100,
    "prompt": 1900,
    "generated": 5600,
    "prompts": 14,
    "steps": 700,
}
SGLANG = """sglang:num_running_reqs{model_name="m",tp_rank="0"} 4.0
sglang:num_running_reqs{model_name="m",tp_rank="1"} 4.0
sglang:num_running_reqs{model_name="m",priority="1",tp_rank="0"} 4.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.5
sglang:max_total_num_tokens{model_name="m",tp_rank="0"} 8000
sglang:prompt_tokens_total{model_name="m"} 4882260.0
sglang:generation_tokens_total{model_name="m"} 139795.0
"""


class FakePasses:
    """Prefill 0.1 J a token, a step 1 J a sequence and 0.01 J a cached token; the interval is half to double."""

    def prefill(self, prompt: float) -> tuple[float, float, float]:
        return 0.1 * prompt, 0.05 * prompt, 0.2 * prompt

    def decode(self, batch: float, past: float) -> tuple[float, float, float]:
        joules = batch + 0.01 * past
        return joules, 0.5 * joules, 2.0 * joules


def samples(text: str) -> dict[str, float]:
    """As prometheus_client reads them: name and phase -> value."""
    return {
        (s.name + (f"/{s.labels['phase']}" if "phase" in s.labels else "")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


@contextmanager
def server(texts: list[str]) -> Iterator[str]:
    """A real HTTP server that gives these scrapes one after the other, the last one for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (texts.pop(0) if len(texts) > 1 else texts[0]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/metrics"
    finally:
        http.shutdown()
        http.server_close()


def ledger(watts: Any = None) -> Ledger:
    return Ledger(FakePasses(), {"hardware": "lab", "provenance": "measured"}, 512, watts)


def test_joules_follow_the_counters_between_two_scrapes_over_http() -> None:
    book = ledger(watts=lambda: 300.0)
    with server([VLLM.format(**FIRST), VLLM.format(**LATER)]) as url:
        exporter = Exporter(book, url, 60.0, ("127.0.0.1", 0))
        exporter.scrape()
        assert samples(book.openmetrics())["irene_energy_joules_total/decode"] == 0.0
        with exporter:  # the first scrape of its thread is the second of the server
            for _ in range(200):
                if samples(book.openmetrics())["irene_scrapes_total"] >= 2:
                    break
                time.sleep(0.01)
            with urllib.request.urlopen(exporter.address, timeout=5) as answer:
                text = answer.read().decode()
                assert answer.headers["Content-Type"].startswith(
                    "application/openmetrics-text; version=1.0.0"
                )
    found = samples(text)
    # 800 prompt tokens were not cached, in 4 prompts; 600 tokens in 100 steps of 6, after 8000 x 0.25 / 10 tokens.
    assert found["irene_energy_joules_total/prefill"] == pytest.approx(80.0)
    assert found["irene_energy_joules_total/decode"] == pytest.approx(100 * (6 + 0.01 * 200))
    assert found["irene_energy_high_joules_total/decode"] == pytest.approx(1600.0)
    assert found["irene_energy_per_token_joules"] == pytest.approx(880.0 / 600)
    assert found["irene_tokens_total/prefill"] == 800.0 and found["irene_batch_size"] == 6.0
    assert found["irene_measured_watts"] == 300.0 and found["irene_up"] == 1.0
    assert found["irene_drift_ratio"] == pytest.approx(
        found["irene_measured_energy_joules_total"] / 880.0, rel=0.01
    )


def test_old_names_and_those_of_sglang_are_read_and_what_is_missing_is_named() -> None:
    old = VLLM.format(**FIRST).replace("kv_cache_usage_perc", "gpu_cache_usage_perc")
    assert server_reading(old, 0.0).values == server_reading(VLLM.format(**FIRST), 0.0).values
    found = server_reading(SGLANG, 0.0)
    assert found.values["running"] == 4.0 and found.values["used_tokens"] == 4000.0
    assert "vllm:iteration_tokens_total_count" in found.missing["steps"]
    book = ledger()
    book.take(found)
    assert "irene_missing_metric{" in book.openmetrics() and 'what="steps"' in book.openmetrics()


def test_without_steps_and_cache_the_running_requests_and_the_context_given_are_taken() -> None:
    bare = "vllm:num_requests_running 8\nvllm:prompt_tokens_total 0\nvllm:generation_tokens_total {}\n"
    book = ledger()
    book.take(server_reading(bare.format(0), 0.0))
    book.take(server_reading(bare.format(80), 2.0))
    assert samples(book.openmetrics())["irene_energy_joules_total/decode"] == pytest.approx(10 * (8 + 5.12))
    assert samples(book.openmetrics())["irene_predicted_watts"] == pytest.approx(10 * (8 + 5.12) / 2.0)


def test_a_server_that_was_started_anew_counts_from_nought() -> None:
    book = ledger()
    for text, at in (
        (VLLM.format(**LATER), 0.0),
        (VLLM.format(**{**LATER, "generated": 60, "steps": 10}), 1.0),
    ):
        book.take(server_reading(text, at))
    assert samples(book.openmetrics())["irene_tokens_total/decode"] == 60.0


def test_a_server_that_is_away_keeps_the_sums_and_says_why() -> None:
    book = ledger()
    exporter = Exporter(book, "http://127.0.0.1:1/metrics", 1.0, ("127.0.0.1", 0))
    exporter.scrape()
    found = book.openmetrics()
    assert samples(found)["irene_up"] == 0.0 and "does not answer" in found
    with server(["some_other_metric 1\n"]) as url:
        exporter = Exporter(book, url, 1.0, ("127.0.0.1", 0))
        exporter.scrape()
    assert "no metric of vLLM or SGLang" in book.openmetrics()


def test_text_that_is_no_metric_is_passed_over() -> None:
    lines = metric_lines('# x\n\na{b="c\\"d\\n,e"} 1e3 170000\nnonsense here\nq NaN2\n')
    assert [(line.name, line.labels, line.value) for line in lines] == [("a", {"b": 'c"d\n,e'}, 1000.0)]


class FakeTree:
    header: ClassVar[dict[str, str]] = {"model": "m"}

    def at(self, **size: Any) -> Any:
        if size["past_len"] > 1000:
            raise TreeError("past_len 1001: the tree goes to 1000")
        return size


class FakeEstimator:
    hardware, boundary, provenance, digest = "lab", "wall", "simulated", "ab" * 32

    def predict(self, size: Any, tier: str) -> Any:
        joules = size["batch_size"] ** 2 + size["seq_len"]
        return SimpleNamespace(energy_j=joules, interval_j=(0.5 * joules, 2.0 * joules))


def test_between_whole_batch_sizes_a_step_is_on_a_line() -> None:
    passes = Passes(FakeEstimator(), FakeTree())
    assert passes.decode(2.5, 100)[0] == pytest.approx(0.5 * (5 + 10)) and passes.prefill(7.0)[0] == 8.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "localhost:8000"}, "--metrics"), ({"listen": "9000"}, "--listen"),
        ({"interval": 0.0}, "--interval"), ({"context": 0}, "--context"), ({"tree": object()}, "symbolic tree"),
    ],
)  # fmt: skip
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    args = {
        "metrics": "http://127.0.0.1:1/",
        "listen": "127.0.0.1:0",
        "interval": 0.05,
        "context": 512,
        "model": "",
        "gpu": "all",
        "once": True,
    }
    tree = options.pop("tree", FakeTree())
    if not hasattr(tree, "header"):
        tree = SimpleNamespace(header={"model": "m"})
    with pytest.raises(InputError, match=message):
        serve_command(SimpleNamespace(**{**args, **options}), FakeEstimator(), tree, lambda text: None)


def test_a_port_that_is_taken_is_one_line() -> None:
    with server(["x 1\n"]) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with (
            pytest.raises(RunError, match="cannot listen on"),
            Exporter(ledger(), url, 1.0, ("127.0.0.1", port)),
        ):
            pass


def test_once_prints_an_interval_and_says_that_it_is_simulated() -> None:
    said: list[str] = []
    with server([VLLM.format(**FIRST), VLLM.format(**LATER)]) as url:
        args = SimpleNamespace(
            metrics=url,
            listen="127.0.0.1:0",
            interval=0.2,
            context=512,
            model="Qwen/Qwen3-8B",
            gpu="all",
            once=True,
        )
        assert serve_command(args, FakeEstimator(), FakeTree(), said.append) == 0
    assert samples(said[0])["irene_tokens_total/decode"] == 600.0 and "SIMULATED" in said[0]


def test_a_gpu_that_was_named_must_be_there(fake_nvml: Any) -> None:
    from irene_runtime.errors import HardwareError
    from irene_runtime.serve import nvml_watts

    watts = nvml_watts("all")
    assert watts is not None and (watts() or 0.0) > 0.0
    with pytest.raises(HardwareError, match="99"):
        nvml_watts("99")
