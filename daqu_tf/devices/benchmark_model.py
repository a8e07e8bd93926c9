"""The arguments of TFLite's `benchmark_model`, and the reading of its output in the formats that it has had since 2018.

The program prints statistics of its calls and not the calls, first for the warm-up and then for the timed ones. Numbers are those
of C++ streams, so that a million microseconds read `1.04176e+06`.
"""

import dataclasses
import re
from collections.abc import Sequence

from daqu_tf.devices import steadiness
from daqu_tf.devices.errors import ModelError

# The flag of each delegate, and the name by which the program says that it computes part of the graph.
DELEGATES = {
    "none": ("--use_xnnpack=false", None),
    "xnnpack": ("--use_xnnpack=true", "XNNPACK"),
    "gpu": ("--use_gpu=true", "GPU"),
    "nnapi": ("--use_nnapi=true", "NNAPI"),
}

_NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\b"
_FIGURES = re.compile(r"\bcount=(\d+)((?: \w+=[\d.e+-]+)+)(?: \(all same\))?\s*$", re.MULTILINE)
# Where the mean stands, in this order: since 2020, before that, and in a profile of the operators, which is slower and so the last
# resort.
_MEANS = (
    rf"\bInference \(avg\): {_NUMBER}",
    rf"timings in us: .*\bInference: {_NUMBER}",
    rf"timings in us: .*\bno stats: {_NUMBER}",
)
_PROFILE = "Timings (microseconds):"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The statistics that one process of `benchmark_model` prints about its calls; None where its format does not have one.

    Attributes:
        count: The number of timed calls.
        mean_us: The mean of the timed calls in microseconds.
        median_us: The median of the timed calls in microseconds, which newer programs print.
        min_us: The shortest of the timed calls in microseconds.
        max_us: The longest of the timed calls in microseconds.
        std_us: The standard deviation of the timed calls in microseconds.
        warmup_runs: The number of calls before the timed ones.
        init_us: The time to load the model and allocate its tensors in microseconds.
        memory_mb: The approximate growth of the resident memory in MB.
        peak_memory_mb: The most memory seen in MB.
    """

    count: int | None
    mean_us: float
    median_us: float | None = None
    min_us: float | None = None
    max_us: float | None = None
    std_us: float | None = None
    warmup_runs: int | None = None
    init_us: float | None = None
    memory_mb: float | None = None
    peak_memory_mb: float | None = None

    @property
    def typical_us(self) -> float:
        """The median of the timed calls in microseconds, or their mean where there is no median."""
        return self.mean_us if self.median_us is None else self.median_us

    def flags(self, elapsed_us: float) -> list[str]:
        """The flags that say why the statistics are doubtful, `clock` or `spread`.

        The program reads the time of day, which may be set while it runs. That spoils the extremes, the mean and the deviation, but
        not the median.

        Args:
            elapsed_us: The microseconds that the whole process took, by a clock that never jumps.
        """
        extremes = [each for each in (self.min_us, self.max_us) if each is not None]
        jumped = any(not 0 <= each <= elapsed_us for each in extremes)  # They are whole microseconds, so 0 is possible.
        # With a median, the deviation does not matter, since it may come from a few calls among many.
        wide = self.median_us is None and self.std_us is not None and self.std_us > steadiness.SPREAD * self.mean_us
        return [flag for flag, raised in (("clock", jumped), ("spread", wide)) if raised]

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory seen in bytes; None where the format does not have it."""
        return None if self.peak_memory_mb is None else round(self.peak_memory_mb * 2**20)


def arguments(graph: str, threads: int, delegate: str, min_runs: int, min_seconds: float, warmup_seconds: float) -> list[str]:
    """The arguments with which the program times a file.

    Args:
        graph: The path of the `.tflite` file on the device.
        threads: The number of threads.
        delegate: The delegate, one of `DELEGATES`.
        min_runs: The least number of timed calls.
        min_seconds: The shortest time for the timed calls, in seconds.
        warmup_seconds: The shortest time for the warm-up, in seconds.
    """
    runs = [f"--num_runs={min_runs}", f"--min_secs={min_seconds:g}"]
    warmup = ["--warmup_runs=1", f"--warmup_min_secs={warmup_seconds:g}"]
    return [f"--graph={graph}", f"--num_threads={threads}", *runs, *warmup, DELEGATES[delegate][0]]


