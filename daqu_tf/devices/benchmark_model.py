"""The arguments of the `benchmark_model` of TFLite and LiteRT, and the reading of its output, by its sources since 2018.

Sources, as `repository: path` (read at tensorflow 08df8c40 and 0adb5476, LiteRT 7d88950e, 15bfaa8b and 057da369):

- Which lines come, and when: tensorflow/tensorflow: tensorflow/lite/tools/benchmark/benchmark_model.cc, of which
  google-ai-edge/LiteRT: tflite/tools/benchmark/benchmark_model.cc is the later copy. `Run` prints `Running benchmark for ...` and
  then the statistics, first for the warm-up, then for the timed calls, always both. A run of TFLite's program ends in
  `Inference timings in us: ...`, in microseconds.
- Statistics: tensorflow/tensorflow: third_party/xla/xla/tsl/util/stats_calculator.h, before that
  tensorflow/core/util/stats_calculator.h. `Stat::OutputToStream` prints one of these, of whole microseconds but for `avg`:
  `count=0`, `count=1 curr=7`, `count=50 curr=7(all same)`, `count=50 first= curr= min= max= avg= std=`.
  `StatWithPercentiles`, since about 2024, adds ` p5= median= p95=` to each of them.
- LiteRT 2: google-ai-edge/LiteRT: litert/tools/benchmark_litert_model.h and .cc. It has the same statistics before its own end,
  `Inference (avg):      13.52 ms (74 runs)`, whose hundredths of a millisecond are coarser. Its flags are others.
- Flags: tensorflow/lite/tools/command_line_flags.cc. `--help` lists them; what is not listed is ignored, with the warning
  `Unconsumed cmdline flags: ...`, and what cannot be understood ends the program with that list.

Numbers are those of C++ streams in the locale "C", so that a million microseconds read `1.04176e+06`, and never `1,04`. A standard
deviation may come out negative where its square was lost to rounding, and counts for nothing then.
"""

import dataclasses
import re
from collections.abc import Collection, Sequence

from daqu_tf.devices import steadiness
from daqu_tf.devices.errors import DeviceSetupError, ModelError

# The flag of each delegate, its value, and the name by which the program says that it computes part of the graph.
_DELEGATE_FLAGS = {
    "none": ("use_xnnpack", "false", None),
    "xnnpack": ("use_xnnpack", "true", "XNNPACK"),
    "gpu": ("use_gpu", "true", "GPU"),
    "nnapi": ("use_nnapi", "true", "NNAPI"),
}
DELEGATES = tuple(_DELEGATE_FLAGS)
# The names by which the runtime says, in tflite/core/subgraph.cc, which delegate it gives nodes, where the program need not say so.
_TAKERS = {"xnnpack": r"TfLiteXNNPackDelegate", "gpu": r"LITERT_\w+"}
_NEEDED = ("graph", "num_threads", "num_runs")
_OUTPUT_FLAGS = ("input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath")

_NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?=,?(?:\s|$))"
_BEGINNING = "Running benchmark for "
_STATISTICS = re.compile(r"(?:^|[\s:\]])count=(\d+)((?: .*)?)$", re.MULTILINE)
_FORMS = re.compile(r"count(?: curr| first curr min max avg std)?(?: p5 median p95)?")
_ALL_SAME = "(all same)"
# Where the mean stands, in this order: since 2020, before that, and in a profile of the operators, which is slower and so the last
# resort.
_MEANS = (
    rf"\bInference \(avg\): +{_NUMBER}(?! ms)",
    rf"timings in us: .*\bInference: {_NUMBER}",
    rf"timings in us: .*\bno stats: {_NUMBER}",
)
_PROFILE, _MEMORY = "Timings (microseconds):", "Memory (bytes)"
_REFUSED_FLAGS = re.compile(
    r"Failed to parse (?:positional )?flag.*|Required flag not provided.*|Unknown command line flag.*|^(?:ERROR: )?usage: ",
    re.MULTILINE,
)


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


