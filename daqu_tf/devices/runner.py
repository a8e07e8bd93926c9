"""Runs `.tflite` files in a process of its own, which reads a JSON request and writes a JSON answer as its last line.

It imports nothing but the standard library, numpy and the runtime, so that it starts fast and can be copied to a board that has no
more than these; Python 3.8 is enough. Requests hold paths as JSON text, so that no name ever passes through a shell.

    {"task": "measure", "models": [PATH, ...], "threads": 1, "cpus": [1],
     "min_runs": 50, "min_seconds": 0.2, "max_warmup_seconds": 1}
    {"task": "predict", "models": [PATH], "threads": 1, "cpus": [1], "images": IN.npy, "outputs": OUT.npy}
    {"task": "encode", "models": [PATH], "threads": 1, "cpus": [1], "images": IN.npy, "inputs": OUT.npy}
    {"task": "describe", "threads": 1, "cpus": [1]}

If "cpus" is null, the fastest ones are taken. If "images" is null, one random image is taken, the same everywhere. With
"alarm_seconds", the process ends by itself after so many seconds, wherever it hangs.
"""

from __future__ import annotations  # For Python 3.8.

import base64
import errno
import gc
import glob
import hashlib
import json
import os
import platform
import re
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeGuard

    import numpy as np

_WARMUP_BLOCK_NS = 15_000_000
_WARMUP_BLOCK_RUNS = 10
_STEADY = 0.02
# A model that adds two int8 numbers, which every runtime runs.
_TINY = zlib.decompress(
    base64.b64decode(
        "eNplUjtOw0AQnXWsaB1WxkWKFBwgfSjSQYUoUlBQUCABkgOKFFFAQKHLAThCDkBBQZmCgpqCkiNwDfNm9jnYYq3ntzueN7/1UEROjyYjaay+DIBCAvbe"
        "LCnOYlgAH8B+ItIBO6Awn54pPHx7OKl2T/2AXeB+evc4u725KKfXVw/zheli/KjxjFW6yCnwVVXVxsU8x8CQ9h/YU+7bq2uxuvyWaEzX9niBtq45sEvV"
        "BNqegQlwwnr6psqN1XcHvvnWLv6cfaT2xFqFuev5COt51f6AQ56/UUtBXyXdl7C9gTfUum3+AnP0psxZK2Nna7zW0C3BK+CTcQf8rvwO2xn4krqnej7/"
        "cojNI+f9jRljbH2G2DTn5dt12Ir71YHyspEjafwroZFH42R/d5n9At1hNcY="
    )
)
# Sensors of the processor, and those of other parts, some of which always read the same.
_PROCESSOR = re.compile(r"cpu|tsens|soc.?therm|x86_pkg|^(big|mid|little)$", re.IGNORECASE)
_OTHER_PARTS = re.compile(r"pmic|batt|bms|charge|wifi|wlan|modem|pa[-_]?therm|skin|^soc$", re.IGNORECASE)


def main() -> None:
    """Answers one request; a failure is answered as {"error": TEXT, "setup": whether no model would run} with exit status 1."""
    request = json.load(sys.stdin)
    try:
        if "alarm_seconds" in request:
            signal.alarm(request["alarm_seconds"])
        # This comes before numpy and the runtime are imported, since they size their thread pools by the cpus that they may use.
        pin(request["cpus"], request["threads"])
        answer = {"measure": measure, "predict": predict, "encode": encode, "describe": describe}[request["task"]](request)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}", "setup": keeps_all_from_running(error)}
        if not answer["setup"] and (why := runtime_fault()):
            answer = {"error": why, "setup": True}
    print("\n" + json.dumps(answer), flush=True)
    sys.exit("error" in answer)


class SetupError(Exception):
    """A fault that keeps every model from running."""


def keeps_all_from_running(error: Exception) -> bool:
    """Whether an error would come with every model."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, (ImportError, SetupError))


def runtime_fault() -> str | None:
    """Why the runtime does not even run a tiny model; None where it does."""
    import numpy as np

    try:
        module, runtime, version = import_runtime()
        interpreter = module.Interpreter(model_content=_TINY, num_threads=1)
        interpreter.allocate_tensors()
        fill_inputs(interpreter)
        interpreter.invoke()
        interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    except ImportError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        remedy = "; install numpy<2" if runtime == "tflite-runtime" and int(np.__version__.split(".")[0]) > 1 else ""
        return f"{runtime} {version} does not run with numpy {np.__version__}, {type(error).__name__}: {error}{remedy}"
    return None


def pin(cpus: list[int] | None, threads: int) -> None:
    """Keeps this process on some cpus, where the system can do that.

    Args:
        cpus: The numbers of the cpus; None takes the last ones.
        threads: The number of threads that need a cpu each.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed) or not set(cpus or ()) <= set(allowed):
        raise SetupError(f"the cpus are {allowed}, too few for {threads} thread(s) or other than {cpus}")
    os.sched_setaffinity(0, by_speed(allowed)[-threads:] if cpus is None else cpus or allowed)


