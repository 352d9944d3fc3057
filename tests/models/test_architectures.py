"""Named architectures have the parameters that their entry says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from irene_build.errors import ModelError
from irene_build.models import architectures, build, resolve

#: Those of Turc et al. 2019, table 1, in millions (L, H -> parameters with the pooler).
_TURC = {(2, 128): 4.4, (4, 256): 11.2, (4, 512): 28.8, (8, 512): 41.4, (12, 768): 109.5}


@pytest.mark.parametrize("name", architectures())
def test_parameters_are_those_of_the_entry(name: str) -> None:
    millions = sum(p.numel() for p in build(name).parameters()) / 1e6
    assert millions == pytest.approx(architectures()[name]["parameters"], abs=0.06)


@pytest.mark.parametrize(("size", "millions"), _TURC.items())
def test_miniatures_have_the_published_parameters(size: tuple[int, int], millions: float) -> None:
    layers, hidden = size
    module = build(f"bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}")
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_hub_names_of_named_architectures_need_no_hub() -> None:
    assert resolve("google/bert_uncased_L-2_H-128_A-2").config.num_hidden_layers == 2
    assert resolve("openai-community/gpt2").config.n_layer == 12


def test_settings_without_a_value_are_set_too() -> None:
    # The class has a window of 4096; the published model has had none since version 0.2.
    assert resolve("Mistral-7B-v0.3").config.sliding_window is None
    assert resolve("Phi-3-mini-4k").config.sliding_window == 2047


def test_a_hub_that_cannot_be_reached_says_what_to_pass_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"no-one/nothing: .*pass a config\.json"):
        resolve("no-one/nothing")


def test_building_bert_imports_no_other_model() -> None:
    code = (
        "import sys; from irene_build.models import build; build('bert-base-uncased');"
        "print(sorted({m.split('.')[2] for m in sys.modules if m.startswith('transformers.models.')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bert" in done.stdout
    assert len(eval(done.stdout)) <= 6, done.stdout
