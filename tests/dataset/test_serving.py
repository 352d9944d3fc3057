from __future__ import annotations

from pathlib import Path

import pytest

from irene_build.dataset import serving
from irene_build.errors import DatasetError

_HEAD = (
    "task,model,weight_dtype,num_gpus,expert_parallel,avg_batch_size,avg_output_tokens,output_tokens_sq_over_mean,"
    "energy_per_token_j,output_tokens_per_s,median_itl_ms\n"
)


def _file(folder: Path, row: str) -> Path:
    path = folder / "runs.csv"
    path.write_text(_HEAD + row)
    return path


def test_a_run_is_read_in_si_units(tmp_path: Path) -> None:
    row = "gpqa,Qwen/Qwen3-30B-A3B-Thinking-2507-FP8,fp8,2,2,16,6000,8000,0.5,1000,12\n"
    (run,) = serving.read(_file(tmp_path, row))
    assert (run.gpus, run.ep, run.dp, run.weights) == (2, 2, 1, "fp8_block")
    assert (run.prompt, run.context) == (300.0, 4300.0), "the prompt and half of E[n^2]/E[n]"
    assert (run.step_s, run.itl_s) == (0.016, 0.012)
    serving.save([run], tmp_path / "serving.json")
    assert serving.load(tmp_path / "serving.json") == [run]


def test_a_model_that_nobody_knows_is_named_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = _file(tmp_path, "chat,nobody/Nothing-9B,bfloat16,1,1,8,100,100,1,100,10\n")
    with pytest.raises(
        DatasetError, match=r"runs.csv, line 2: unknown model 'nobody/Nothing-9B'.*config.json"
    ):
        serving.read(path)


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 2: energy_per_token_j is 'x', expected a number above 0"):
        serving.read(_file(tmp_path, "chat,Qwen3-8B,bfloat16,1,1,8,100,100,x,100,10\n"))


def test_a_run_that_no_board_can_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="line 2: energy_per_token_j x output_tokens_per_s is 500,000 W over 1 GPUs"
    ):
        serving.read(_file(tmp_path, "chat,Qwen/Qwen3-8B,bfloat16,1,1,8,100,100,500,1000,10\n"))


def test_columns_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    head = _HEAD.strip() + ",avg_power_w\n"
    path.write_text(head + "chat,Qwen/Qwen3-8B,bfloat16,1,1,8,100,100,0.5,1000,10,600\n")
    with pytest.raises(DatasetError, match="is 500 W, but avg_power_w says 600"):
        serving.read(path)
