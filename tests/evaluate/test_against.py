"""A datasheet alone against measurements: what a table of generated tokens means, and that intervals hold."""

import json
import subprocess
import sys

import pytest

from irene_build.errors import DatasetError
from irene_build.evaluate import against
from irene_build.hardware.datasheets import datasheet
from irene_build.trace import trace_model
from irene_build.train.law.datasheet_estimator import estimator
from irene_runtime.model import Estimator

HEADER = "gpu,model,weights,batch_size,new_tokens,throughput_tok_s,power_w,energy_per_1k_tokens_j\n"


@pytest.fixture(scope="module")
def compiled():
    return Estimator(estimator(datasheet("RTX 4090")))


def test_a_token_takes_its_share_of_power_and_prompt(tmp_path, compiled):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "x,Qwen2.5-0.5B,fp16,1,256,50,90,1\nx,no-such-model,fp16,1,256,50,90,1\n")
    assert against.is_generation(path)
    found = against.generation(compiled, path, trace_model)
    (row,) = found["rows"]
    assert row["energy_per_token_j"]["measured"] == pytest.approx(90 / 50)
    step = compiled.predict(
        trace_model("Qwen2.5-0.5B", 1, 1, phase="decode", past_len=20 + 128, dtype="float16")
    )
    assert step.energy_j < row["energy_per_token_j"]["predicted"] < 1.1 * step.energy_j
    assert row["itl_s"]["measured"] == pytest.approx(0.02)
    assert found["energy_per_token_j"]["n"] == 1 and found["energy_per_token_j"]["coverage90"] in (0.0, 100.0)
    assert "no-such-model" in found["skipped"][0]
    assert "left out" in against.text(
        {"hardware": "h", "provenance": "datasheet", "against": "t.csv", **found}
    )


def test_whole_models_and_their_clocks(tmp_path, compiled):
    path = tmp_path / "t.csv"
    path.write_text(
        "model,batch_size,seq_len,dtype,energy_j,freq\nbert-base-uncased,8,128,float16,1.0,1000\n"
        "bert-base-uncased,8,128,float16,1.0,2500\n"
    )
    found = against.whole(compiled, path, trace_model)
    slow, fast = (row["energy_j"]["predicted"] for row in found["rows"])
    assert slow != fast
    assert found["energy_j"]["n"] == 2


def test_a_table_without_a_known_model_is_refused(tmp_path, compiled):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "x,no-such-model,fp16,1,256,50,90,1\n")
    with pytest.raises(DatasetError, match="no row names a model that is known"):
        against.generation(compiled, path, trace_model)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "irene_build.cli", *arguments], capture_output=True, text=True
    )


def test_a_device_predicts_without_a_bundle_and_says_so():
    done = run(
        "predict", "--device", "RTX 5090", "distilgpt2", "-b", "2", "-s", "16", "--dtype", "float16", "--json"
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["provenance"] == "datasheet" and "datasheet" in data["flags"]
    low, high = data["interval_j"]
    assert high > 1.8 * data["energy_j"] > 1.8 * 1.8 * low


def test_a_device_and_a_bundle_are_one_too_many(tmp_path):
    done = run("predict", "--device", "RTX 5090", str(tmp_path), "distilgpt2")
    assert done.returncode == 2 and "stands for a bundle" in done.stderr
    assert run("evaluate", "--device", "RTX 5090").returncode == 2
