"""What TFLite's `benchmark_model` is told, and what it says, in the formats that it has had since 2018.

It prints statistics of its calls, not the calls: of the warm-up first, then of the timed ones. Numbers are those of C++ streams, so
that a million microseconds read `1.04176e+06`.
"""

import dataclasses
import re
from collections.abc import Sequence

from daqu_tf.devices import steadiness
from daqu_tf.devices.errors import ModelError

# By delegate: the flag, and the name under which the program says that it took part of the graph.
DELEGATES = {
    "none": ("--use_xnnpack=false", None),
    "xnnpack": ("--use_xnnpack=true", "XNNPACK"),
    "gpu": ("--use_gpu=true", "GPU"),
    "nnapi": ("--use_nnapi=true", "NNAPI"),
}

_NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\b"
_FIGURES = re.compile(r"\bcount=(\d+)((?: \w+=[\d.e+-]+)+)(?: \(all same\))?\s*$", re.MULTILINE)
# In this order: since 2020, before that, and with a profile of the operators, which is slower and so the last resort.
_MEANS = (
    rf"\bInference \(avg\): {_NUMBER}",
    rf"timings in us: .*\bInference: {_NUMBER}",
    rf"timings in us: .*\bno stats: {_NUMBER}",
)
_PROFILE = "Timings (microseconds):"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What one process of `benchmark_model` says of its calls.

    Attributes:
        count: Timed calls; None where the format does not tell, as in the fields below.
        mean_us: Their mean, in microseconds.
        median_us: Their median, in microseconds, which newer programs print.
        min_us: The shortest, in microseconds.
        max_us: The longest, in microseconds.
        std_us: Their standard deviation, in microseconds.
        warmup_runs: Calls before the timed ones.
        init_us: What it took to load the model and allocate its tensors, in microseconds.
        memory_mb: Growth of the resident memory, in MB, approximately.
        peak_memory_mb: The most memory seen, in MB.
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
        """The median, or the mean where there is none, in microseconds."""
        return self.mean_us if self.median_us is None else self.median_us

    def flags(self, elapsed_us: float) -> list[str]:
        """What makes them doubtful, where `elapsed_us` is what the whole process took by a clock that never jumps.

        The program reads the time of day, which may be set while it runs. That spoils the extremes, the mean and the deviation, but
        not the median.
        """
        extremes = [each for each in (self.min_us, self.max_us) if each is not None]
        jumped = any(not 0 <= each <= elapsed_us for each in extremes)  # Counted in whole microseconds, so that 0 is one.
        # A median says enough; whether the deviation is that of a few calls among many, nobody can tell.
        wide = self.median_us is None and self.std_us is not None and self.std_us > steadiness.SPREAD * self.mean_us
        return [flag for flag, raised in (("clock", jumped), ("spread", wide)) if raised]

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory seen, in bytes."""
        return None if self.peak_memory_mb is None else round(self.peak_memory_mb * 2**20)


def arguments(graph: str, threads: int, delegate: str, min_runs: int, min_seconds: float, warmup_seconds: float) -> list[str]:
    """Returns the arguments that time the file `graph`; `delegate` is one of `DELEGATES`."""
    runs = [f"--num_runs={min_runs}", f"--min_secs={min_seconds:g}"]
    warmup = ["--warmup_runs=1", f"--warmup_min_secs={warmup_seconds:g}"]
    return [f"--graph={graph}", f"--num_threads={threads}", *runs, *warmup, DELEGATES[delegate][0]]


def output_arguments(graph: str, threads: int, delegate: str, shape: Sequence[int], source: str, sink: str) -> list[str]:
    """Returns the arguments that run `graph` on the bytes of the file `source` and write what comes out to `sink`.

    Older programs know no `--output_filepath`; they go on without it, or stop.
    """
    # The name of the input layer may be any.
    layer = ["--input_layer=input", f"--input_layer_shape={','.join(map(str, shape))}"]
    inputs = [*layer, f"--input_layer_value_files=input:{source}"]
    return [*arguments(graph, threads, delegate, 1, 0, 0), *inputs, f"--output_filepath={sink}"]


def parse(output: str) -> Statistics:
    """Reads what the program printed.

    Raises:
        ModelError: There is no mean of the timed calls in it, or something that is no number.
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
    """Whether a delegate took the graph or part of it; of XNNPACK, which needs no flag, the runtime itself says it."""
    name = DELEGATES[delegate][1]
    if f"Though {name} delegate is explicitly applied" in output:  # It goes on: the graph will not be executed by it.
        return False
    explicitly = re.search(rf"\bapplied {name} delegate, and the model graph will be", output, re.IGNORECASE)
    return bool(explicitly) or (name == "XNNPACK" and "XNNPACK delegate for CPU" in output)


def failure(output: str) -> str:
    """The reason that the program gives for failing, or the end of what it said."""
    errors = re.findall(r"(?:^|\s)(?:ERROR|E tflite\s*): *(.+)", output) or [
        line for line in output.splitlines() if re.search(r"fail|error|aborting", line, re.IGNORECASE)
    ]
    return " ".join(errors[0].split()).rstrip(".")[:200] if errors else _excerpt(output)


def _without_profile(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if _PROFILE not in line and "Memory (bytes)" not in line)


def _profile(output: str) -> list[str]:
    return [line for line in output.splitlines() if _PROFILE in line]


def _figures(lines: list[tuple[str, str]]) -> dict[str, float]:
    """The figures of the first line, by their names."""
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
    """The last line, readable even if it is garbage."""
    lines = [line for line in output.splitlines() if line.strip()]
    text = lines[-1] if lines else "nothing at all"
    return "".join(letter if letter.isprintable() else "?" for letter in text).strip().rstrip(".")[:120]
