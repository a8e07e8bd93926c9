"""Phones: the real adb client, and the daemon of `adbd.py` in place of the phone's."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import adbd
import benchmark_outputs
import fake_benchmark_model
import numpy as np
import pytest
import tflite_networks
from phones import ADB, FOLDER, device

from daqu_tf import targets, tflite
from daqu_tf.devices import AndroidDevice, DeviceLostError, DeviceSetupError, HostDevice, ModelError
from daqu_tf.devices import adb as adb_client
from daqu_tf.export import encoding

pytestmark = [pytest.mark.devices, pytest.mark.usefixtures("adb_server")]
FAST = {"min_runs": 20, "min_seconds": 0.1, "max_warmup_seconds": 0.05}
HOSTILE = ["a b", "'q'\"", "; touch pwned", "$(touch pwned)", "`touch pwned`", "&& touch pwned #", "-rf", "--graph=x", "ü*?[~"]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(256)) * 1000)
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "real.tflite"
    encoding.write(encoding.encode(tflite_networks.mobile_network(size=8, width=4), targets.Storage()), path)
    return path


def test_its_outputs_are_those_of_the_host(plug_in, real, tmp_path):
    phone = plug_in()
    found = device(phone, fake_benchmark_model.program(tmp_path / "benchmark_model"), processes=1)
    shape = tflite.read(real.read_bytes()).tensors[0].shape
    for images in (None, np.random.default_rng(3).random((2, *shape[1:]), np.float32)):
        here, there = HostDevice().outputs(real, images), found.outputs(real, images)
        np.testing.assert_array_equal(there[0], here[0])
        assert there[0].dtype == np.int8 and there[1:] == here[1:] and len(there[0]) == (1 if images is None else 2)
    np.testing.assert_array_equal(found.predict(real, images), HostDevice().predict(real, images))
    assert sorted(path.suffix for path in (phone.root / FOLDER).iterdir()) == ["", ".tflite"]
    latency = found.measure(real, **FAST)
    assert 0 < latency.median_us < 100_000 and latency.delegate == "xnnpack" and latency.details[0]["count"] >= 20
    with pytest.raises(ModelError, match="it takes a batch of shape"):
        found.outputs(real, np.zeros((1, 3, 3, 1)))


def test_the_program_of_litert_is_timed_with_the_flags_that_it_knows(plug_in, real, tmp_path):
    phone = plug_in()
    found = device(phone, fake_benchmark_model.program(tmp_path / "benchmark_model", "litert"), processes=2)
    latency = found.measure(real, **FAST)
    assert latency.delegate == "xnnpack" and all(each["count"] >= 20 and each["median_us"] for each in latency.details)
    found.measure(real, **FAST)
    asked = [command for command in phone.commands if "--help" in command]
    timed = [command for command in phone.commands if "--graph=" in command]
    assert (len(asked), len(timed)) == (1, 4) and not any("use_xnnpack" in command for command in timed)
    with pytest.raises(ModelError, match="gives no outputs .*does not know .*--output_filepath.*: compare them elsewhere"):
        found.outputs(real)


@pytest.mark.parametrize("then", ["exit 0", "echo 'Unconsumed cmdline flags: --output_filepath' >&2; exit 0"])
def test_a_program_that_gives_no_outputs_says_so(plug_in, program, real, then):
    with pytest.raises(ModelError, match="gives no outputs .*: compare them elsewhere, or take a newer one"):
        device(plug_in(), program(then=then)).outputs(real)


def test_outputs_of_another_size_are_refused(plug_in, program, real):
    writes = 'for flag; do case $flag in --output_filepath=*) echo short >"${flag#*=}";; esac; done'
    with pytest.raises(ModelError, match="came back from android:.* with another size"):
        device(plug_in(), program(then=writes)).outputs(real)


def test_the_tool_times_on_a_phone_and_on_this_machine(plug_in, real, tmp_path, monkeypatch):
    table, program = tmp_path / "latencies.json", fake_benchmark_model.program(tmp_path / "benchmark_model")
    phone = f"android:{plug_in().serial}"
    monkeypatch.setenv("PATH", str(ADB.parent), prepend=os.pathsep)
    flags = [f"--device={phone}", "--device=host", f"--benchmark_model={program}", "--repeats=1", f"--json={table}", str(real)]
    done = subprocess.run([sys.executable, "-m", "daqu_tf.tools.benchmark", *flags], check=True, capture_output=True, text=True)
    assert f"{phone}: {real} gives the very outputs of the host." in done.stdout
    rows = {row["device_name"]: row for row in json.loads(table.read_text())}
    assert {name: row["runtime"] for name, row in rows.items()} == {phone: "benchmark_model", "host": "ai-edge-litert"}
    assert rows[phone].keys() == rows["host"].keys() and rows[phone]["parity_with_host"]["largest_difference"] == 0


def fails(phone, program, model, sentence, kind=ModelError, cool=None, **settings):
    with pytest.raises(kind, match=sentence) as caught:
        found = device(phone, program, **settings)
        found.cool_seconds = cool or found.cool_seconds
        found.measure(model, **FAST)
    assert str(caught.value).isprintable() and str(caught.value).endswith(".")
    return str(caught.value)


@pytest.mark.parametrize("features", ["shell_v2", ""])
def test_a_file_is_timed(plug_in, program, model, features):
    phone = plug_in(features=features)
    latency = device(phone, program(), threads=2).measure(model, **FAST)
    assert latency.samples_us == latency.run_medians_us == (51.891,) * 3
    assert (latency.median_us, latency.warmup_runs, latency.threads, latency.delegate) == (51.891, 27, 2, "xnnpack")
    assert latency.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (
        latency.runtime == "benchmark_model" and latency.runtime_version == hashlib.sha256(program().read_bytes()).hexdigest()[:12]
    )
    graph, *rest = (phone.root / "arguments").read_text().split("\n")[:-1]
    assert graph == f"--graph={phone.root}/{FOLDER}/{latency.sha256}.tflite"
    assert rest == [
        "--num_threads=2",
        "--num_runs=20",
        "--min_secs=0.1",
        "--warmup_runs=1",
        "--warmup_min_secs=0.05",
        "--use_xnnpack=true",
    ]
    assert json.loads(json.dumps(latency.to_json()))["details"][2]["memory_mb"] == 55.4961


def test_the_phone_is_described(plug_in, program):
    phone = plug_in()
    assert device(phone, program(), core_mask=0x30).fingerprint() == {
        "kind": "android",
        "serial": phone.serial,
        "model": "Pixel Stand-In",
        "cpu": "gs101",
        "abi": "arm64-v8a",
        "os": "Android 14",
        "cores": 4,
        "highest_hz": 2_899_000_000,
        "core_mask": 0x30,
        "delegate": "xnnpack",
    }


def test_its_conditions_stand_beside_its_samples(plug_in, program, model):
    phone = plug_in()
    moment = {"governor": "performance, schedutil", "frequency_hz": 2_802_000_000, "temperature_celsius": 43.7, "throttled": None}
    assert (
        device(phone, program(), processes=2).measure(model, **FAST).conditions
        == ({"before": moment, "after": moment, "peak_memory_bytes": None},) * 2
    )


def test_a_latency_is_of_the_device_s_identity(plug_in, program, model):
    first, second = (device(plug_in(), program(), threads=2) for _ in range(2))
    assert first.name == f"android:{first.serial}" != second.name
    assert first.measure(model, **FAST).identity == first.identity() == second.identity()
    assert first.identity() == {
        "kind": "android",
        "model": "Pixel Stand-In",
        "cpu": "gs101",
        "cores": 4,
        "highest_hz": 2_899_000_000,
        "abi": "arm64-v8a",
        "os": "Android 14",
        "core_mask": None,
        "delegate": "xnnpack",
        "runtime": "benchmark_model",
        "runtime_version": hashlib.sha256(program().read_bytes()).hexdigest()[:12],
        "threads": 2,
    }


def test_what_cannot_be_read_is_left_out(plug_in, program, model):
    phone = plug_in()
    (phone.root / "bin/getprop").unlink()
    for sensor in phone.root.glob("sys/class/thermal/*/temp"):
        sensor.unlink()
    for cpu in phone.root.glob("sys/devices/system/cpu/*/cpufreq"):
        shutil.rmtree(cpu)
    latency = device(phone, program()).measure(model, **FAST)
    assert (latency.device["model"], latency.device["os"], latency.device["cores"]) == (None, "Android", 4)
    assert set(latency.conditions[0]["before"].values()) == {None}


@pytest.mark.parametrize("name", ["MEDIANS", "MEANS", "AVERAGES", "NO_STATS", "LOGCAT", "PROFILE", "LITERT"])
def test_every_format_passes_through_adb(plug_in, program, model, name):
    longest = {"MEANS": 3.2, "LOGCAT": 3.1, "MEDIANS": 0.7}.get(name, 0.1)  # Of its calls, in seconds.
    says = program(getattr(benchmark_outputs, name), f"sleep {longest}")
    latency = device(plug_in(features=""), says, processes=1).measure(model, **FAST)
    typical = {"MEDIANS": 51891, "MEANS": 2.95034e6, "AVERAGES": 79760.9, "NO_STATS": 2177.1, "LOGCAT": 2709263, "PROFILE": 79732}
    typical["LITERT"] = 13401
    assert latency.samples_us == (typical[name],) and latency.flags == ()


QUICK = benchmark_outputs.QUICK
JUMPED = QUICK.replace("min=49.088", "min=-3599999990")
NO_MEDIAN = re.sub(r" p5=.*", "", JUMPED)


@pytest.mark.parametrize(
    ("output", "flags"),
    [
        (QUICK, ()),
        (JUMPED, ("clock",)),
        (QUICK.replace("max=686.105", "max=1.8e+19"), ("clock",)),
        (re.sub(r" p5=.*", "", QUICK), ("spread",)),  # A mean, of calls that differ as much as these do.
    ],
)
def test_doubtful_statistics_are_flagged(plug_in, program, model, output, flags):
    latency = device(plug_in(), program(output), processes=2).measure(model, **FAST)
    assert latency.flags == flags and len(latency.samples_us) == 2


@pytest.mark.parametrize(
    "output",
    [
        NO_MEDIAN,
        re.sub("median=[0-9.]+", "median=-51", QUICK),
        re.sub("median=[0-9.]+", "median=0", QUICK),
        re.sub("median=[0-9.]+", "median=1.8e+19", QUICK),
        "Inference (avg): -3.2e+06",
        "Inference (avg): 0",
        "Inference (avg): 3600000000",
    ],
)
def test_times_that_cannot_be_are_a_fault_of_the_clock(plug_in, program, model, output):
    fails(plug_in(), program(output), model, "The clock of android:.* jumped or is wrong .*: let it set its time", DeviceLostError)


def test_a_phone_that_is_too_hot(plug_in, program, model):
    phone = plug_in()
    sensor = phone.root / "sys/class/thermal/thermal_zone1/temp"
    sensor.write_text("91000")
    fails(phone, program(), model, "has 91 degrees Celsius before it has timed anything.*give it air", DeviceSetupError, cool=0.5)
    heat = program("", f"echo 85000 >{sensor}; cat <<'END'\n{QUICK}\nEND", name="heats")
    sensor.write_text("41200")
    found = device(phone, heat, processes=1)
    found.cool_seconds = 0.5
    assert found.measure(model, **FAST).flags == ("throttled",)  # And the next one, after a wait that does not help.
    assert found.measure(model, **FAST).flags == ("throttled",)
    cooler = threading.Timer(1, lambda: sensor.write_text("41200"))
    cooler.start()
    found.cool_seconds, found._program = 30, program().read_bytes()
    start = time.monotonic()
    assert found.measure(model, **FAST).flags == () and 0.5 < time.monotonic() - start < 20


def test_a_frequency_that_falls(plug_in, program, model):
    phone = plug_in()
    clocks = f"for clock in {phone.root}/sys/devices/system/cpu/cpu*/cpufreq/scaling_max_freq; do echo 1500000 >$clock; done"
    says = program("", f"{clocks}; cat <<'END'\n{QUICK}\nEND")
    assert device(phone, says, processes=1).measure(model, **FAST).flags == ("throttled",)


def test_files_are_pushed_once(plug_in, program, model, tmp_path):
    phone, again = plug_in(), tmp_path / "same bytes.tflite"
    again.write_bytes(model.read_bytes())
    for path in (model, again):
        device(phone, program()).measure_many([path, model], repeats=2, **FAST)
    assert len(phone.pushed) == 2
    assert sorted(path.name for path in (phone.root / FOLDER).iterdir()) == sorted(
        [
            f"{hashlib.sha256(model.read_bytes()).hexdigest()}.tflite",
            f"benchmark_model-{hashlib.sha256(program().read_bytes()).hexdigest()}",
        ]
    )


def test_a_file_that_is_damaged_on_the_phone_is_replaced(plug_in, program, model):
    phone = plug_in()
    first = device(phone, program()).measure(model, **FAST)
    stored = phone.root / FOLDER / f"{first.sha256}.tflite"
    stored.write_bytes(b"")
    device(phone, program()).measure(model, **FAST)
    assert len(phone.pushed) == 3 and stored.read_bytes() == model.read_bytes()


def test_a_changed_model_is_another_model(plug_in, program, model):
    phone = plug_in()
    first = device(phone, program()).measure(model, **FAST)
    model.write_bytes(model.read_bytes() + b"more")
    assert device(phone, program()).measure(model, **FAST).sha256 != first.sha256


def test_only_the_last_models_are_kept(plug_in, program, model):
    phone = plug_in()
    for index in range(70):
        os.utime(adbd.write(phone.root / FOLDER / f"{index:064x}.tflite", "old"), (index, index))
    mine = adbd.write(phone.root / FOLDER / "mine.tflite", "not ours")
    device(phone, program()).measure(model, **FAST)
    kept = {path.name for path in (phone.root / FOLDER).glob("*.tflite")} - {mine.name}
    assert mine.exists() and len(kept) == 50 and f"{69:064x}.tflite" in kept and f"{0:064x}.tflite" not in kept


def test_clear_removes_all(plug_in, program, model):
    phone = plug_in()
    phones = device(phone, program())
    phones.measure(model, **FAST)
    phones.clear()
    assert not (phone.root / FOLDER).exists()


def test_a_core_mask_goes_to_taskset(plug_in, program, model):
    phone = plug_in()
    adbd.write_script(phone.root / "bin/taskset", 'echo "$1" >"$ROOT/mask"; shift; exec "$@"')
    device(phone, program(), core_mask=0xF0).measure(model, **FAST)
    assert (phone.root / "mask").read_text() == "f0\n"


def test_a_core_mask_that_the_phone_has_not_is_told(plug_in, program, model):
    phone = plug_in()
    adbd.write_script(phone.root / "bin/taskset", 'echo "taskset: failed to set affinity: Invalid argument"; exit 1')
    fails(phone, program(), model, "refused `core_mask` 0xf00 .*Invalid argument", DeviceSetupError, core_mask=0xF00)


def test_the_only_phone_needs_no_serial(plug_in, program, model):
    phone = plug_in()
    assert AndroidDevice(None, program(), adb=ADB).serial == phone.serial


def test_a_phone_that_asks_for_the_key_is_given_it(plug_in, program, model):
    phone = plug_in("ask")
    assert device(phone, program()).measure(model, **FAST).median_us == 51.891
    assert phone.authorized


@pytest.mark.parametrize("delegate", ["gpu", "nnapi"])
def test_a_delegate_that_takes_nothing_is_a_failure(plug_in, program, model, delegate):
    fails(plug_in(), program(), model, f"The {delegate} delegate took nothing", delegate=delegate)


@pytest.mark.parametrize("delegate", ["gpu", "nnapi"])
def test_a_delegate_that_was_applied_is_named(plug_in, program, model, delegate):
    said = (
        f"INFO: Explicitly applied {delegate.upper()} delegate, and the model graph will be completely executed by the delegate.\n"
    )
    phone = plug_in()
    assert device(phone, program(said + benchmark_outputs.QUICK), delegate=delegate).measure(model, **FAST).delegate == delegate
    assert f"--use_{delegate}=true" in (phone.root / "arguments").read_text()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_reach_no_shell(plug_in, program, model, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phone = plug_in()
    path = model.rename(f"{name}.tflite")  # Relative, so that it begins as it does.
    program(name=f"{name}.program")
    assert AndroidDevice(phone.serial, f"{name}.program", adb=ADB).measure(path, **FAST).median_us == 51.891
    assert not any(name in text for text in phone.commands + phone.pushed)
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("serial", HOSTILE)
def test_hostile_serials_reach_no_shell(program, model, serial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DeviceSetupError, DeviceLostError), match="`serial` must be|There is no device"):
        AndroidDevice(serial, program(), adb=ADB).measure(model, **FAST)
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("serial", ["", "-s", "-", "a\nb", "a\0b", "\x1b[2J", "a\tb"])
def test_serials_that_are_none_are_refused(program, serial):
    with pytest.raises(DeviceSetupError, match="`serial` must be one that `adb devices` shows"):
        AndroidDevice(serial, program(), adb="/no/such/client")


@pytest.mark.parametrize("setting", [{"threads": 0}, {"processes": 0}, {"core_mask": 0}, {"core_mask": -1}, {"delegate": "tpu"}])
def test_settings_out_of_range_are_refused(program, setting):
    with pytest.raises(DeviceSetupError, match=f"`{next(iter(setting))}` must be"):
        AndroidDevice("any", program(), adb=ADB, **setting)


def test_measurements_out_of_range_are_refused(program, model):
    with pytest.raises(DeviceSetupError, match="`min_runs` must be at least 1"):
        AndroidDevice("any", program(), adb=ADB).measure(model, min_runs=0)


def test_no_client(program):
    with pytest.raises(DeviceSetupError, match="The adb client '/no/such/adb' cannot be started .*apt-get install adb"):
        AndroidDevice(None, program(), adb="/no/such/adb")


def test_no_phone(program):
    with pytest.raises(DeviceLostError, match="There is no device: plug one in"):
        AndroidDevice(None, program(), adb=ADB)


def test_no_such_serial(program, model):
    with pytest.raises(DeviceLostError, match="There is no device R58M123: plug it in"):
        AndroidDevice("R58M123", program(), adb=ADB).measure(model, **FAST)


def test_two_phones_and_no_serial(plug_in, program):
    first, second = plug_in(), plug_in()
    with pytest.raises(DeviceSetupError, match="There are 2 devices, .*: name the one to use") as caught:
        AndroidDevice(None, program(), adb=ADB)
    assert first.serial in str(caught.value) and second.serial in str(caught.value)


def test_two_phones_are_told_apart(plug_in, program, model):
    first, second = plug_in(), plug_in()
    device(second, program()).measure(model, **FAST)
    assert second.pushed and not first.commands


@pytest.mark.parametrize(
    ("state", "sentence"),
    [("offline", "is offline: plug it in again"), ("unauthorized", "has not allowed this machine: unlock it")],
)
def test_a_phone_that_does_not_take_part(plug_in, program, model, state, sentence):
    fails(plug_in(state, state=state), program(), model, sentence, DeviceLostError)


@pytest.mark.parametrize("system", ["recovery", "sideload"])
def test_a_phone_that_has_not_started_android_is_not_waited_for(plug_in, program, model, system):
    phone = plug_in(system, state=system)
    fails(phone, program(), model, f"has not started Android, but {system}: call `adb -s {phone.serial} reboot`", DeviceSetupError)


@pytest.mark.parametrize("features", ["shell_v2", ""])
@pytest.mark.parametrize(
    ("fault", "sentence", "kind"),
    [
        ("unplug", "went away in the middle of a command: plug it in again", DeviceLostError),
        ("truncate", "was cut short", DeviceLostError),
        ("disk_full", "The storage of .* is full: free some", DeviceSetupError),
        ("corrupt", "A file changed on its way", DeviceLostError),
    ],
)
def test_faults_on_the_way(plug_in, program, model, fault, sentence, kind, features):
    phone = plug_in(fault, features)
    fails(phone, program(), model, sentence, kind)
    assert not list((phone.root / FOLDER).glob("*.part"))


def test_after_a_fault_it_goes_on(plug_in, program, model):
    phone = plug_in("corrupt")
    fails(phone, program(), model, "changed on its way", DeviceLostError)
    phone.fault = None
    assert device(phone, program()).measure(model, **FAST).median_us == 51.891


def test_a_command_that_hangs(plug_in, program, model):
    phone = plug_in("hang")
    start = time.monotonic()
    fails(phone, program(), model, "model.tflite gave no answer within 4 s", timeout_seconds=4)
    assert time.monotonic() - start < 30


def test_a_phone_that_hangs_altogether(plug_in, program, model, monkeypatch):
    phone = plug_in("freeze")
    monkeypatch.setattr(adb_client, "_CHECK_SECONDS", 2)
    fails(phone, program(), model, f"{phone.serial} gave no answer within", DeviceLostError, timeout_seconds=4)
    with pytest.raises(DeviceLostError, match="gave no answer within 2 s"):
        device(phone, program()).check()
    phone.fault = None
    device(phone, program()).check()


def test_a_program_that_hangs_is_ended_on_the_phone_too(plug_in, program, model):
    phone = plug_in()
    fails(phone, program("", 'echo $$ >"$ROOT/pid"; exec sleep 60'), model, "gave no answer within 5 s", timeout_seconds=5)
    process = pathlib.Path("/proc", (phone.root / "pid").read_text().strip())
    end = time.monotonic() + 20
    while process.exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_server_that_is_none(program, model, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(other.getsockname()[1]))
        threading.Thread(target=lambda: [other.accept()[0].close() for _ in range(2)], daemon=True).start()
        with pytest.raises(DeviceLostError, match="adb's server does not answer .*: try `adb kill-server`"):
            AndroidDevice("any", program(), adb=ADB).measure(model, **FAST)


@pytest.mark.parametrize(
    "said",
    ['"/system/bin/sh: $0: not executable: 64-bit ELF file"', '"sh: $0: Exec format error"', '"CANNOT LINK EXECUTABLE \\"$0\\""'],
)
def test_a_program_for_another_abi(plug_in, program, model, said):
    said = program("", f"echo {said} >&2; exit 126")
    fails(plug_in(), said, model, "does not run on .*: build it for the ABI arm64-v8a", DeviceSetupError)


def test_a_model_that_the_program_refuses(plug_in, program, model):
    said = fails(plug_in(), program(benchmark_outputs.FAILURE, "exit 1"), model, "batch_matmul.cc:353")
    assert str(model) in said and "export it again or leave it out" in said


def test_a_program_that_refuses_its_flags_is_no_fault_of_the_model(plug_in, program, model):
    refuses = program("ERROR: Failed to parse flag 'num_threads' against argv '--num_threads=1'\nERROR: usage: x <flags>", "exit 1")
    said = fails(plug_in(), refuses, model, "does not take the flags .*Failed to parse flag 'num_threads'", DeviceSetupError)
    assert str(model) not in said and "take another build" in said


@pytest.mark.parametrize(("delegate", "flag"), [("none", "--use_xnnpack"), ("nnapi", "--use_nnapi")])
def test_what_a_build_cannot_be_told_is_no_fault_of_the_model(plug_in, real, tmp_path, delegate, flag):
    litert = fake_benchmark_model.program(tmp_path / "benchmark_model", "litert")
    fails(plug_in(), litert, real, f"does not know {flag}, which `delegate` {delegate} needs", DeviceSetupError, delegate=delegate)


def test_a_flag_that_is_ignored_is_told_by_builds_that_list_none(plug_in, program, model):
    ignores = program(f"WARN: Unconsumed cmdline flags: --use_gpu=true\n{QUICK}")
    fails(plug_in(), ignores, model, "does not know --use_gpu, which `delegate` gpu needs", DeviceSetupError, delegate="gpu")


@pytest.mark.parametrize("features", ["shell_v2", ""])
def test_a_program_that_crashes(plug_in, program, model, features):
    fails(plug_in(features=features), program("INFO: STARTING!", "kill -SEGV $$"), model, "benchmark_model crashed with SIGSEGV")


@pytest.mark.parametrize("said", ["head -c 3000 /dev/urandom", "printf 'count=5 avg=1.2.3\\nInference (avg): x\\n'", "true"])
def test_garbage(plug_in, program, model, said):
    fails(plug_in(), program("", said), model, "benchmark_model printed")


@pytest.mark.parametrize("content", [b"", b"no such thing"])
def test_what_is_no_model_is_not_pushed(plug_in, program, model, content):
    phone = plug_in()
    model.write_bytes(content)
    fails(phone, program(), model, "is empty|is not a .tflite file")
    assert not phone.pushed


def test_files_that_are_not_there(plug_in, program, tmp_path):
    with pytest.raises(DeviceSetupError, match="The benchmark_model .* cannot be read"):
        device(plug_in(), tmp_path / "none")
    for name in ("none", "null\0byte"):
        with pytest.raises(ModelError, match="The model .* cannot be read"):
            AndroidDevice("any", program(), adb=ADB).measure(f"{tmp_path}/{name}", **FAST)


def test_latencies_of_one_phone_can_be_joined(plug_in, program, model):
    (latency,) = device(plug_in(), program(), processes=2).measure_many([model], repeats=2, **FAST)
    assert (len(latency.samples_us), len(latency.details), latency.warmup_runs) == (4, 4, 36)
