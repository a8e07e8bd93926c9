import dataclasses
import pathlib
import shlex

from daqu_tf.runs.commands import export_command, fine_tuning_command, from_here, run_command
from daqu_tf.runs.config import RunConfig
from daqu_tf.targets.storage import Storage
from daqu_tf.training.fine_tuning import FineTuning

RUN = pathlib.Path("runs/mine")


def settings_of(line):
    """The run that a command asks for."""
    _, *flags = shlex.split(line)
    kinds = {field.name: field.type for field in dataclasses.fields(RunConfig)}
    pairs = [flag.removeprefix("--").partition("=") for flag in flags]
    return RunConfig(**{name: kinds[name](value) if equals else True for name, equals, value in pairs})


def test_the_command_of_a_run_asks_for_the_same_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig("my images.npz", "runs/x", learning_rate=1 / 3, epochs=5.0, deterministic=True, warmup="none")
    line = run_command("train", config.to_json(), from_here)
    assert settings_of(line) == config
    assert line == (
        "daqu-train '--dataset=my images.npz' --output_dir=runs/x --learning_rate=0.3333333333333333 --warmup=none --epochs=5 "
        "--deterministic"
    )


def test_a_schedule_takes_the_place_of_other_settings():
    settings = RunConfig("digits", "runs/x", schedule="/a/mine.json", epochs=3.0, warmup="none").to_json()
    assert run_command("run", settings, str) == "daqu-run --dataset=digits --output_dir=runs/x --schedule=/a/mine.json"


def test_a_path_is_shown_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "data" / "mine.npz") == "data/mine.npz"
    assert from_here("/elsewhere/mine.npz") == "/elsewhere/mine.npz" and from_here("../mine.npz") == "../mine.npz"


def test_fine_tuning_has_its_length():
    line = fine_tuning_command(RUN, "m00", vars(FineTuning(steps=40, distillation=0.5)))
    assert line == "daqu-train --output_dir=runs/mine --subnet=m00 --fine_tuning_steps=40 --fine_tuning_distillation=0.5"
    line = fine_tuning_command(RUN, "m00", vars(FineTuning(seconds=90.0)))
    assert line == "daqu-train --output_dir=runs/mine --subnet=m00 --fine_tuning_minutes=1.5"


def test_an_export_names_what_is_not_usual():
    path, int8 = pathlib.Path("m00.tflite"), Storage("int8")
    assert export_command(RUN, "m00", None, path, int8, int8) == "daqu-export --run=runs/mine --subnet=m00 --output=m00.tflite"
    assert "--subnet=m00 --nofine_tuned --output" in export_command(RUN, "m00", False, path, int8, int8)
    line = export_command(RUN, "m00", True, path, Storage("int8", input_type="uint8"), Storage())
    assert line.endswith("--subnet=m00 --fine_tuned --output=m00.tflite --container=int8 --input_type=uint8")


def test_every_constraint_is_a_flag_of_its_own():
    settings = RunConfig("digits", "out", constraint=["latency_us<=20", "file_bytes<=6e4"]).to_json()
    line = run_command("run", settings, str)
    assert "'--constraint=latency_us<=20' '--constraint=file_bytes<=6e4'" in line
    assert "constraint" not in run_command("run", RunConfig("digits", "out").to_json(), str)
