"""`predict`, `sweep` and `compare` of models: traced once, asked at any size, and over requests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irene_build.cli import main
from irene_build.export.bundle import export
from irene_build.trace import cached, trace
from irene_build.trace.symbolic import dumps
from tests.runtime.generating import estimator, tree

_SMALL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 1024, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("requests")
    export(dict(estimator().data), folder / "out", {"one.json": tree().at(2, 16)})
    (folder / "llama.json").write_text(json.dumps(_SMALL), encoding="utf-8")
    (folder / "every.json").write_text(dumps(tree()), encoding="utf-8")
    tree().at(2, 16).save(str(folder / "one.json"))
    return folder


@pytest.fixture
def irene(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(command: str, *args: str) -> tuple[int, str, str]:
        files = [str(folder / a) if (folder / a).is_file() else a for a in args]
        with pytest.raises(SystemExit) as end:
            main([command, str(folder / "out"), *files])
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_a_model_at_a_size_is_what_tracing_it_there_gives(irene: Any, folder: Path) -> None:
    code, out, err = irene("predict", "llama.json", "-b", "3", "-s", "37", "--attention", "sdpa", "--json")
    assert code == 0, err
    traced = trace(str(folder / "llama.json"), 3, 37)
    assert json.loads(out)["energy_j"] == pytest.approx(estimator().predict(traced).energy_j, rel=1e-12)


def test_the_second_time_imports_no_torch(irene: Any, folder: Path) -> None:
    assert irene("predict", "llama.json", "--attention", "sdpa")[0] == 0
    code = (
        "import sys; from irene_build.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules or 'transformers' in sys.modules, file=sys.stderr)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "predict",
        str(folder / "out"),
        str(folder / "llama.json"),
        "-s",
        "55",
    ]
    done = subprocess.run([*command, "--attention", "sdpa"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "False" in done.stderr


def test_another_configuration_is_another_tree(folder: Path, tmp_path: Path) -> None:
    first = cached.identity_of(str(folder / "llama.json"))
    shutil.copy(folder / "llama.json", tmp_path / "llama.json")
    (tmp_path / "llama.json").write_text(json.dumps({**_SMALL, "num_hidden_layers": 3}), encoding="utf-8")
    assert first[1] != cached.identity_of(str(tmp_path / "llama.json"))[1]
    assert cached.identity_of("somewhere:factory") is None


def test_a_damaged_file_of_the_cache_is_traced_anew(
    irene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_CACHE", str(tmp_path))
    assert irene("predict", "llama.json")[0] == 0
    (file,) = cached.cache_folder().glob("*.json")
    file.write_text(file.read_text(encoding="utf-8")[:100], encoding="utf-8")
    assert irene("predict", "llama.json")[0] == 0
    assert json.loads(file.read_text(encoding="utf-8"))["version"] == 2


def test_no_cache_leaves_nothing(irene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRENE_CACHE", str(tmp_path))
    assert irene("predict", "llama.json", "--no-cache")[0] == 0
    assert list(tmp_path.rglob("*.json")) == []


def test_a_request(irene: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, err = irene(
        "predict",
        "every.json",
        "--prompt",
        "64",
        "--new",
        "32",
        "--batch",
        "4",
        "--json",
        "--html",
        str(page),
    )
    assert code == 0, err
    data = json.loads(out)
    assert data["energy_j"] == estimator().request(tree(), 64, 32, 4).energy_j
    assert set(data["phases"]) == {"prefill", "decode"}
    text = page.read_text(encoding="utf-8")
    assert "Prefill against decode" in text
    assert "by context" in text
    code, out, _ = irene("predict", "every.json", "--prompt", "64", "--new", "32", "--batch", "4")
    assert code == 0
    assert "a new token" in out


def test_requests_over_prompts_and_batches(irene: Any, tmp_path: Path) -> None:
    args = ("--prompt", "16,64", "--new", "8", "--batch", "1,4")
    code, out, err = irene("sweep", "every.json", *args, "--json", "-o", str(tmp_path / "page"))
    assert code == 0, err
    cells = json.loads(out)["cells"]
    assert [(c["prompt"], c["new"], c["batch_size"]) for c in cells] == [
        (16, 8, 1),
        (16, 8, 4),
        (64, 8, 1),
        (64, 8, 4),
    ]
    assert cells[1]["energy_per_token_j"] < cells[0]["energy_per_token_j"]
    assert (tmp_path / "page" / "index.html").is_file()
    assert "new" in irene("sweep", "every.json", *args)[1]


def test_models_by_joules_a_token(irene: Any) -> None:
    code, out, err = irene("compare", "every.json", "llama.json", "--prompt", "32", "--new", "16", "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert len(rows) == 2
    assert rows[0]["energy_per_token_j"] <= rows[1]["energy_per_token_j"]


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("predict", ["llama.json", "-s", "100000"], "1024 positions"),
        ("compare", ["llama.json", "-s", "2000"], "1024 positions"),
        ("sweep", ["llama.json", "--seq", "512,2048"], "1024 positions"),
        ("predict", ["every.json", "-s", "5000"], "4096 positions"),
        ("predict", ["one.json", "-b", "3", "-s", "9"], "--batch, --seq: not beside a tree of one size"),
        ("predict", ["one.json", "--dtype", "float16"], "--dtype: not beside a tree file"),
        ("predict", ["every.json", "--attention", "eager"], "--attention: not beside a tree file"),
        ("predict", ["one.json", "--prompt", "5"], "is a tree of one size"),
        (
            "predict",
            ["every.json", "--prompt", "5", "--phase", "decode"],
            "--phase: not beside --prompt and --new",
        ),
        ("predict", ["every.json", "--speculative", "4,0.5"], "--speculative: not beside a single run"),
        ("predict", ["every.json", "--prompt", "5", "--speculative", "4"], "expected guesses and the share"),
        ("predict", ["every.json", "--prompt", "5000"], "4096 positions"),
        ("predict", ["every.json", "-b", "0"], "batch_size is 0"),
        ("predict", ["every.json", "--html", "/proc/x/page.html"], "cannot write /proc/x/page.html"),
        ("predict", ["bert_uncased_L-2_H-128_A-2", "--prompt", "5"], "cache"),
        ("sweep", ["one.json"], "is a tree of one size"),
    ],
)
def test_wrong_input_is_one_line(irene: Any, command: str, args: list[str], message: str) -> None:
    code, out, err = irene(command, *args)
    assert code == 2, out
    assert message in err
    assert "Traceback" not in err


def test_a_bundle_can_hold_a_model_at_every_size(folder: Path, tmp_path: Path, irene: Any) -> None:
    (tmp_path / "estimator.json").write_text(json.dumps(estimator().data), encoding="utf-8")
    command = ["export", str(tmp_path / "out"), "--estimator", str(tmp_path / "estimator.json")]
    with pytest.raises(SystemExit) as end:
        main([*command, "--tree", str(folder / "every.json"), "--tree", "bert_uncased_L-2_H-128_A-2"])
    assert not end.value.code
    names = {path.name for path in (tmp_path / "out" / "trees").iterdir()}
    assert names == {"every.json", "bert_uncased_L-2_H-128_A-2.json"}
    module = [sys.executable, "-I", "-S", str(tmp_path / "out" / "irene_estimator.py"), "predict"]

    def said(name: str, *args: str) -> dict[str, Any]:
        file = str(tmp_path / "out" / "trees" / name)
        done = subprocess.run([*module, file, *args, "--json"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    request = said("every.json", "--prompt", "64", "--new", "32", "--batch", "4")
    assert request["energy_j"] == estimator().request(tree(), 64, 32, 4).energy_j
    sized = said("bert_uncased_L-2_H-128_A-2.json", "--batch", "3", "--seq", "37")
    assert (sized["batch_size"], sized["seq_len"]) == (3, 37)
