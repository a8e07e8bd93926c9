import dataclasses
import json
import os
import subprocess
import sys

import pytest

from daqu_tf.errors import DaquError
from daqu_tf.runs.config import RunConfig


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("space", "nothing"),
        ("target", "nothing"),
        ("budget_minutes", 0.1),
        ("budget_minutes", float("nan")),
        ("finalists", 0),
        ("max_trials", 3),
        ("batch_size", 1),
        ("workers", -1),
        ("seed", -1),
        ("learning_rate", 0.0),
        ("precision_transfer", "sideways"),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(DaquError, match=f"`{setting}` must be"):
        RunConfig("digits", "out", **{setting: value})


def test_round_trip():
    config = RunConfig("digits", "out", seed=7)
    assert RunConfig(**config.to_json()) == config and dataclasses.replace(config, seed=8) != config


def _python(code: str, **environment: str) -> subprocess.CompletedProcess:
    import os

    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)


def test_keras_3_is_refused_where_keras_is_needed():
    done = _python("import daqu_tf.keras", TF_USE_LEGACY_KERAS="0")
    assert done.returncode != 0 and "TF_USE_LEGACY_KERAS must be 1" in done.stderr


def test_constraints_are_read_at_once():
    config = RunConfig("digits", "out", constraint=["latency_us<=2000", "accuracy>=0.9"])
    assert [(one.metric, one.operator, one.limit) for one in config.constraints] == [
        ("latency_us", "<=", 2000.0),
        ("accuracy", ">=", 0.9),
    ]
    assert RunConfig(**json.loads(json.dumps(config.to_json()))) == config
    assert RunConfig("digits", "out", constraint=None).constraint == []
    with pytest.raises(DaquError, match="`constraint` must name latency, size or .*, but received 'energy'"):
        RunConfig("digits", "out", constraint=["energy<=3"])
    with pytest.raises(DaquError, match="must have the form METRIC<=NUMBER"):
        RunConfig("digits", "out", constraint=["latency_us=3"])


def test_the_cache_of_photos_is_found_from_every_folder():
    assert RunConfig("digits", "run", cache_dir="cache").cache_dir == os.path.abspath("cache")
    assert RunConfig("digits", "run").cache_dir.startswith("~")
