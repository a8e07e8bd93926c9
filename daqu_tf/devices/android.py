"""An Android phone as a device, through adb, timed with the `benchmark_model` of TFLite or LiteRT."""

import contextlib
import dataclasses
import hashlib
import math
import os
import pathlib
import re
import shlex
import signal
import tempfile
import time
import uuid
from typing import Any

import numpy as np

from daqu_tf.devices import benchmark_model, runner, steadiness
from daqu_tf.devices.adb import Adb
from daqu_tf.devices.base import Device, check_timing
from daqu_tf.devices.benchmark_model import DELEGATES
from daqu_tf.devices.errors import DeviceError, DeviceLostError, DeviceSetupError, DeviceTimeoutError, ModelError
from daqu_tf.devices.host import HostDevice
from daqu_tf.devices.measurement import Latency, identity

FOLDER = "/data/local/tmp/daqu_tf"
_RUNTIME = "benchmark_model"
_KEPT_MODELS = 50
_GRACE_SECONDS = 2
_PROPERTIES = {
    "model": ("ro.product.model",),
    "cpu": ("ro.soc.model", "ro.board.platform"),
    "abi": ("ro.product.cpu.abi",),
    "os": ("ro.build.version.release",),
}
_LOOK = """
for name in {names}; do echo "property $name $(getprop $name)"; done
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
echo "cpu $cpu"; echo "highest $(cat $cpu/cpufreq/cpuinfo_max_freq 2>/dev/null)"
done
"""
_CONDITIONS = """
for cpu in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
echo "governor $(cat $cpu/scaling_governor 2>/dev/null)"; echo "kilohertz $(cat $cpu/scaling_max_freq 2>/dev/null)"
done
for zone in /sys/class/thermal/thermal_zone*; do echo "zone $(cat $zone/type 2>/dev/null) $(cat $zone/temp 2>/dev/null)"; done
"""
# Android's shell says the first, other shells the second, and the linker the rest.
_WRONG_ABI = re.compile(r"not executable: [\w -]*|Exec format error|CANNOT LINK EXECUTABLE|unexpected e_machine")