def known_flags(usage: str) -> frozenset[str]:
    """The names of the flags that a program lists when asked with `--help`; none if it does not list them."""
    _, found, listed = usage.partition("usage: ")
    return frozenset(re.findall(r"^\s*--(\w+)=", listed, re.MULTILINE)) if found else frozenset()


def arguments(
    graph: str,
    threads: int,
    delegate: str,
    min_runs: int,
    min_seconds: float,
    warmup_seconds: float,
    known: Collection[str] = (),
) -> list[str]:
    """The arguments with which the program times a file.

    Args:
        graph: The path of the `.tflite` file on the device.
        threads: The number of threads.
        delegate: The delegate, one of `DELEGATES`.
        min_runs: The least number of timed calls.
        min_seconds: The shortest time for the timed calls, in seconds.
        warmup_seconds: The shortest time for the warm-up, in seconds.
        known: The flags that this build knows, from `known_flags`, which are the only ones passed; all are if it is empty.

    Raises:
        DeviceSetupError: The build does not know a flag without which it would time something else.
    """
    values = {
        "graph": graph,
        "num_threads": str(threads),
        "num_runs": str(min_runs),
        "min_secs": f"{min_seconds:g}",
        "warmup_runs": "1",
        "warmup_min_secs": f"{warmup_seconds:g}",
    }
    flag, value, _ = _DELEGATE_FLAGS[delegate]
    if missing := [name for name in (*_NEEDED, flag) if known and name not in known and not _is_dispensable(name, value, known)]:
        raise _unknown(missing, delegate)
    return [f"--{name}={text}" for name, text in (values | {flag: value}).items() if not known or name in known]


def output_arguments(
    graph: str,
    threads: int,
    delegate: str,
    shape: Sequence[int],
    source: str,
    sink: str,
    known: Collection[str] = (),
) -> list[str]:
    """The arguments with which the program runs a file on one input and saves its output.

    Programs that do not know `--output_filepath` go on without it, or stop.

    Args:
        graph: The path of the `.tflite` file on the device.
        threads: The number of threads.
        delegate: The delegate, one of `DELEGATES`.
        shape: The shape of the input.
        source: The path of the input's bytes on the device.
        sink: The path to which the output's bytes are written.
        known: The flags that this build knows, from `known_flags`; empty if it does not list them.

    Raises:
        DeviceSetupError: The build does not know a flag without which it would run something else.
        ModelError: The build does not know the flags for inputs and outputs.
    """
    if missing := [name for name in _OUTPUT_FLAGS if known and name not in known]:
        raise ModelError(
            f"This build of benchmark_model gives no outputs (it does not know {_listed(missing)}): "
            "compare them elsewhere, or take a build of TFLite's that knows it."
        )
    # Any name will do for the input layer.
    layer = ["--input_layer=input", f"--input_layer_shape={','.join(map(str, shape))}"]
    inputs = [*layer, f"--input_layer_value_files=input:{source}"]
    return [*arguments(graph, threads, delegate, 1, 0, 0, known), *inputs, f"--output_filepath={sink}"]


def refused_flags(output: str) -> str | None:
    """What a program that failed says of flags that it cannot understand; None if it failed of something else."""
    found = _REFUSED_FLAGS.search(output)
    return " ".join(found[0].removeprefix("ERROR: ").split()).rstrip(".:")[:200] if found else None


def check_flags(output: str, delegate: str) -> None:
    """Returns if the program heeded the flags that choose the file and the delegate.

    Raises:
        DeviceSetupError: The program ignored one of the flags, so that it timed something else.
    """
    ignored = set(re.findall(r"--(\w+)", " ".join(re.findall(r"Unconsumed cmdline flags: (.*)", output))))
    flag, value, _ = _DELEGATE_FLAGS[delegate]
    if missing := sorted(name for name in ignored & {*_NEEDED, flag} if not _is_dispensable(name, value, ("use_cpu",))):
        raise _unknown(missing, delegate)