def by_speed(cpus: Iterable[int]) -> list[int]:
    """The cpus from the slowest to the fastest; of equal ones the last come last, since they have the fewest interrupts."""

    def speed(cpu: int) -> tuple[int, int, int]:
        folder = f"/sys/devices/system/cpu/cpu{cpu}/"
        capacity = read(folder + "cpu_capacity")
        return int(capacity) if is_number(capacity) else 0, highest_hz([cpu]) or 0, cpu

    return sorted(cpus, key=speed)


def highest_hz(cpus: Iterable[int]) -> int | None:
    """The highest frequency of some cpus in hertz, at which they may run for a while; None where it is not known."""
    kilohertz = [read(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq") for cpu in cpus]
    return max((int(text) * 1000 for text in kilohertz if is_number(text)), default=None)


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Times the calls of each model in a request on random input, one model after the other."""
    gc.disable()
    return {"answers": [measure_one(model, request) for model in request["models"]]}


def measure_one(model: str, request: dict[str, Any]) -> dict[str, Any]:
    """Times the calls of one model, and gives the answer about it."""
    interpreter, answer = open_model(model, request["threads"])
    fill_inputs(interpreter)
    warmup_runs, steady = warm_up(interpreter.invoke, int(request["max_warmup_seconds"] * 1e9))
    before = (
        conditions()
    )  # They are not read earlier, since governors raise the frequency when there is work, and only a fall tells something.
    samples = sample(interpreter.invoke, request["min_runs"], int(request["min_seconds"] * 1e9))
    found = {"before": before, "after": conditions(), "steady": steady, "peak_memory_bytes": peak_memory_bytes()}
    return {**answer, "warmup_runs": warmup_runs, "samples_us": [ns / 1000 for ns in samples], "conditions": found}


def predict(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a model on every image, one at a time, and saves its raw outputs (N, classes)."""
    import numpy as np

    interpreter, answer = open_model(request["models"][0], request["threads"])
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    images = images_for(source, request)
    outputs = np.empty((len(images), *sink["shape"][1:]), sink["dtype"])
    for index, image in enumerate(images):
        interpreter.set_tensor(source["index"], quantized(image[None], source))
        interpreter.invoke()
        outputs[index] = interpreter.get_tensor(sink["index"])[0]
    np.save(request["outputs"], outputs)
    scale, zero_point = sink["quantization"]
    return {**answer, "scale": scale, "zero_point": zero_point}


def encode(request: dict[str, Any]) -> dict[str, Any]:
    """Saves the inputs (N, H, W, C) that `predict` would give a model, and says which form its outputs have."""
    import numpy as np

    interpreter, answer = open_model(request["models"][0], request["threads"])
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    np.save(request["inputs"], quantized(np.asarray(images_for(source, request)), source))
    scale, zero_point = sink["quantization"]
    outputs = {"output_shape": sink["shape"].tolist(), "output_type": np.dtype(sink["dtype"]).name}
    return {**answer, **outputs, "scale": scale, "zero_point": zero_point}


def images_for(source: dict[str, Any], request: dict[str, Any]) -> np.ndarray:
    """The images (N, H, W, C) of a request, which must have the shape of the model's input `source`."""
    import numpy as np

    shape = tuple(source["shape"].tolist())
    if request["images"] is None:
        images = np.random.default_rng(0).random(shape, np.float32)
    else:
        images = np.load(request["images"], mmap_mode="r", allow_pickle=False)
    if (1, *images.shape[1:]) != shape:
        raise ValueError(f"it takes a batch of shape {shape}, but an image has {images.shape[1:]}")
    return images


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """The answer that says which runtime and machine this is, once that has run a tiny model."""
    _, runtime, version = import_runtime()
    if why := runtime_fault():
        raise SetupError(why)
    return {"runtime": runtime, "runtime_version": version, "device": fingerprint()}


def open_model(model: str, threads: int) -> tuple[Any, dict[str, Any]]:
    """An interpreter that is ready to run a model, and the part of the answer that describes it and this machine."""
    module, runtime, version = import_runtime()
    with open(model, "rb") as file:
        content = file.read()
    interpreter = module.Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter, {
        "sha256": hashlib.sha256(content).hexdigest(),
        "threads": threads,
        "delegate": "xnnpack" if is_delegated(interpreter) else "none",
        "runtime": runtime,
        "runtime_version": version,
        "device": fingerprint(),
    }


def import_runtime() -> tuple[Any, str, str]:
    """The interpreter module, the name and the version of the runtime that this Python has."""
    try:
        import ai_edge_litert
        from ai_edge_litert import interpreter

        return interpreter, "ai-edge-litert", ai_edge_litert.__version__
    except ImportError as error:
        reason = error
    try:
        import tflite_runtime
        from tflite_runtime import interpreter

        return interpreter, "tflite-runtime", tflite_runtime.__version__
    except ImportError:
        raise ImportError(f"this Python has no runtime for .tflite files; pip install ai-edge-litert; {reason}") from None


def is_delegated(interpreter: Any) -> bool:
    """Whether XNNPACK, the one delegate that these runtimes apply by themselves, computes part of the graph."""
    return any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())


def fingerprint() -> dict[str, Any]:
    """The fingerprint of this machine."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    known = getattr(os, "sysconf_names", {})  # Windows has none.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in known else None
    system = f"{platform.system()} {platform.machine()}"
    described = {"board": read("/proc/device-tree/model"), "cpu": cpu_model(), "cores": os.cpu_count()}
    if hertz := highest_hz(cpus or []):
        described["highest_hz"] = hertz
    return {**described, "memory_bytes": memory, "os": system, "kernel": platform.release(), "pinned_to": cpus}


def conditions() -> dict[str, Any]:
    """The conditions that the speed of this machine depends on at the moment; None where it does not tell one."""
    cpu = by_speed(os.sched_getaffinity(0))[-1] if hasattr(os, "sched_getaffinity") else 0
    scaling = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_"
    kilohertz = read(scaling + "cur_freq")
    zones = glob.glob("/sys/class/thermal/thermal_zone*")
    return {
        "governor": read(scaling + "governor"),
        "frequency_hz": int(kilohertz) * 1000 if is_number(kilohertz) else None,
        "temperature_celsius": hottest((read(f"{zone}/type") or "", read(f"{zone}/temp") or "") for zone in zones),
        "throttled": throttled(),
    }


def hottest(zones: Iterable[tuple[str, str]]) -> float | None:
    """The temperature of the hottest sensor of the processor in degrees Celsius; None where there is none.

    Where no sensor is named as the processor's, all count but those of other parts, some of which always read the same.

    Args:
        zones: The type and the reading of each sensor; a reading is in degrees, or from 1000 on in thousandths of a degree.
    """
    known = []
    for kind, text in zones:
        value = float(text) if is_number(text) else 0.0
        value = value / 1000 if abs(value) >= 1000 else value
        if 0 < value < 150:
            known.append((kind, value))
    processor = [value for kind, value in known if _PROCESSOR.search(kind)]
    return max(processor or [value for kind, value in known if not _OTHER_PARTS.search(kind)], default=None)


def throttled() -> bool | None:
    """Whether a Raspberry Pi's firmware says that its voltage is low or that heat slows it down; None on other machines.

    The frequency that Linux shows on a Raspberry Pi is only the one that it asked for. The lowest four bits of the firmware's
    answer are about the present.
    """
    found = read("/sys/devices/platform/soc/soc:firmware/get_throttled")
    try:
        return None if found is None else bool(int(found, 16) & 0xF)
    except ValueError:
        return None


def peak_memory_bytes() -> int | None:
    """The most memory that this process has held, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read(path: str) -> str | None:
    """The text of a file of the system; None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return None


def is_number(text: str | None) -> TypeGuard[str]:
    """Whether a text is an integer; False for None."""
    return text is not None and text.lstrip("-").isdigit()


def cpu_model() -> str:
    """The name of the processor, or its kind where the system does not tell the name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            fields = [line.partition(":") for line in file]
    except OSError:
        fields = []
    names = [value.strip() for key, _, value in fields if key.strip() in ("model name", "Model")]
    return names[0] if names else platform.processor() or platform.machine()


def fill_inputs(interpreter: Any) -> None:
    """Gives every input of an interpreter random values in [0, 1), as images have."""
    import numpy as np

    rng = np.random.default_rng(0)
    for source in interpreter.get_input_details():
        values = rng.random(tuple(source["shape"]), np.float32)
        interpreter.set_tensor(source["index"], quantized(values, source))


def quantized(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """The float values in the type of a tensor, by its scale and zero point, rounded half to even and saturated."""
    import numpy as np

    dtype = np.dtype(tensor["dtype"])
    scale, zero_point = tensor["quantization"]
    if dtype.kind == "f" or not scale:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def warm_up(call: Callable[[], object], max_ns: int) -> tuple[int, bool]:
    """Calls until the medians of two blocks in a row agree; gives the number of calls, and whether they agreed in time.

    Args:
        call: What is called.
        max_ns: The time after which the warm-up ends, in nanoseconds.
    """
    runs, before, end = 0, 0, time.perf_counter_ns() + max_ns
    while True:
        block = sorted(sample(call, _WARMUP_BLOCK_RUNS, _WARMUP_BLOCK_NS))
        median = block[len(block) // 2]
        runs += len(block)
        steady = abs(median - before) <= _STEADY * median
        if steady or time.perf_counter_ns() >= end:
            return runs, steady
        before = median


def sample(call: Callable[[], object], min_runs: int, min_ns: int) -> list[int]:
    """The times of calls in nanoseconds, at least `min_runs` of them and over at least `min_ns` nanoseconds."""
    times: list[int] = []
    clock = time.perf_counter_ns
    end = clock() + min_ns
    while len(times) < min_runs or clock() < end:
        start = clock()
        call()
        times.append(clock() - start)
    return times


if __name__ == "__main__":
    main()
