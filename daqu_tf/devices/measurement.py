"""A measured latency: what was seen, under which conditions, and what of it is doubtful."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf.devices import steadiness

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
            with `governor`, `frequency_hz`, `temperature_celsius` and `throttled`, and `peak_memory_bytes`; of a Python's, whether
            it was `steady` when the warm-up ended; of a group's, `device_name`.
        flags: What makes it doubtful, `spread`, `run_spread`, `throttled` or `clock`, as `steadiness.py` says.
        dropped_runs: Processes that were left out because of such flags, and others taken in their place.
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
        return steadiness.relative_spread(self.samples_us)

    @property
    def outliers(self) -> tuple[int, ...]:
        """Indices of samples far above the median, which stay among the samples; see `steadiness.outliers`."""
        return tuple(map(int, steadiness.outliers(self.samples_us)))

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and the figures drawn from them, ready for `json.dump`.

        Of very many samples 1,000, evenly spread over the run, are kept; the figures are those of all of them.
        """
        count = len(self.samples_us)
        kept = np.linspace(0, count - 1, min(count, _JSON_SAMPLES)).astype(int)
        figures = {"median_us": self.median_us, "p90_us": self.p90_us, "relative_spread": self.relative_spread}
        samples = {"sample_count": count, "samples_us": [self.samples_us[index] for index in kept]}
        return figures | dataclasses.asdict(self) | samples | {"outlier_count": len(self.outliers)}


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
        flags=tuple(sorted({flag for run in runs for flag in run.flags})),
        dropped_runs=sum(run.dropped_runs for run in runs),
    )


def wants_another(runs: Sequence[Latency], repeats: int) -> bool:
    """Whether a model has fewer than `repeats` runs without a flag, or such that differ too much among themselves."""
    good = [run for run in runs if not run.flags]
    return len(good) < repeats or steadiness.relative_spread([run.median_us for run in good]) > steadiness.RUN_SPREAD


def settle(runs: Sequence[Latency], repeats: int) -> Latency:
    """Joins the runs of one model: those without a flag if there are enough, else all; what was left out is counted."""
    good = [run for run in runs if not run.flags]
    kept = good if len(good) >= repeats else runs
    found = merge(kept)
    flags = set(found.flags)
    if steadiness.relative_spread(found.run_medians_us) > steadiness.RUN_SPREAD:
        flags.add("run_spread")
    return dataclasses.replace(found, flags=tuple(sorted(flags)), dropped_runs=len(runs) - len(kept))
