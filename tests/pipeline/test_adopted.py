"""Jobs that begin from the trained supernet of another run, or go on with a finished one."""

import dataclasses
import json

import numpy as np
import pytest

from daqu_tf import RunConfig, files, pipeline
from daqu_tf.errors import DaquError
from daqu_tf.pipeline.plan import Plan
from daqu_tf.runs.folder import RunFolder


@pytest.fixture
def trained(tmp_path):
    """A folder as a run leaves it behind the training of its supernet."""

    def make(**settings):
        config = RunConfig("digits", str(tmp_path / "before"), space="digits", **settings)
        folder = RunFolder(config.folder)
        folder.path.mkdir()
        files.write_json(folder.config, Plan.of(config).to_json())
        files.write_arrays(folder.supernet, {"stem/kernel": np.zeros(3, np.float32)})
        return str(folder.path)

    return make


def job(path, **settings):
    return RunConfig(**{"dataset": "digits", "output_dir": "run", "supernet_from": path} | settings)


def test_the_space_and_the_training_are_those_of_the_supernet(trained):
    path = trained(epochs=3.0, budget_minutes=5.0)
    plan = Plan.of(job(path, budget_minutes=60.0))
    before = RunFolder(path).settings()
    assert json.loads(json.dumps(plan.space.to_json())) == before["search_space"]
    assert json.loads(json.dumps(plan.schedule.to_json())) == before["schedule"]
    assert plan.forecast.minutes["supernet"] == 0.0 and "that of another run" in plan.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "resnet"}, "`space` must be digits, which the supernet in .* has, or auto, but received resnet"),
        (
            {"precisions": "joint"},
            "was trained at its highest bits alone, but fewer are to be searched: give --precisions=siblings",
        ),
        ({"seed": 1}, "`supernet_from` must be a run of the same images"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_done(trained, settings, message):
    path = trained()
    with pytest.raises(DaquError, match=message):
        Plan.of(job(path, **settings))


def test_a_folder_without_a_trained_supernet(tmp_path, trained):
    with pytest.raises(DaquError, match="must be the folder of a run with a trained supernet, but .*nowhere is none"):
        Plan.of(job(str(tmp_path / "nowhere")))
    path = trained()
    RunFolder(path).supernet.unlink()
    with pytest.raises(DaquError, match="with a trained supernet"):
        Plan.of(job(path))


def test_minutes_are_added_to_a_finished_run_alone(trained):
    path = trained()
    config = dataclasses.replace(RunFolder(path).run_config(), output_dir=path)
    with pytest.raises(DaquError, match="goes on with a finished run, but .* holds none: run the command without it first"):
        pipeline.run(config, add_minutes=5)
    folder = RunFolder(path)
    folder.report.write_text("")
    with pytest.raises(DaquError, match="`add_minutes` must be above 0, but received -1"):
        folder.add_minutes(-1)
    folder.front.write_text("{}")
    folder.add_minutes(5)
    assert (folder.added_minutes, folder.wants_finalists) == (5, True)
    assert not folder.report.exists() and not folder.front.exists()
