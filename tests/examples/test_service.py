"""examples/service.py: a real process, asked through real HTTP, with a bundle and a symbolic tree made here."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("service")
    for command in (
        ["export", "out", "--hardware", "pc1"],
        ["trace", "distilgpt2", "--symbolic", "--attention", "eager", "-o", "gpt.json"],
    ):
        subprocess.run(
            [sys.executable, "-m", "irene_build.cli", *command], cwd=folder, check=True, capture_output=True
        )
    command = [sys.executable, str(EXAMPLES / "service.py"), "out", "gpt.json", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


def ask(address: str, body: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(address, data=body.encode(), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_an_answer_says_what_it_cost(address: str) -> None:
    status, short = ask(address, json.dumps({"prompt": "why is the sky blue", "max_tokens": 8}))
    assert status == 200
    low, high = short["energy"]["interval_j"]
    assert 0.0 < low < short["energy"]["energy_j"] < high
    _, long = ask(address, json.dumps({"prompt": "why is the sky blue", "max_tokens": 80}))
    assert long["energy"]["energy_j"] > 5 * short["energy"]["energy_j"]


def test_a_request_that_is_none_is_told(address: str) -> None:
    assert ask(address, "{}")[0] == 400
    status, answer = ask(address, json.dumps({"prompt": "x", "max_tokens": 10**9}))
    assert status == 200 and "error" in answer["energy"]
