"""What all devices share: the measured latency, who a device is, and fair timing of many models."""

import abc
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf.devices.errors import DeviceSetupError

_JSON_SAMPLES = 1000
# What of a fingerprint says which kind of device it is, and stays the same from day to day; not which one of several it is, its
# address, its temperature.
_IDENTITY = ("kind", "board", "model", "cpu", "cores", "abi", "os", "pinned_to", "core_mask", "delegate")


@dataclasses.dataclass(frozen=True)
class Latency:
    """The latency of one model on one device, with all that is needed to judge it.

    Attributes:
        samples_us: Every timed call after the warm-up, in microseconds, in the order taken; of a runtime that gives statistics
            and no samples, the median of each fresh process, or else its mean.
        run_medians_us: The median of each fresh process; their spread shows drift, which samples of one process hide.
        warmup_runs: Calls made before the first sample, over all processes.
        threads: Threads that the runtime was given.
        delegate: What took part of the model: `xnnpack`, `gpu`, `nnapi` or `none`.
        runtime: The Python package of the runtime, or `benchmark_model`.
        runtime_version: Its version.
        device: The device's fingerprint: kind, board or model, cpu, cores, os, the cpus the process was pinned to, and the
            delegate that was asked for, which need not have taken part of this model.
        sha256: Hash of the very bytes that were timed, in hex.
        details: What a runtime that gives statistics says of each process, one after the other.
        conditions: Of each fresh process, what else bears on its samples, None where the device does not tell: `before` and `after`
            with `governor`, `frequency_hz` and `temperature_celsius`, and `peak_memory_bytes`.
    """

    samples_us: tuple[float, ...]
    run_medians_us: tuple[float, ...]
    warmup_runs: int
    threads: int
    delegate: str
    runtime: str
    runtime_version: str
    device: dict[str, Any]
    sha256: str
    details: tuple[dict[str, Any], ...] = ()
    conditions: tuple[dict[str, Any], ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What timed it, as `Device.identity` says it, to store the latency under."""
        return identity(self.device, self.runtime, self.runtime_version, self.threads)

    @property
    def median_us(self) -> float:
        """The median of the samples, in microseconds."""
        return float(np.median(self.samples_us))

    @property
    def p90_us(self) -> float:
        """The 90th percentile of the samples, in microseconds."""
        return float(np.percentile(self.samples_us, 90))

    @property
    def relative_spread(self) -> float:
        """The interquartile range of the samples over their median."""
        low, high = np.percentile(self.samples_us, (25, 75))
        return float((high - low) / self.median_us)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and the figures drawn from them, ready for `json.dump`.

        Of very many samples 1,000, evenly spread over the run, are kept; the figures are those of all of them.
        """
        count = len(self.samples_us)
        kept = np.linspace(0, count - 1, min(count, _JSON_SAMPLES)).astype(int)
        figures = {"median_us": self.median_us, "p90_us": self.p90_us, "relative_spread": self.relative_spread}
        samples = {"sample_count": count, "samples_us": [self.samples_us[index] for index in kept]}
        return figures | dataclasses.asdict(self) | samples


def identity(device: dict[str, Any], runtime: str, runtime_version: str, threads: int) -> dict[str, Any]:
    """The stable part of a fingerprint, and what the runtime is and was told; see `Device.identity`."""
    stable = {name: device[name] for name in _IDENTITY if name in device}
    return {**stable, "runtime": runtime, "runtime_version": runtime_version, "threads": threads}


def merge(runs: Sequence[Latency]) -> Latency:
    """Joins measurements of one model on one device, taken at several moments."""
    return dataclasses.replace(
        runs[0],
        samples_us=tuple(sample for run in runs for sample in run.samples_us),
        run_medians_us=tuple(median for run in runs for median in run.run_medians_us),
        warmup_runs=sum(run.warmup_runs for run in runs),
        details=tuple(detail for run in runs for detail in run.details),
        conditions=tuple(each for run in runs for each in run.conditions),
    )


def check_timing(min_runs: int, min_seconds: float, max_warmup_seconds: float) -> None:
    """Raises `DeviceSetupError` unless these arguments of `Device.measure` are in range."""
    if min_runs < 1 or min_seconds < 0 or max_warmup_seconds < 0:
        raise DeviceSetupError(
            "`min_runs` must be at least 1 and the seconds at least 0, "
            f"but received {min_runs}, {min_seconds} and {max_warmup_seconds}."
        )


class Device(abc.ABC):
    """Something that can time a `.tflite` file.

    Attributes:
        name: What `connect` makes it from, such as `host`, `raspberry_pi:pi@board` or `android:SERIAL`.
    """

    name: str

    @abc.abstractmethod
    def identity(self) -> dict[str, Any]:
        """Returns what its latencies depend on and what does not change, to store them under: equal to their `identity`.

        Kind, board or model, cpu, cores, os and ABI, the cpus it pins to or its core mask; runtime and version, threads, and the
        delegate asked for. Not its serial or address, which tell it from others of its kind; not its temperature or frequency.

        Raises:
            DeviceLostError: It does not answer.
            DeviceSetupError: It has no runtime.
        """

    def check(self) -> None:  # noqa: B027
        """Returns if it answers, as this machine always does.

        Raises:
            DeviceLostError: It does not.
        """

    @abc.abstractmethod
    def measure(
        self,
        model_path: str | os.PathLike,
        min_runs: int = 50,
        min_seconds: float = 0.2,
        max_warmup_seconds: float = 1.0,
    ) -> Latency:
        """Times a model: warm-up until the calls are steady, then raw samples.

        Args:
            model_path: The `.tflite` file.
            min_runs: Samples to take at least.
            min_seconds: Seconds to sample for at least.
            max_warmup_seconds: When to start sampling even if the calls are not steady yet.

        Raises:
            ModelError: The model does not run there.
            DeviceLostError: The device does not answer.
            DeviceSetupError: Something has to be mended first.
        """

    def measure_each(self, model_paths: Sequence[str | os.PathLike], **settings: Any) -> list[Latency]:
        """Times many small models once, with as little beside it as the device allows: in one process for several, perhaps.

        Args:
            model_paths: The `.tflite` files.
            **settings: Of `measure`, which has the errors too.
        """
        return [self.measure(path, **settings) for path in model_paths]

    def measure_many(
        self, model_paths: Sequence[str | os.PathLike], repeats: int = 3, seed: int = 0, **settings: Any
    ) -> list[Latency]:
        """Times several models fairly: in turns, in a new random order each turn, so that drift hits all alike.

        Args:
            model_paths: The `.tflite` files.
            repeats: Fresh processes for each model; their samples are joined.
            seed: Seed of the orders.
            **settings: Passed on to `measure`.

        Returns:
            One latency for each model, in the order given.
        """
        if repeats < 1:
            raise DeviceSetupError(f"`repeats` must be at least 1, but received {repeats}.")
        rng = np.random.default_rng(seed)
        runs: list[list[Latency]] = [[] for _ in model_paths]
        for _ in range(repeats):
            for index in rng.permutation(len(runs)):
                runs[index].append(self.measure(model_paths[index], **settings))
        return [merge(each) for each in runs]
