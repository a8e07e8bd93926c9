"""Devices that share the work, and devices that are lost and come back; their programs' part is played by a device of Python."""

import collections
import threading
import time

import pytest
from faults import refused

from daqu_tf.devices import Device, DeviceGroup, DeviceLostError, DeviceSetupError, Latency, ModelError, Patience, connect
from daqu_tf.devices.measurement import identity

QUICK = {"attempts": 3, "wait_seconds": 0.02}
FINGERPRINT = {"kind": "test", "model": "m"}


class Scripted(Device):
    """Says of the models it times; `faults` by model is what each call does, one after the other, until none is left."""

    def __init__(self, name, model="m", seconds=0.0, faults=None):
        self.name, self._model, self._seconds = name, model, seconds
        self.faults = collections.defaultdict(list, faults or {})
        self.timed, self.done, self.checks, self.is_there = [], [], 0, True
        self.busy = threading.Lock()

    def identity(self):
        if not self.is_there:
            raise DeviceLostError(f"There is no {self.name}: plug it in.")
        return identity(FINGERPRINT | {"model": self._model}, "r", "1", 1)

    def check(self):
        self.checks += 1
        self.identity()

    def outputs(self, model_path, images=None):
        self.identity()
        return self.name, 0.0, 0

    def measure(self, model_path, **settings):
        assert self.busy.acquire(blocking=False), "two models at once on one device"
        try:
            self.identity()
            self.timed.append(model_path)
            time.sleep(self._seconds)
            if self.faults[model_path] and (fault := self.faults[model_path].pop(0)):
                raise fault
            latency = Latency((2.0, 2.0), (2.0,), 1, 1, "none", "r", "1", FINGERPRINT, model_path, conditions=({},))
            self.done.append(model_path)
            assert latency.identity == identity(FINGERPRINT, "r", "1", 1)
            return latency
        finally:
            self.busy.release()


def lost(text="It went away."):
    return DeviceLostError(text)


@pytest.fixture
def said():
    return []


def group(*devices, said=None, **settings):
    return DeviceGroup(devices, Patience(**QUICK | settings, notify=(said if said is not None else []).append))


def test_runs_are_spread_over_the_devices():
    devices = [Scripted(name, seconds=0.01) for name in "ab"]
    found = group(*devices).measure_many(list("uvwxyz"), repeats=4)
    assert [each.sha256 for each in found] == list("uvwxyz")
    assert all(len(each.run_medians_us) == 4 for each in found)
    total = collections.Counter(devices[0].timed) + collections.Counter(devices[1].timed)
    assert set(total.values()) == {4} and abs(len(devices[0].timed) - len(devices[1].timed)) <= 6
    for each in found:
        assert {condition["device_name"] for condition in each.conditions} == {"a", "b"}


def test_they_work_side_by_side():
    start = time.monotonic()
    group(*(Scripted(name, seconds=0.2) for name in "abcd")).measure_many(list("stuvwxyz"), repeats=1)
    assert time.monotonic() - start < 8 * 0.2


def test_devices_that_differ_are_refused():
    refused(
        lambda: group(Scripted("a"), Scripted("b", model="n")).measure_many(["x"]),
        "a and b cannot share the work",
        "model 'm' and 'n'",
        kind=DeviceSetupError,
    )
    refused(lambda: group(Scripted("a"), Scripted("a")), "`devices` must be different", kind=DeviceSetupError)
    refused(lambda: DeviceGroup([]), "at least one, but received none", kind=DeviceSetupError)


def test_a_bad_model_costs_the_others_nothing():
    device = group(Scripted("a", faults={"y": [ModelError("y is bad: leave it out.")] * 3}))
    first, second, third = device.measure_each(["x", "y", "z"], repeats=2)
    assert (first.sha256, third.sha256) == ("x", "z") and isinstance(second, ModelError)
    assert device.devices[0].timed.count("y") == 1 and len(third.run_medians_us) == 2
    refused(lambda: group(Scripted("a", faults={"y": [ModelError("y is bad.")]})).measure_many(["x", "y"]), "y is bad")
    refused(lambda: group(Scripted("a", faults={"y": [ModelError("y is bad.")]})).measure("y"), "y is bad", kind=ModelError)


def test_what_a_lost_device_had_in_hand_goes_to_the_others():
    first, second = Scripted("a", faults={"x": [lost()]}), Scripted("b")

    def check():
        raise lost()

    first.check = check
    runs = []
    device = group(first, second)
    found = device.measure_each(list("xyz"), repeats=3, on_run=lambda index, run: runs.append(index))
    assert [each.sha256 for each in found] == list("xyz") and sorted(runs) == [0] * 3 + [1] * 3 + [2] * 3
    assert all(len(each.run_medians_us) == 3 for each in found)


