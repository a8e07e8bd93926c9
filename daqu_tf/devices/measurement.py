"""A measured latency: its samples, the conditions under which they were taken, and what is doubtful about them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf.devices import steadiness

_JSON_SAMPLES = 1000
# The fields of a fingerprint that tell the kind of a device and stay the same from day to day. They do not tell which one of
# several it is.
_IDENTITY = ("kind", "board", "model", "cpu", "cores", "highest_hz", "abi", "os", "pinned_to", "core_mask", "delegate")


@dataclasses.dataclass(frozen=True)
class Latency:
    """The latency of one model on one device, with all that is needed to judge it.

    Attributes:
        samples_us: The time of every call after the warm-up in microseconds, in the order taken. A runtime that gives statistics
            and no samples has the median of each fresh process here, or else its mean.
        run_medians_us: The median of each fresh process in microseconds; their spread shows drift, which one process hides.
        warmup_runs: The number of calls before the first sample, over all processes.
        threads: The number of threads of the runtime.
        delegate: The delegate that computed the model or part of it: `xnnpack`, `gpu`, `nnapi` or `none`.
        runtime: The name of the runtime's Python package, or `benchmark_model`.
        runtime_version: The version of the runtime.
        device: The fingerprint of the device: kind, board or model, cpu, cores, os, the cpus that the process was pinned to, and
            the delegate that was asked for, which need not have computed any of this model.
        sha256: The hash of the bytes that were timed, in hex.
        details: The statistics of each process in turn, from a runtime that gives statistics.
        conditions: The conditions of each fresh process, None where the device does not tell: `before` and `after` with `governor`,
            `frequency_hz`, `temperature_celsius` and `throttled`, and `peak_memory_bytes`. A process of Python also has `steady`,
            whether calls were steady when the warm-up ended, and one of a group `device_name`.
        flags: The reasons why the latency is doubtful: `spread`, `run_spread`, `throttled` or `clock` (see `steadiness`).
        dropped_runs: The number of processes that were left out because of flags, with others taken in their place.
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
    flags: tuple[str, ...] = ()
    dropped_runs: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the device that timed the model, equal to its `Device.identity()`."""
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
        return steadiness.relative_spread(self.samples_us)

    @property
    def outliers(self) -> tuple[int, ...]:
        """The indices of samples far above the median, as `steadiness.outliers` finds them; they stay among the samples."""
        return tuple(map(int, steadiness.outliers(self.samples_us)))

    def to_json(self) -> dict[str, Any]:
        """The fields and the figures drawn from them, as a JSON object.

        Of more than 1,000 samples, 1,000 are kept, evenly spread over the run; the figures are drawn from all.
        """
        count = len(self.samples_us)
        kept = np.linspace(0, count - 1, min(count, _JSON_SAMPLES)).astype(int)
        figures = {"median_us": self.median_us, "p90_us": self.p90_us, "relative_spread": self.relative_spread}
        samples = {"sample_count": count, "samples_us": [self.samples_us[index] for index in kept]}
        return figures | dataclasses.asdict(self) | samples | {"outlier_count": len(self.outliers)}


def identity(device: dict[str, Any], runtime: str, runtime_version: str, threads: int) -> dict[str, Any]:
    """The identity of a device, as `Device.identity` defines it.

    Args:
        device: The fingerprint of the device, of which the stable part is kept.
        runtime: The name of the runtime.
        runtime_version: The version of the runtime.
        threads: The number of threads of the runtime.
    """
    stable = {name: device[name] for name in _IDENTITY if name in device}
    return {**stable, "runtime": runtime, "runtime_version": runtime_version, "threads": threads}


def merge(runs: Sequence[Latency]) -> Latency:
    """One latency from several measurements of one model on one device."""
    return dataclasses.replace(
        runs[0],
        samples_us=tuple(sample for run in runs for sample in run.samples_us),
        run_medians_us=tuple(median for run in runs for median in run.run_medians_us),
        warmup_runs=sum(run.warmup_runs for run in runs),
        details=tuple(detail for run in runs for detail in run.details),
        conditions=tuple(each for run in runs for each in run.conditions),
        flags=tuple(sorted({flag for run in runs for flag in run.flags})),
        dropped_runs=sum(run.dropped_runs for run in runs),
    )


def wants_another(runs: Sequence[Latency], repeats: int) -> bool:
    """Whether fewer than `repeats` runs of a model have no flag, or those without a flag differ too much."""
    good = [run for run in runs if not run.flags]
    return len(good) < repeats or steadiness.relative_spread([run.median_us for run in good]) > steadiness.RUN_SPREAD


def settle(runs: Sequence[Latency], repeats: int) -> Latency:
    """The latency of a model from its runs: from those without a flag if at least `repeats` are, else from all."""
    good = [run for run in runs if not run.flags]
    kept = good if len(good) >= repeats else runs
    found = merge(kept)
    flags = set(found.flags)
    if steadiness.relative_spread(found.run_medians_us) > steadiness.RUN_SPREAD:
        flags.add("run_spread")
    return dataclasses.replace(found, flags=tuple(sorted(flags)), dropped_runs=len(runs) - len(kept))
