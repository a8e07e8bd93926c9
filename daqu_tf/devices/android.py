"""A phone, over adb, timed with TFLite's own `benchmark_model`."""

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
from typing import Any

from daqu_tf.devices import benchmark_model
from daqu_tf.devices.adb import Adb
from daqu_tf.devices.base import Device, Latency, check_timing, identity
from daqu_tf.devices.benchmark_model import DELEGATES
from daqu_tf.devices.errors import DeviceError, DeviceLostError, DeviceSetupError, DeviceTimeoutError, ModelError

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
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do echo "cpu $cpu"; done
"""
_CONDITIONS = """
for cpu in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
echo "governor $(cat $cpu/scaling_governor 2>/dev/null)"; echo "kilohertz $(cat $cpu/scaling_cur_freq 2>/dev/null)"
done
for zone in /sys/class/thermal/thermal_zone*; do echo "zone $(cat $zone/type 2>/dev/null) $(cat $zone/temp 2>/dev/null)"; done
"""
# The shell of Android says the first, others the second, the linker the rest.
_WRONG_ABI = re.compile(r"not executable: [\w -]*|Exec format error|CANNOT LINK EXECUTABLE|unexpected e_machine")


class AndroidDevice(Device):
    """Times `.tflite` files on a phone. Files are pushed once, under their hash, to `/data/local/tmp/daqu_tf`.

    `benchmark_model` gives statistics and no samples, so each sample of a latency is the median of a whole process, or its mean
    where the program prints no median.

    Args:
        serial: As in `adb devices`; None takes the only device that there is.
        benchmark_model: Path of the program, built for the phone's ABI, such as TensorFlow's `android_aarch64_benchmark_model`.
        threads: Threads for the runtime.
        delegate: `xnnpack`, `none`, `gpu` or `nnapi`.
        core_mask: The cores to run on, as a bit mask for the phone's `taskset`; None lets Android choose.
        processes: Fresh processes for each measurement, which are its samples.
        timeout_seconds: When a command that gives no answer is ended.
        adb: The adb client.
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

    def measure(
        self,
        model_path: str | os.PathLike,
        min_runs: int = 50,
        min_seconds: float = 0.2,
        max_warmup_seconds: float = 1.0,
    ) -> Latency:
        """Times a model; see `Device.measure`. Each process makes `min_runs` calls or more; warm-up: `max_warmup_seconds`."""
        check_timing(min_runs, min_seconds, max_warmup_seconds)
        file = _read(model_path, "model")
        device = self.fingerprint()
        outputs, conditions = self._outputs(os.fspath(model_path), file, (min_runs, min_seconds, max_warmup_seconds))
        runs = [benchmark_model.parse(output) for output in outputs]
        samples = tuple(run.typical_us for run in runs)
        return Latency(
            samples_us=samples,
            run_medians_us=samples,
            warmup_runs=sum(run.warmup_runs or 0 for run in runs),
            threads=self.threads,
            delegate=self._applied_delegate(outputs),
            runtime=_RUNTIME,
            runtime_version=self._program_sha256[:12],
            device=device,
            sha256=hashlib.sha256(file).hexdigest(),
            details=tuple(dataclasses.asdict(run) for run in runs),
            conditions=tuple(
                {"before": before, "after": after, "peak_memory_bytes": run.peak_memory_bytes}
                for run, before, after in zip(runs, conditions, conditions[1:])
            ),
        )

    def identity(self) -> dict[str, Any]:
        """See `Device.identity`; `runtime_version` is the hash of the program."""
        return identity(self.fingerprint(), _RUNTIME, self._program_sha256[:12], self.threads)

    def check(self) -> None:
        """See `Device.check`."""
        self._adb.check()

    def fingerprint(self) -> dict[str, Any]:
        """Describes the phone, which is asked once: its kind, serial, model, cpu, abi, os, cores and how they are used."""
        if self._described is None:
            names = [name for group in _PROPERTIES.values() for name in group]
            rows = self._look(_LOOK.format(names=" ".join(names)))
            values = dict(value.split(" ", 1) for key, value in rows if key == "property" and " " in value)
            found = {key: next((values[n] for n in group if values.get(n)), None) for key, group in _PROPERTIES.items()}
            found["os"] = f"Android {found['os']}" if found["os"] else "Android"
            found["cores"] = sum(key == "cpu" for key, _ in rows)
            ours = {"core_mask": self.core_mask, "delegate": self.delegate}
            self._described = {"kind": "android", "serial": self.serial, **found, **ours}
        return dict(self._described)

    def conditions(self) -> dict[str, Any]:
        """What the speed depends on at the moment, None where it does not tell: governors, highest frequency, temperature."""
        rows = self._look(_CONDITIONS)
        governors = sorted({value.strip() for key, value in rows if key == "governor"} - {""})
        kilohertz = [int(value) for key, value in rows if key == "kilohertz" and value.strip().isdigit()]
        return {
            "governor": ", ".join(governors) or None,
            "frequency_hz": max(kilohertz) * 1000 if kilohertz else None,
            "temperature_celsius": _temperature([value for key, value in rows if key == "zone"]),
        }

    def _look(self, script: str) -> list[tuple[str, str]]:
        """Lines that a script prints, each a key and a value."""
        _, output = self._adb.script(script)
        return [(key, value) for key, space, value in (line.partition(" ") for line in output.splitlines()) if space]

    def clear(self) -> None:
        """Removes all that was pushed to the phone."""
        self._adb.shell(["rm", "-rf", FOLDER])

    def _outputs(self, model: str, file: bytes, settings: tuple[int, float, float]) -> tuple[list[str], list[dict[str, Any]]]:
        """What each process prints, and the conditions before each and after the last."""
        program = self._install(self._program, "benchmark_model-{}")
        graph = self._install(file, "{}.tflite")
        arguments = benchmark_model.arguments(graph, self.threads, self.delegate, *settings)
        outputs, conditions = [], [self.conditions()]
        for _ in range(self.processes):
            outputs.append(self._call(model, [program, *arguments]))
            conditions.append(self.conditions())
        return outputs, conditions

    def _call(self, model: str, command: list[str]) -> str:
        """What the program prints."""
        pinned = ["taskset", f"{self.core_mask:x}"] if self.core_mask else []
        # adb leaves a process running when its client ends; one that hangs would spoil what is timed next.
        limit = math.ceil(self._adb.timeout_seconds) + _GRACE_SECONDS
        script = f"limit=$(command -v timeout); ${{limit:+$limit {limit}}} {shlex.join([*pinned, *command])}"
        try:
            status, output = self._adb.script(script)
        except DeviceTimeoutError as error:
            self.check()  # If the phone answers, it is the program that hangs.
            raise ModelError(
                f"{model} gave no answer within {self._adb.timeout_seconds:g} s on {self.serial} and is ended: "
                "give a longer timeout or a smaller model."
            ) from error
        if status:
            raise self._failure(model, status, output)
        return output

    def _applied_delegate(self, outputs: list[str]) -> str:
        """The delegate that took the model or part of it; without that a GPU's time would be the CPU's."""
        if self.delegate == "none" or all(benchmark_model.applied(output, self.delegate) for output in outputs):
            return self.delegate
        if self.delegate == "xnnpack":
            return "none"
        raise ModelError(f"The {self.delegate} delegate took nothing of the model on {self.serial}: use `delegate` xnnpack.")

    def _install(self, file: bytes, name: str) -> str:
        """Brings a file to the phone unless it is there, whole; returns its path, which no name of ours is part of."""
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
        # From a copy of the very bytes that were hashed: the user's file may change meanwhile, and adb never sees its name.
        with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
            copy = pathlib.Path(folder, "file")
            copy.write_bytes(file)
            self._adb.shell(["mkdir", "-p", FOLDER])
            self._adb.push(copy, remote)

    def _sha256(self, remote: str) -> str | None:
        """The hash of a file on the phone; None if it is not there."""
        _, output = self._adb.shell(["sha256sum", remote])
        found = re.search(r"^\\?([0-9a-f]{64})\b", output, re.MULTILINE)
        return found.group(1) if found else None

    def _drop_old_models(self) -> None:
        """Keeps the models that were pushed last."""
        names = f"cd {FOLDER} && ls -t | grep -E '^[0-9a-f]{{64}}[.]tflite$' | tail -n +{_KEPT_MODELS}"
        self._adb.script(f'{names} | while read -r name; do rm -f "$name"; done')

    def _forget(self, remote: str) -> None:
        """Removes what is left of a push that failed, if the phone still answers."""
        with contextlib.suppress(DeviceError):  # The first failure is the one to tell.
            self._adb.shell(["rm", "-f", remote])

    def _failure(self, model: str, status: int, output: str) -> DeviceError:
        """The sentence for a process that failed."""
        if wrong := _WRONG_ABI.search(output):
            return DeviceSetupError(
                f"benchmark_model does not run on {self.serial} ({wrong.group(0)}): "
                f"build it for the ABI {self.fingerprint()['abi']} of this device."
            )
        if self.core_mask and "taskset" in output:
            reason = benchmark_model.failure(output)
            return DeviceSetupError(f"{self.serial} refused `core_mask` {self.core_mask:#x} ({reason}): give another.")
        reason = f"benchmark_model crashed with {_signal(status)}" if status > 128 else benchmark_model.failure(output)
        return ModelError(f"{model} could not be run on {self.serial} ({reason}): export it again or leave it out.")


def _signal(status: int) -> str:
    try:
        return signal.Signals(status - 128).name
    except ValueError:
        return f"status {status}"


def _read(path: str | os.PathLike, what: str) -> bytes:
    try:
        file = pathlib.Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte.
        fault = ModelError if what == "model" else DeviceSetupError
        raise fault(f"The {what} {str(path)!r} cannot be read ({error}): give the path of a file.") from error
    if what == "model" and file[4:8] != b"TFL3":
        raise ModelError(f"The model {str(path)!r} {'is not a .tflite file' if file else 'is empty'}: export it again.")
    return file


def _temperature(zones: list[str]) -> float | None:
    """The warmest of the processor's zones, each `type value` with a value in degrees or in thousandths of them."""
    values = []
    for zone in zones:
        kind, _, text = zone.strip().rpartition(" ")
        value = float(text) if re.fullmatch(r"-?\d+", text) else 0.0
        value = value / 1000 if abs(value) >= 1000 else value
        # Not plain `soc`, which some phones call the state of the battery's charge.
        if re.search(r"cpu|tsens|soc.?therm|^(big|mid|little)$", kind, re.IGNORECASE) and 0 < value < 150:
            values.append(value)
    return max(values, default=None)