def test_a_device_that_comes_back_goes_on(said):
    device = Scripted("a", faults={"x": [None, lost("The cable is loose."), None]})
    latency = group(device, said=said).measure_many(["x", "y"], repeats=3)[0]
    assert len(latency.run_medians_us) == 3 and device.checks == 1
    assert said == ["a is lost (The cable is loose); trying again in 0.02 s, 1 of 3 times.", "a answers again."]


def test_waits_grow_and_end(said):
    device = Scripted("a")
    waiting = group(device, said=said)
    waiting.identity()
    device.is_there = False
    start = time.monotonic()
    refused(lambda: waiting.measure("x"), "There is no a", kind=DeviceLostError)
    assert 0.02 + 0.04 + 0.08 <= time.monotonic() - start < 5 and device.checks == 3
    assert [sentence.split(";")[1] for sentence in said] == [
        f" trying again in {seconds} s, {number} of 3 times." for number, seconds in ((1, 0.02), (2, 0.04), (3, 0.08))
    ]
    device.is_there = True
    assert waiting.measure("x").sha256 == "x"


def test_all_devices_lost_in_the_middle_lose_nothing_that_was_timed():
    first, second = (Scripted(name, faults={"x": [None, lost()], "y": [None, lost()]}) for name in "ab")
    for each in (first, second):
        each.check = lambda: (_ for _ in ()).throw(lost())
    runs = []
    with pytest.raises(DeviceLostError, match="It went away"):
        group(first, second).measure_each(list("xy"), repeats=5, on_run=lambda index, run: runs.append(run.sha256))
    assert sorted(runs) == sorted(first.done + second.done) and len(runs) > 2


def test_who_has_never_answered_is_not_waited_for(said):
    device = Scripted("a")
    device.is_there = False
    refused(lambda: group(device, said=said).measure("x"), "There is no a", kind=DeviceLostError)
    refused(lambda: group(device, said=said).outputs("x"), "There is no a", kind=DeviceLostError)
    assert not said and not device.checks


def test_a_model_by_which_devices_are_lost_each_time_is_at_fault():
    device = Scripted("a", faults={"x": [lost()] * 10})
    bad, good = group(device).measure_each(["x", "y"], repeats=1)
    assert good.sha256 == "y" and isinstance(bad, ModelError)
    assert str(bad) == "x was begun 4 times, and each time the device was lost (It went away): leave it out."


def test_no_patience_at_all():
    device = group(Scripted("a", faults={"x": [lost()]}), attempts=0)
    refused(lambda: device.measure("x"), "It went away", kind=DeviceLostError)
    refused(lambda: Patience(attempts=-1), "`attempts`", kind=DeviceSetupError)


def test_a_set_up_fault_stops_at_once(said):
    first, second = (
        Scripted("a", faults={"x": [DeviceSetupError("The disk of a is full: free some.")]}),
        Scripted("b", seconds=0.05),
    )
    refused(lambda: group(first, second, said=said).measure_many(list("xyz")), "The disk of a is full", kind=DeviceSetupError)
    assert not said


def test_a_bug_is_no_fault_of_a_device():
    with pytest.raises(ZeroDivisionError):
        group(Scripted("a", faults={"x": [ZeroDivisionError()]})).measure("x")


def test_outputs_come_from_whoever_answers(said):
    first, second = Scripted("a"), Scripted("b")
    both = group(first, second, said=said)
    assert both.outputs("x")[0] == "a"
    both.identity()
    first.is_there = False
    assert both.outputs("x")[0] == "b"
    second.is_there = False
    threading.Timer(0.03, lambda: setattr(second, "is_there", True)).start()
    assert both.outputs("x")[0] == "b" and "trying again" in said[0]


def test_stopping_leaves_no_thread_that_waits():
    first, second = Scripted("a", faults={"x": [lost()], "y": [lost()]}), Scripted("b", seconds=0.01)
    device = group(first, second, wait_seconds=30.0)
    device.measure_many(list("xy"), repeats=1)
    end = time.monotonic() + 5
    while any(thread.name.startswith("times on") for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_text_of_several_devices():
    both = connect("raspberry_pi:pi@one,raspberry_pi:pi@two", threads=2)
    assert isinstance(both, DeviceGroup) and both.name == "raspberry_pi:pi@one,raspberry_pi:pi@two"
    assert [device.threads for device in both.devices] == [2, 2]
    assert isinstance(connect("host", patience=Patience()), DeviceGroup)
    refused(lambda: connect("host,host"), "different ones", kind=DeviceSetupError)
    refused(lambda: connect("host,"), "must be given as", kind=DeviceSetupError)


def test_a_call_survives_several_losses(said):
    phone = Scripted("a", faults={"m": [lost(), lost()]})
    group = DeviceGroup([phone], Patience(3, 0.01, said.append))
    group.identity()
    (found,) = group.measure_batch(["m"])
    assert found.sha256 == "m" and phone.timed == ["m"] * 3 and sum("trying again" in each for each in said) == 2