def parse(output: str) -> Statistics:
    """The statistics in what the program printed of one model.

    All is taken from the statistics of the timed calls, or else from the end of the output. Where only one line of statistics came
    through, which may be the warm-up's, or where a line is cut, it counts if its mean is the one at the end.

    Raises:
        ModelError: The output has no mean of the timed calls, or something that is no number.
        DeviceSetupError: The output has several benchmarks, as that of programs of other names.
    """
    warmup, timed, is_alone = _statistics(output)
    summary = _summary(output)
    figures = _figures(timed) if timed else {}
    is_sure = not is_alone and _FORMS.fullmatch(" ".join(figures))
    figures = figures if is_sure or summary.agrees(figures) else summary.figures
    if figures.get("count") == 0:
        raise ModelError("benchmark_model made no timed call (count=0): let it run without `--dry_run`, for one call at least.")
    if (mean_us := figures.get("avg", figures.get("curr"))) is None:
        where = " after the warm-up" if _STATISTICS.search(output) else ""
        raise ModelError(
            f"benchmark_model printed no mean of its calls{where} ({failure(output)}): try again, then with another build of it."
        )
    same = None if "avg" in figures else mean_us  # A single call, or calls that all took the same time.
    std_us = figures.get("std", 0.0 if same is not None and figures["count"] > 1 else None)
    return Statistics(
        count=int(figures["count"]) if "count" in figures else None,
        mean_us=mean_us,
        median_us=figures.get("median"),
        min_us=figures.get("min", same),
        max_us=figures.get("max", same),
        std_us=std_us if std_us is None or std_us >= 0 else None,
        warmup_runs=warmup,
        init_us=_init_us(output),
        memory_mb=_first(output, rf"Memory footprint delta .*\boverall={_NUMBER}", rf"\bOverall footprint: +{_NUMBER}"),
        peak_memory_mb=_first(output, rf"peak memory footprint \(MB\).*: {_NUMBER}", rf"\bPeak memory: +{_NUMBER}"),
    )


def applied(output: str, delegate: str) -> bool:
    """Whether the output says that a delegate computes the graph or part of it.

    For XNNPACK, which needs no flag, and for the GPU of LiteRT 2, the runtime itself says so.

    Args:
        output: What the program printed.
        delegate: The delegate, one of `DELEGATES` but `none`.
    """
    name = _DELEGATE_FLAGS[delegate][2]
    if f"Though {name} delegate is explicitly applied" in output:  # The message goes on: the graph will not be executed by it.
        return False
    explicitly = re.search(rf"\bapplied {name} delegate, and the model graph will be", output, re.IGNORECASE)
    taker = _TAKERS.get(delegate)
    took = taker and re.search(rf"\bReplacing [1-9]\d* out of \d+ node\(s\) with delegate \({taker}\)", output)
    return bool(explicitly or took) or (name == "XNNPACK" and "XNNPACK delegate for CPU" in output)


def failure(output: str) -> str:
    """The reason that the program gives for failing, or the end of its output."""
    errors = re.findall(r"(?:^|\s)(?:ERROR|E tflite\s*): *(.+)", output) or [
        line for line in output.splitlines() if re.search(r"fail|error|aborting", line, re.IGNORECASE)
    ]
    return " ".join(errors[0].split()).rstrip(".")[:200] if errors else _excerpt(output)


def _is_dispensable(flag: str, value: str, known: Collection[str]) -> bool:
    """Whether a build does what a flag asks for without it: XNNPACK is tried anyhow, and before there was one it was never used."""
    return flag == "use_xnnpack" and (value == "true" or "use_cpu" not in known)  # LiteRT 2 has `use_cpu`.