def output_arguments(graph: str, threads: int, delegate: str, shape: Sequence[int], source: str, sink: str) -> list[str]:
    """The arguments with which the program runs a file on one input and saves its output.

    Older programs do not know `--output_filepath`; they go on without it, or stop.

    Args:
        graph: The path of the `.tflite` file on the device.
        threads: The number of threads.
        delegate: The delegate, one of `DELEGATES`.
        shape: The shape of the input.
        source: The path of the input's bytes on the device.
        sink: The path to which the output's bytes are written.
    """
    # Any name will do for the input layer.
    layer = ["--input_layer=input", f"--input_layer_shape={','.join(map(str, shape))}"]
    inputs = [*layer, f"--input_layer_value_files=input:{source}"]
    return [*arguments(graph, threads, delegate, 1, 0, 0), *inputs, f"--output_filepath={sink}"]


def parse(output: str) -> Statistics:
    """The statistics in what the program printed.

    Raises:
        ModelError: The output has no mean of the timed calls, or something that is no number.
    """
    lines = [(match.group(1), match.group(2)) for match in _FIGURES.finditer(_without_profile(output))]
    profile = [(match.group(1), match.group(2)) for line in _profile(output) for match in _FIGURES.finditer(line)]
    figures = _figures(lines[-1:] or profile[-1:])
    mean_us = next((mean for mean in (_number(pattern, output) for pattern in _MEANS) if mean is not None), None)
    if mean_us is None and profile:
        mean_us = _figures(profile[-1:]).get("avg")
    if mean_us is None:
        raise ModelError(
            f"benchmark_model printed no mean of its calls ({failure(output)}): try again, then with another build of it."
        )
    return Statistics(
        count=int(figures["count"]) if figures else None,
        mean_us=mean_us,
        median_us=figures.get("median"),
        min_us=figures.get("min", figures.get("curr")),
        max_us=figures.get("max", figures.get("curr")),
        std_us=figures.get("std"),
        warmup_runs=int(lines[0][0]) if len(lines) > 1 else None,
        init_us=_number(rf"\bInit: {_NUMBER}", output),
        memory_mb=_number(rf"Memory footprint delta .*\boverall={_NUMBER}", output),
        peak_memory_mb=_number(rf"peak memory footprint \(MB\).*: {_NUMBER}", output),
    )


def applied(output: str, delegate: str) -> bool:
    """Whether the output says that a delegate computes the graph or part of it.

    For XNNPACK, which needs no flag, the runtime itself says so.

    Args:
        output: What the program printed.
        delegate: The delegate, one of `DELEGATES` but `none`.
    """
    name = DELEGATES[delegate][1]
    if f"Though {name} delegate is explicitly applied" in output:  # The message goes on: the graph will not be executed by it.
        return False
    explicitly = re.search(rf"\bapplied {name} delegate, and the model graph will be", output, re.IGNORECASE)
    return bool(explicitly) or (name == "XNNPACK" and "XNNPACK delegate for CPU" in output)


def failure(output: str) -> str:
    """The reason that the program gives for failing, or the end of its output."""
    errors = re.findall(r"(?:^|\s)(?:ERROR|E tflite\s*): *(.+)", output) or [
        line for line in output.splitlines() if re.search(r"fail|error|aborting", line, re.IGNORECASE)
    ]
    return " ".join(errors[0].split()).rstrip(".")[:200] if errors else _excerpt(output)


def _without_profile(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if _PROFILE not in line and "Memory (bytes)" not in line)


def _profile(output: str) -> list[str]:
    return [line for line in output.splitlines() if _PROFILE in line]


def _figures(lines: list[tuple[str, str]]) -> dict[str, float]:
    """The figures of the first line by name."""
    for count, rest in lines:
        return {"count": float(count)} | {key: _float(value) for key, _, value in (each.partition("=") for each in rest.split())}
    return {}


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ModelError(f"benchmark_model printed {text!r} where a number belongs: try again.") from error


def _number(pattern: str, output: str) -> float | None:
    found = re.search(pattern, output)
    return float(found.group(1)) if found else None


def _excerpt(output: str) -> str:
    """The last line of the output, readable even if it is garbage."""
    lines = [line for line in output.splitlines() if line.strip()]
    text = lines[-1] if lines else "nothing at all"
    return "".join(letter if letter.isprintable() else "?" for letter in text).strip().rstrip(".")[:120]
