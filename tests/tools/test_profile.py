"""`daqu-profile` as a user calls it."""

import json
import subprocess
import sys

import pytest
from quick_profiles import FEW

from daqu_tf import spaces, targets
from daqu_tf.devices import HostDevice
from daqu_tf.latency.table import LatencyTable

# As a console script does, and then the last line says which of these were imported.
NOTING = """
import atexit, sys
from daqu_tf.tools.profile import main
atexit.register(lambda: print("Imported:", *sorted({"tensorflow", "tf_keras", "keras"} & sys.modules.keys())))
main()
"""
COMMAND = [sys.executable, "-c", NOTING]


def call(*flags):
    return subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "few.json"
    path.write_text(json.dumps(spaces.get("digits").restrict(**FEW).to_json()))
    return path


def test_a_table_comes_with_its_error_and_the_second_call_times_nothing(few, tmp_path):
    flags = (f"--space={few}", f"--output={tmp_path / 't.json'}", f"--store={tmp_path / 's.sqlite'}", "--subnets=8")
    done = call(*flags)
    assert done.returncode == 0, done.stderr
    assert "blocks in" in done.stdout and "Kendall's tau" in done.stdout and "Timed twice" in done.stdout
    table = LatencyTable.load(tmp_path / "t.json")
    target = targets.get("litert_cpu")
    table.check(target.restrict(spaces.get(str(few))), target.storage, HostDevice().identity())
    assert table.evidence["timed"] > len(table.blocks_us)
    assert call(*flags).returncode == 0
    assert LatencyTable.load(tmp_path / "t.json").evidence["timed"] == 0
    assert done.stdout.endswith("\nImported:\n")  # A board without TensorFlow can make its own table.


def test_help_imports_no_tensorflow():
    done = call("--help")
    assert "--space" in done.stdout and done.stdout.endswith("\nImported:\n")


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--space=nonsense", "--output=t.json"], "`space` must be one of"),
        (["--space=digits", "--output=t.txt"], "`output` must be a .json file"),
        (["--space=digits", "--output=/nowhere/t.json"], "`output` must be a .json file in a folder that can be written to"),
        (["--space=digits", "--output=t.json", "--device=fridge"], "A device must be given as"),
        (["--space=digits", "--output=t.json", "--device=android:A"], "Phones need TFLite's benchmark_model"),
        (["--space=digits", "--output=t.json", "--target=nonsense"], "`target` must be one of"),
        (["--space=digits", "--output=t.json", "--store=/proc/nothing/s"], "cannot be used"),
    ],
)
def test_what_cannot_be_is_one_sentence(flags, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = any(flag.startswith("--store") for flag in flags)
    done = call(*flags, *([] if given else [f"--store={tmp_path / 's.sqlite'}"]))
    assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 or "latency table" in done.stderr