def _unknown(missing: Sequence[str], delegate: str) -> DeviceSetupError:
    return DeviceSetupError(
        f"This build of benchmark_model does not know {_listed(missing)}, which `delegate` {delegate} needs: "
        "use `delegate` xnnpack, or take TFLite's own build of benchmark_model."
        if set(missing).isdisjoint(_NEEDED)
        else f"This program does not know {_listed(missing)}, as every benchmark_model does: name TFLite's or LiteRT's."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def _statistics(output: str) -> tuple[int | None, str | None, bool]:
    """How many calls the warm-up had, the statistics of the timed calls, and whether these may be the warm-up's, being alone.

    The first two are None where they did not come through. A line of statistics belongs to the beginning that is printed before
    it. Where no beginnings came through, as in excerpts of a log, the lines are in order.
    """
    beginnings = output.count(_BEGINNING)
    if beginnings > 2:
        raise DeviceSetupError(
            "benchmark_model printed more than one benchmark of a file, as TFLite's benchmark_model_performance_options does: "
            "name the program benchmark_model itself."
        )
    parts: list[str | None] = []
    lines = [line.strip() for line in output.split("\n")]
    for line in lines:
        if _BEGINNING in line:
            parts.append(None)
        elif _STATISTICS.search(line) and _PROFILE not in line and _MEMORY not in line:
            if not beginnings:
                parts.append(line)
            elif parts and parts[-1] is None:
                parts[-1] = line
    if not parts:  # A profile has the timed calls alone.
        return None, next((line for line in reversed(lines) if _PROFILE in line), None), False
    first = _STATISTICS.search(parts[0]) if len(parts) > 1 and parts[0] else None
    return int(first[1]) if first else None, parts[-1], len(parts) == 1


def _figures(line: str) -> dict[str, float]:
    """The figures of one line of statistics, by their names, `count` among them.

    Raises:
        ModelError: Something in it is no number.
    """
    found = _STATISTICS.search(line)
    words = found[2].replace(_ALL_SAME, " ").split() if found else []
    pairs = [word.partition("=") for word in words]
    for word, (name, _, value) in zip(words, pairs):
        if not name.isalnum() or not re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", value):
            raise ModelError(f"benchmark_model printed {word[:80]!r} where a number belongs: try again.")
    return {"count": int(found[1]) if found else 0, **{name: float(value) for name, _, value in pairs}}


@dataclasses.dataclass(frozen=True)
class _Summary:
    """What the end of the output says of the timed calls, and how far its mean may be off, in microseconds."""

    figures: dict[str, float]
    tolerance_us: float

    def agrees(self, figures: dict[str, float]) -> bool:
        """Whether the figures of a line of statistics have its mean."""
        mean_us, other_us = self.figures.get("avg"), figures.get("avg", figures.get("curr"))
        return mean_us is not None and other_us is not None and abs(mean_us - other_us) <= self.tolerance_us


def _summary(output: str) -> _Summary:
    """Reads the end of the output: in microseconds, of six digits, or in LiteRT 2's hundredths of a millisecond."""
    rows = re.findall(rf"\bInference \((avg|min|max|std)\): +{_NUMBER}(?: ms)?(?: \((\d+) runs\))?", output)
    if counts := [count for name, _, count in rows if count]:
        return _Summary({"count": int(counts[-1]), **{name: _microseconds(value) for name, value, _ in rows}}, 10)
    mean_us = _first(output, *_MEANS)
    return _Summary({} if mean_us is None else {"avg": mean_us}, 1e-5 * abs(mean_us or 0))


def _init_us(output: str) -> float | None:
    """What it took to load the model, in microseconds; `Init` in microseconds comes first, being finest."""
    if (found := _first(output, rf"\bInit: {_NUMBER}")) is not None:
        return found
    loaded = re.search(r"\bInitialized session in (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)ms", output)
    loaded = loaded or re.search(rf"\bModel initialization: +{_NUMBER} ms", output)
    return _microseconds(loaded[1]) if loaded else None


def _microseconds(milliseconds: str) -> float:
    return round(float(milliseconds) * 1000, 3)


def _first(output: str, *patterns: str) -> float | None:
    """The number that the first of the patterns finds."""
    found = next((match for match in (re.search(pattern, output) for pattern in patterns) if match), None)
    return float(found.group(1)) if found else None


def _excerpt(output: str) -> str:
    """The last line of the output, readable even if it is garbage."""
    lines = [line for line in output.splitlines() if line.strip()]
    text = lines[-1] if lines else "nothing at all"
    return "".join(letter if letter.isprintable() else "?" for letter in text).strip().rstrip(".")[:120]