class AndroidDevice(Device):
    """Times `.tflite` files on an Android phone.

    Files are pushed once, under their hash, to `/data/local/tmp/daqu_tf`. `benchmark_model` gives
    statistics and no samples, so each sample of a latency is the median of a whole process, or its mean where the program prints no
    median.

    Args:
        serial: The serial of the phone, as `adb devices` shows it; None takes the only device that is connected.
        benchmark_model: The path of the program for the phone's ABI, such as TensorFlow's `android_aarch64_benchmark_model` or that
            of LiteRT 2.
        threads: The number of threads of the runtime.
        delegate: The delegate: `xnnpack`, `none`, `gpu` or `nnapi`.
        core_mask: The cores to run on, as a bit mask for the phone's `taskset`; None lets Android choose.
        processes: The number of fresh processes for each measurement, each of which gives one sample.
        timeout_seconds: The time after which a command that gives no answer is ended.
        adb: The adb client, by name or path.
    """

    def __init__(
        self,
        serial: str | None,
        benchmark_model: str | os.PathLike,
        threads: int = 1,
        delegate: str = "xnnpack",
        core_mask: int | None = None,
        processes: int = 3,
        timeout_seconds: float = 300.0,
        adb: str | os.PathLike = "adb",
    ):
        if delegate not in DELEGATES:
            raise DeviceSetupError(f"`delegate` must be one of {', '.join(DELEGATES)}, but received {delegate!r}.")
        for name, value in (("threads", threads), ("processes", processes), ("core_mask", core_mask)):
            if value is not None and value < 1:
                raise DeviceSetupError(f"`{name}` must be at least 1, but received {value}.")
        self.threads, self.delegate, self.core_mask, self.processes = threads, delegate, core_mask, processes
        self._program = _read(benchmark_model, "benchmark_model")
        self._program_sha256 = hashlib.sha256(self._program).hexdigest()
        self._adb = Adb(serial, adb, timeout_seconds)
        self.serial = self._adb.serial
        self.name = f"android:{self.serial}"
        self._described: dict[str, Any] | None = None
        self._known_flags: dict[str, frozenset[str]] = {}

    def measure(
        self,
        model_path: str | os.PathLike,
        *,
        min_runs: int = 50,
        min_seconds: float = 0.2,
        max_warmup_seconds: float = 1.0,
    ) -> Latency:
        """Times a model in several fresh processes of `benchmark_model`, with the errors of `Device.measure`.

        Args:
            model_path: The path of the `.tflite` file.
            min_runs: The least number of timed calls in each process.
            min_seconds: The shortest time for the timed calls of each process, in seconds.
            max_warmup_seconds: The time for the warm-up of each process, in seconds.
        """
        check_timing(min_runs, min_seconds, max_warmup_seconds)
        file = _read(model_path, "model")
        device = self.fingerprint()
        self._cool_down()
        processes = self._processes(os.fspath(model_path), file, (min_runs, min_seconds, max_warmup_seconds))
        runs = [process.statistics(self.name) for process in processes]
        samples = tuple(run.typical_us for run in runs)
        latency = Latency(
            samples_us=samples,
            run_medians_us=samples,
            warmup_runs=sum(run.warmup_runs or 0 for run in runs),
            threads=self.threads,
            delegate=self._applied_delegate([process.output for process in processes]),
            runtime=_RUNTIME,
            runtime_version=self._program_sha256[:12],
            device=device,
            sha256=hashlib.sha256(file).hexdigest(),
            details=tuple(dataclasses.asdict(run) for run in runs),
            conditions=tuple(
                {"before": process.before, "after": process.after, "peak_memory_bytes": run.peak_memory_bytes}
                for process, run in zip(processes, runs)
            ),
        )
        return self._judged(latency, *{flag for process, run in zip(processes, runs) for flag in run.flags(process.elapsed_us)})

    def outputs(self, model_path: str | os.PathLike, images: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """Runs a model on images (N, H, W, C) and gives its raw outputs (N, classes) with their scale and zero point.

        Raises:
            ModelError: The model does not run, or this build of `benchmark_model` cannot give outputs.
        """
        model, file = os.fspath(model_path), _read(model_path, "model")
        # The program reads and writes bare bytes; the runtime on this machine says what they mean.
        inputs, form = HostDevice(timeout_seconds=self._adb.timeout_seconds).encode(model, images)
        program = self._install(self._program, "benchmark_model-{}")
        graph = self._install(file, "{}.tflite")
        known = self._flags(program)
        found = [self._output(model, program, graph, each[None], known) for each in inputs]
        shape, kind = form["output_shape"], np.dtype(form["output_type"])
        if any(len(each) != math.prod(shape) * kind.itemsize for each in found):
            raise ModelError(f"The outputs of {model} came back from {self.name} with another size: run it again.")
        return np.concatenate([np.frombuffer(each, kind).reshape(shape) for each in found]), form["scale"], form["zero_point"]

    def _output(self, model: str, program: str, graph: str, values: np.ndarray, known: frozenset[str]) -> bytes:
        """The bytes of a model's output for one input."""
        source, sink = self._install(values.tobytes(), "{}.input"), f"{FOLDER}/{uuid.uuid4().hex}.output"
        try:
            arguments = benchmark_model.output_arguments(graph, self.threads, self.delegate, values.shape, source, sink, known)
            says = self._call(model, [program, *arguments])
            if self._adb.shell(["test", "-f", sink])[0]:
                raise ModelError(
                    f"This build of benchmark_model on {self.name} gives no outputs ({benchmark_model.failure(says)}): "
                    "compare them elsewhere, or take a newer one."
                )
            with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
                self._adb.pull(sink, copy := pathlib.Path(folder, "output"))
                return copy.read_bytes()
        finally:
            for each in (source, sink):
                self._forget(each)

    def identity(self) -> dict[str, Any]:
        """The identity of the phone, in which `runtime_version` is the start of the program's hash."""
        return identity(self.fingerprint(), _RUNTIME, self._program_sha256[:12], self.threads)

    def check(self) -> None:
        """Raises `DeviceLostError` if the phone does not answer."""
        self._adb.check()

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the phone, which is asked once: its kind, serial, model and all else that its identity holds."""
        if self._described is None:
            names = [name for group in _PROPERTIES.values() for name in group]
            rows = self._look(_LOOK.format(names=" ".join(names)))
            values = dict(value.split(" ", 1) for key, value in rows if key == "property" and " " in value)
            found: dict[str, Any] = {
                key: next((values[n] for n in group if values.get(n)), None) for key, group in _PROPERTIES.items()
            }
            found["os"] = f"Android {found['os']}" if found["os"] else "Android"
            found["cores"] = sum(key == "cpu" for key, _ in rows)
            if kilohertz := _numbers(rows, "highest"):
                found["highest_hz"] = max(kilohertz) * 1000
            ours = {"core_mask": self.core_mask, "delegate": self.delegate}
            self._described = {"kind": "android", "serial": self.serial, **found, **ours}
        return dict(self._described)

    def conditions(self) -> dict[str, Any]:
        """The conditions that the phone's speed depends on at the moment; None where it does not tell one.

        `frequency_hz` is the highest that the phone allows, which it lowers when it is hot; the present one would be that of an
        idle phone.
        """
        rows = self._look(_CONDITIONS)
        governors = sorted({value.strip() for key, value in rows if key == "governor"} - {""})
        kilohertz = _numbers(rows, "kilohertz")
        zones = (value.strip().rpartition(" ") for key, value in rows if key == "zone")
        return {
            "governor": ", ".join(governors) or None,
            "frequency_hz": max(kilohertz) * 1000 if kilohertz else None,
            "temperature_celsius": runner.hottest((kind, reading) for kind, _, reading in zones),
            "throttled": None,
        }

    def temperature_celsius(self) -> float | None:
        """The temperature of the processor in degrees Celsius; None where the phone does not tell it."""
        return self.conditions()["temperature_celsius"]

    def _look(self, script: str) -> list[tuple[str, str]]:
        """The keys and values that a script prints, one pair on each line."""
        _, output = self._adb.script(script)
        return [(key, value) for key, space, value in (line.partition(" ") for line in output.splitlines()) if space]

    def clear(self) -> None:
        """Removes all files that were pushed to the phone."""
        self._adb.shell(["rm", "-rf", FOLDER])

    def _processes(self, model: str, file: bytes, settings: tuple[int, float, float]) -> list["_Process"]:
        """Runs the program in one fresh process after another."""
        program = self._install(self._program, "benchmark_model-{}")
        graph = self._install(file, "{}.tflite")
        found, before = [], self.conditions()
        arguments = benchmark_model.arguments(graph, self.threads, self.delegate, *settings, self._flags(program))
        for _ in range(self.processes):
            start = time.monotonic()
            output = self._call(model, [program, *arguments])
            elapsed_us, after = (time.monotonic() - start) * 1e6, self.conditions()
            benchmark_model.check_flags(output, self.delegate)
            found.append(_Process(output, elapsed_us, before, after))
            before = after
        return found

    def _flags(self, program: str) -> frozenset[str]:
        """The flags that the program on the phone knows, which it is asked once; none where it does not list them."""
        if program not in self._known_flags:
            try:
                _, usage = self._script([program, "--help"])  # TFLite's program fails then, and LiteRT's does not.
            except DeviceTimeoutError:
                usage = ""  # A program that hangs is told when it times a model.
            self._known_flags[program] = benchmark_model.known_flags(usage)
        return self._known_flags[program]

    def _script(self, command: list[str]) -> tuple[int, str]:
        """Runs a command on the phone, which ends it after too long, and gives its status and what it prints."""
        # adb leaves a process running when its client ends, and one that hangs would spoil what is timed next.
        limit = math.ceil(self._adb.timeout_seconds) + _GRACE_SECONDS
        return self._adb.script(f"limit=$(command -v timeout); ${{limit:+$limit {limit}}} {shlex.join(command)}")

    def _call(self, model: str, command: list[str]) -> str:
        """Runs a command about a model, and gives what it prints."""
        pinned = ["taskset", f"{self.core_mask:x}"] if self.core_mask else []
        try:
            status, output = self._script([*pinned, *command])
        except DeviceTimeoutError as error:
            self.check()  # If the phone answers, the program hangs.
            raise ModelError(
                f"{model} gave no answer within {self._adb.timeout_seconds:g} s on {self.serial} and is ended: "
                "give a longer timeout or a smaller model."
            ) from error
        if status:
            raise self._failure(model, status, output)
        return output

    def _applied_delegate(self, outputs: list[str]) -> str:
        """The delegate that computed the model or part of it; without this check, the CPU's time might pass for a GPU's."""
        if self.delegate == "none" or all(benchmark_model.applied(output, self.delegate) for output in outputs):
            return self.delegate
        if self.delegate == "xnnpack":
            return "none"
        raise ModelError(f"The {self.delegate} delegate took nothing of the model on {self.serial}: use `delegate` xnnpack.")

    def _install(self, file: bytes, name: str) -> str:
        """Pushes a file to the phone unless it is there, and gives its path on it, which holds the hash and no name of the user."""
        sha256 = hashlib.sha256(file).hexdigest()
        remote = f"{FOLDER}/{name.format(sha256)}"
        if self._sha256(remote) == sha256:
            return remote
        self._drop_old_models()
        part = f"{remote}.part"
        try:
            self._push(file, part)
            if (arrived := self._sha256(part)) != sha256:
                raise DeviceLostError(
                    f"A file changed on its way to {self.serial} (sha256 {arrived or 'unknown'}, not {sha256}): "
                    "try again, with another cable."
                )
        except DeviceError:
            self._forget(part)
            raise
        status, output = self._adb.script(f"chmod 755 {shlex.quote(part)} && mv -f {shlex.quote(part)} {shlex.quote(remote)}")
        if status:
            raise DeviceSetupError(f"{self.serial} cannot keep a file ({benchmark_model.failure(output)}): empty {FOLDER} there.")
        return remote

    def _push(self, file: bytes, remote: str) -> None:
        # A copy of the very bytes that were hashed is pushed, since the user's file may change, and so that adb never sees its
        # name.
        with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
            copy = pathlib.Path(folder, "file")
            copy.write_bytes(file)
            self._adb.shell(["mkdir", "-p", FOLDER])
            self._adb.push(copy, remote)

    def _sha256(self, remote: str) -> str | None:
        """The sha256 of a file on the phone; None if it is not there."""
        _, output = self._adb.shell(["sha256sum", remote])
        found = re.search(r"^\\?([0-9a-f]{64})\b", output, re.MULTILINE)
        return found.group(1) if found else None

    def _drop_old_models(self) -> None:
        """Removes all models from the phone but those that were pushed last."""
        names = f"cd {FOLDER} && ls -t | grep -E '^[0-9a-f]{{64}}[.]tflite$' | tail -n +{_KEPT_MODELS}"
        self._adb.script(f'{names} | while read -r name; do rm -f "$name"; done')

    def _forget(self, remote: str) -> None:
        """Removes a file from the phone, if it still answers."""
        with contextlib.suppress(DeviceError):  # The first failure is the one that is told.
            self._adb.shell(["rm", "-f", remote])

    def _failure(self, model: str, status: int, output: str) -> DeviceError:
        """The error for a process that failed."""
        if wrong := _WRONG_ABI.search(output):
            return DeviceSetupError(
                f"benchmark_model does not run on {self.serial} ({wrong.group(0)}): "
                f"build it for the ABI {self.fingerprint()['abi']} of this device."
            )
        if self.core_mask and "taskset" in output:
            reason = benchmark_model.failure(output)
            return DeviceSetupError(f"{self.serial} refused `core_mask` {self.core_mask:#x} ({reason}): give another.")
        if refused := benchmark_model.refused_flags(output):
            return DeviceSetupError(
                f"This build of benchmark_model does not take the flags that it got on {self.serial} ({refused}): "
                "take another build of it, TFLite's or LiteRT's."
            )
        reason = f"benchmark_model crashed with {_signal(status)}" if status > 128 else benchmark_model.failure(output)
        return ModelError(f"{model} could not be run on {self.serial} ({reason}): export it again or leave it out.")


@dataclasses.dataclass(frozen=True)
class _Process:
    """What one process printed, how long it took by this machine's clock, and the phone's conditions before and after."""

    output: str
    elapsed_us: float
    before: dict[str, Any]
    after: dict[str, Any]

    def statistics(self, device: str) -> benchmark_model.Statistics:
        """The statistics that the process printed, if they are possible in the time that passed here."""
        found = benchmark_model.parse(self.output)
        spoilt = found.median_us is None and "clock" in found.flags(self.elapsed_us)
        if spoilt or not steadiness.is_possible(found.typical_us, self.elapsed_us):
            shown = f"calls of {found.typical_us / 1e6:.3g} s, {found.min_us} to {found.max_us} us"
            raise steadiness.clock_fault(device, shown, self.elapsed_us)
        return found


def _numbers(rows: list[tuple[str, str]], name: str) -> list[int]:
    """The whole numbers that stand beside a key."""
    return [int(value) for key, value in rows if key == name and value.strip().isdigit()]


def _signal(status: int) -> str:
    try:
        return signal.Signals(status - 128).name
    except ValueError:
        return f"status {status}"


def _read(path: str | os.PathLike, what: str) -> bytes:
    try:
        file = pathlib.Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError comes from a name with a null byte.
        fault = ModelError if what == "model" else DeviceSetupError
        raise fault(f"The {what} {str(path)!r} cannot be read ({error}): give the path of a file.") from error
    if what == "model" and file[4:8] != b"TFL3":
        raise ModelError(f"The model {str(path)!r} {'is not a .tflite file' if file else 'is empty'}: export it again.")
    return file
