"""What a training step takes, timed in real processes."""

import pytest

from daqu_tf import spaces
from daqu_tf.errors import DaquError
from daqu_tf.pipeline import speed
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs

SPACE = spaces.get("digits")


def test_this_machine_is_timed():
    found = speed.measure(SPACE)
    assert found.macs == tuple(costs.macs(SPACE, hand_scaled(SPACE)[index]) for index in (0, -1))
    assert 0 < found.seconds[0] <= found.seconds[1] < 1


def test_a_process_that_fails_says_why(monkeypatch):
    start = speed.processes.start
    monkeypatch.setattr(speed.processes, "start", lambda module, arguments, *rest: start(module, ["nowhere.json", "0"], *rest))
    with pytest.raises(DaquError, match="The process that times a training step ended with status 1: .*nowhere.json"):
        speed.measure(SPACE)
