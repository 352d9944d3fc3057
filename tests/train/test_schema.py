"""The written schemas describe what is written."""

from __future__ import annotations

import copy
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from irene_build.dataset.store import save_dataset
from irene_build.train import api, estimator_file
from tests import synthetic


def schema(repository: Path, name: str) -> Any:
    found = json.loads((repository / "irene_build" / "schemas" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("method", estimator_file.METHODS)
def test_estimators_follow_their_schema(repository: Path, method: str) -> None:
    estimator = api.fit(synthetic.dataset(["tiny-bert", "tiny-gpt", "small-bert"]), method)
    estimator_file.validate(estimator, "estimator")
    checker = schema(repository, "estimator")
    checker.validate(json.loads(estimator_file.dumps(estimator)))
    for key in ("tiers", "features", "hardware"):
        broken = copy.deepcopy(estimator)
        del broken[key]
        assert not checker.is_valid(broken)


def test_datasets_follow_their_schema(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "campaign.sqlite"
    save_dataset(synthetic.dataset(["tiny-bert"]), path)
    with closing(sqlite3.connect(path)) as database:
        header = {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM dataset")}
    schema(repository, "dataset").validate(header)
