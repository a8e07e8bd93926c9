"""A benchmark_model for the phone of `adbd.py`: runs the model, times it, prints as the real one does, and writes its outputs.

It takes the real one's flags; what is real is the runtime of this machine. `program` makes it one file, as it is pushed.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter

HERE = pathlib.Path(__file__)


def program(path: pathlib.Path) -> pathlib.Path:
    """Writes it to a file that can be called."""
    path.write_text(f"#!{sys.executable}\n{HERE.read_text()}")
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


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("graph", "input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath", "use_xnnpack"):
        parser.add_argument(f"--{name}", default="")
    for name in ("num_threads", "num_runs", "warmup_runs"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in ("min_secs", "warmup_min_secs"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    flags = parser.parse_args()
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
    print(f"INFO: Inference timings in us: Init: 1000, First inference: 1, Warmup (avg): 1, Inference (avg): {np.mean(times):g}")
    if flags.output_filepath:
        pathlib.Path(flags.output_filepath).write_bytes(b"".join(interpreter.get_tensor(sink["index"]).tobytes() for sink in sinks))


if __name__ == "__main__":
    main()
