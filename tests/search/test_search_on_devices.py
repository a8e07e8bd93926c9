"""Where the latencies of a search come from, and what becomes of it when the device fails."""

import collections

import pytest
from latency_tables import table_of
from search_on_digits import TARGET, DigitsSearch

from daqu_tf.devices import DeviceLostError, DeviceSetupError, HostDevice, ModelError
from daqu_tf.search.candidates import SearchStoppedError

FAST = {"min_runs": 3, "min_seconds": 0.0, "max_warmup_seconds": 0.0}


class Failing(HostDevice):
    """This machine, but where a fault is due."""

    def __init__(self, faults=()):
        super().__init__()
        self.faults, self.calls = dict(faults), 0

    def measure_many(self, model_paths, **settings):
        self.calls += 1
        if self.calls in self.faults:
            raise self.faults[self.calls]
        return super().measure_many(model_paths, repeats=1, retries=0, **FAST)


@pytest.fixture(scope="module")
def digits_search(digits, tmp_path_factory):
    return DigitsSearch(digits.supernet, tmp_path_factory.mktemp("search"))


def states(tuner):
    return collections.Counter(trial.status for trial in tuner.oracle.trials.values())


def test_a_table_prices_every_trial(digits_search):
    space = digits_search.supernet.space
    table = table_of(space)
    tuner = digits_search.tuner("table", table, 6)
    tuner.search()
    assert states(tuner) == {"COMPLETED": 6}
    for trial in tuner.oracle.trials.values():
        predicted = table.predict(space, space.subnet(trial.hyperparameters.values))
        assert trial.metrics.get_last_value("latency_us") == pytest.approx(predicted)
    assert TARGET.storage.container == table.storage["container"]


def test_a_bad_candidate_is_a_failed_trial(digits_search):
    device = Failing({2: ModelError("trial.tflite could not be run (it crashed): leave it out.")})
    tuner = digits_search.tuner("bad", device, 4)
    tuner.search()
    assert states(tuner) == {"COMPLETED": 3, "FAILED": 1}
    (failed,) = (trial for trial in tuner.oracle.trials.values() if trial.status == "FAILED")
    assert "it crashed" in failed.message


@pytest.mark.parametrize("fault", [DeviceLostError("The board does not answer."), DeviceSetupError("The disk is full.")])
def test_a_device_that_is_lost_or_broken_stops_the_search_which_goes_on_later(digits_search, fault):
    name = type(fault).__name__
    with pytest.raises(SearchStoppedError, match=f"goes on with the same command: {fault}"):
        digits_search.tuner(name, Failing({3: fault}), 5).search()
    again = digits_search.tuner(name, Failing(), 5)
    assert states(again) == {"COMPLETED": 2, "RUNNING": 1}
    again.search()
    assert states(again) == {"COMPLETED": 5}
    steady = digits_search.tuner(f"{name}_steady", Failing(), 5)
    steady.search()
    values = [[trial.hyperparameters.values for trial in tuner.oracle.trials.values()] for tuner in (again, steady)]
    assert values[0] == values[1]
