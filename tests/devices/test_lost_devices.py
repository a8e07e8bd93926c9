"""Phones and boards that are lost in the middle of the work: others go on, or they are waited for; what was timed is kept."""

import collections
import subprocess

import board as boards
import fake_benchmark_model
import pytest
import tflite_networks
from faults import refused
from phones import ADB, adb, device, wait_for

from daqu_tf import targets
from daqu_tf.devices import DeviceGroup, DeviceLostError, DeviceSetupError, ModelError, Patience, RaspberryPiDevice
from daqu_tf.export import encoding

pytestmark = pytest.mark.devices
FAST = {"min_runs": 5, "min_seconds": 0.0, "max_warmup_seconds": 0.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("models"), []
    for width in (4, 6, 8):
        found.append(folder / f"{width}.tflite")
        encoding.write(encoding.encode(tflite_networks.mobile_network(size=8, width=width), targets.Storage()), found[-1])
    return found


@pytest.fixture
def said():
    return []


def patience(notify, attempts=3, wait_seconds=0.2):
    return Patience(attempts, wait_seconds, notify)


def plug_in_again(phone, fault):
    adb("disconnect", phone.serial, check=False)
    phone.stop()
    phone.fault = fault
    phone.start()
    with subprocess.Popen([ADB, "connect", phone.serial], stdout=subprocess.DEVNULL):
        wait_for(phone, fault or "device")


def phones_of(found):
    return collections.Counter(condition["device_name"] for each in found for condition in each.conditions)


def test_two_phones_share_the_work(plug_in, program, models):
    both = DeviceGroup([device(plug_in(), program(), processes=1) for _ in range(2)])
    found = both.measure_many(models, repeats=4, **FAST)
    assert all(len(each.run_medians_us) == 4 and each.identity == both.identity() for each in found)
    assert set(phones_of(found)) == {each.name for each in both.devices} and sum(phones_of(found).values()) == 12


def test_phones_with_other_programs_do_not(plug_in, program):
    pair = [device(plug_in(), program(then=then, name=f"program{then[-1]}")) for then in ("exit 0", ": 1; exit 0 # 1")]
    refused(DeviceGroup(pair).identity, "cannot share the work", "runtime_version", kind=DeviceSetupError)


def test_a_phone_that_is_unplugged_leaves_its_models_to_the_other(plug_in, program, models, said):
    gone, stays = plug_in(), plug_in()
    both = DeviceGroup([device(phone, program(), processes=1) for phone in (gone, stays)], patience(said.append, attempts=1))
    both.identity()
    gone.fault = "unplug"
    found = both.measure_many(models, repeats=3, **FAST)
    assert all(len(each.run_medians_us) == 3 for each in found) and set(phones_of(found)) == {f"android:{stays.serial}"}
    assert said[0].startswith(f"android:{gone.serial} is lost (") and "plug it in again" in said[0]


def test_a_phone_that_is_plugged_in_again_goes_on(plug_in, program, models, said):
    phone = plug_in()

    def notify(sentence):
        said.append(sentence)
        if "trying again" in sentence and len(said) == 2:  # At the second try.
            plug_in_again(phone, None)

    alone = DeviceGroup([device(phone, program(), processes=1)], patience(notify))
    alone.identity()
    phone.fault = "unplug"
    found = alone.measure_many(models, repeats=2, **FAST)
    assert all(len(each.run_medians_us) == 2 for each in found)
    assert [sentence.split(";")[-1] for sentence in said] == [
        " trying again in 0.2 s, 1 of 3 times.",
        " trying again in 0.4 s, 2 of 3 times.",
        f"android:{phone.serial} answers again.",
    ]


@pytest.mark.parametrize(
    "fault, sentence",
    [("unplug", "plug it in"), ("offline", "is offline"), ("unauthorized", "has not allowed this machine")],
)
def test_one_that_stays_away_ends_the_work_with_one_sentence(plug_in, program, models, fault, sentence):
    phone, runs = plug_in(), []

    def on_run(index, run):
        runs.append(run)
        if len(runs) == 3:
            phone.fault = fault
            if fault != "unplug":
                phone.stop()
                phone.start()
                adb("connect", phone.serial, check=False)

    alone = DeviceGroup([device(phone, program(), processes=1)], patience(lambda sentence: None, attempts=2))
    refused(lambda: alone.measure_each(models, on_run=on_run, **FAST), sentence, phone.serial, kind=DeviceLostError)
    assert len(runs) == 3 and all(run.median_us == 51.891 for run in runs)


def test_a_faulty_cable_is_tried_again(plug_in, program, models, said):
    phone = plug_in("truncate")

    def notify(sentence):
        said.append(sentence)
        phone.fault = None

    alone = DeviceGroup([device(phone, program(), processes=1)], patience(notify))
    alone.identity()
    assert alone.measure(models[0], **FAST).median_us == 51.891 and "was cut short" in said[0]


def test_a_model_that_takes_the_phone_with_it_each_time_is_left_out(plug_in, program, models):
    phone = plug_in()
    alone = DeviceGroup([device(phone, program(), processes=1)], patience(lambda sentence: None, wait_seconds=0.0))
    alone.identity()
    phone.fault = "truncate"

    def on_run(index, run):
        phone.fault = None

    found = alone.measure_each(models, repeats=1, on_run=on_run, **FAST)
    faults = [each for each in found if isinstance(each, ModelError)]
    assert len(faults) == 1 and "was begun 4 times" in str(faults[0]) and len(found) == 3


def test_a_full_phone_stops_the_work_of_all(plug_in, program, models):
    first, second = plug_in(), plug_in()
    both = DeviceGroup([device(phone, program(), processes=1) for phone in (first, second)], patience(lambda sentence: None))
    both.identity()
    first.fault = second.fault = "disk_full"
    refused(lambda: both.measure_many(models, **FAST), "storage of", "is full", kind=DeviceSetupError)


def test_outputs_of_two_phones_of_which_one_is_lost(plug_in, models, tmp_path):
    program = fake_benchmark_model.program(tmp_path / "benchmark_model")
    first, second = plug_in(), plug_in()
    both = DeviceGroup([device(phone, program, processes=1) for phone in (first, second)], patience(lambda sentence: None))
    expected = both.outputs(models[0])[0]
    first.stop()
    assert (both.outputs(models[0])[0] == expected).all()


def test_a_board_whose_connection_is_cut_goes_on(board, models, said):
    """The first run of all is cut; the Python of the others is a real one."""
    first = f"[ -e '{board.home}/cut' ] && exec '{boards.PYTHON}' \"$@\"; touch '{board.home}/begun'; exec sleep 20"
    found = RaspberryPiDevice(board.address, python=str(boards.PYTHON))
    alone = DeviceGroup([found], patience(said.append))
    alone.identity()
    found.python = board.script("once", first)
    begun = board.home / "begun"

    def cut():
        board.wait_until(begun.exists)
        (board.home / "cut").touch()
        board.cut()

    with board.meanwhile(cut):
        latencies = alone.measure_many(models, repeats=1, **FAST)
    assert [len(each.run_medians_us) for each in latencies] >= [1] * 3
    assert said[0].startswith(f"{found.name} is lost (The connection to") and said[-1] == f"{found.name} answers again."


def test_a_board_that_is_switched_off_for_good(board, models):
    found = RaspberryPiDevice(board.address, python=str(boards.PYTHON))
    alone = DeviceGroup([found], patience(lambda sentence: None, attempts=2))
    alone.identity()
    board.stop()
    try:
        refused(lambda: alone.measure(models[0], **FAST), f"{board.address}", kind=DeviceLostError)
    finally:
        board.start()


def test_a_host_key_that_changes_stops_the_work(board, models):
    found = RaspberryPiDevice(board.address, python=str(boards.PYTHON))
    alone = DeviceGroup([found], patience(lambda sentence: None))
    alone.identity()
    board.cut()
    board.know("other_key")
    refused(lambda: alone.measure_many(models, **FAST), "another host key", kind=DeviceSetupError)
