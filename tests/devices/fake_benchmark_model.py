"""A benchmark_model for the phone of `adbd.py`: runs the model, times it, prints as the real one does, and writes its outputs.

It takes the real one's flags; what is real is the runtime of this machine. `program` makes it one file, as it is pushed. It plays
TFLite's program or LiteRT 2's, which has other flags and another end of its output.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter

HERE = pathlib.Path(__file__)
FORM = "tflite"
NUMBERS = {"num_threads": int, "num_runs": int, "warmup_runs": int, "min_secs": float, "warmup_min_secs": float}
TEXTS = {
    "tflite": ("graph", "input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath", "use_gpu", "use_xnnpack"),
    "litert": ("graph", "signature_to_run_for", "use_cpu", "use_gpu", "use_npu"),
}


def program(path: pathlib.Path, form: str = "tflite") -> pathlib.Path:
    """Writes it to a file that can be called, in one of the forms of `TEXTS`."""
    text = HERE.read_text().replace('FORM = "tflite"', f'FORM = "{form}"', 1)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def calls(interpreter, least: int, seconds: float) -> list[float]:
    times, end = [], time.monotonic() + seconds
    while len(times) < least or time.monotonic() < end:
        start = time.perf_counter()
        interpreter.invoke()
        times.append((time.perf_counter() - start) * 1e6)
    return times


def statistics(times: list[float]) -> str:
    figures = {
        "first": times[0],
        "curr": times[-1],
        "min": min(times),
        "max": max(times),
        "avg": np.mean(times),
        "std": np.std(times),
    }
    figures |= {"p5": np.percentile(times, 5), "median": np.median(times), "p95": np.percentile(times, 95)}
    return f"INFO: count={len(times)} " + " ".join(f"{name}={value:g}" for name, value in figures.items())


def ending(times: list[float]) -> str:
    """The last line, in microseconds or in hundredths of milliseconds."""
    if FORM == "tflite":
        return (
            f"INFO: Inference timings in us: Init: 1000, First inference: 1, Warmup (avg): 1, Inference (avg): {np.mean(times):g}"
        )
    return f"INFO: [benchmark_litert_model.h:86] Inference (avg):      {np.mean(times) / 1000:.2f} ms ({len(times)} runs)"


def parsed() -> argparse.Namespace:
    """The flags; what it does not know it says and ignores, as both programs do."""
    if "--help" in sys.argv:
        rows = "".join(f"\t--{name}=\tstring\toptional\ttext\n" for name in (*NUMBERS, *TEXTS[FORM]))
        sys.stderr.write(f"ERROR: usage: {sys.argv[0]} <flags>\nFlags:\n{rows}\n")
        sys.exit(1 if FORM == "tflite" else 0)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.set_defaults(input_layer_value_files="", output_filepath="")
    for name in TEXTS[FORM]:
        parser.add_argument(f"--{name}", default="")
    for name, kind in NUMBERS.items():
        parser.add_argument(f"--{name}", type=kind, default=kind())
    flags, unknown = parser.parse_known_args()
    if unknown:
        sys.stderr.write(f"WARN: Unconsumed cmdline flags: {' '.join(unknown)}\n")
    return flags


def main() -> None:
    flags = parsed()
    interpreter = Interpreter(flags.graph, num_threads=flags.num_threads)
    interpreter.allocate_tensors()
    print("INFO: STARTING!\nINFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nINFO: Initialized session in 1ms.")
    (source,), sinks = interpreter.get_input_details(), interpreter.get_output_details()
    values = np.zeros(source["shape"], source["dtype"])
    if flags.input_layer_value_files:
        path = flags.input_layer_value_files.partition(":")[2]
        values = np.frombuffer(pathlib.Path(path).read_bytes(), source["dtype"])
        values = values.reshape([int(size) for size in flags.input_layer_shape.split(",")])
    interpreter.set_tensor(source["index"], values)
    for runs, seconds in ((flags.warmup_runs, flags.warmup_min_secs), (flags.num_runs, flags.min_secs)):
        times = calls(interpreter, runs, seconds)
        print(statistics(times), end="\n\n")
    print(ending(times))
    if flags.output_filepath:
        pathlib.Path(flags.output_filepath).write_bytes(b"".join(interpreter.get_tensor(sink["index"]).tobytes() for sink in sinks))


if __name__ == "__main__":
    main()
