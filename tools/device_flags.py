"""The flags that say on which device files are timed, shared by the tools that do it."""

from absl import flags

DEVICE_HELP = (
    "host, this machine; raspberry_pi:user@host[:port], any Linux board to which ssh needs no password; or android:SERIAL, a phone "
    "that adb knows. Several of one kind, with commas between them, share the work."
)

_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the runtime on the device.", lower_bound=1)
_PYTHON = flags.DEFINE_string(
    "python", "python3", "The Python of boards, which has to have a runtime: ai-edge-litert or tflite-runtime."
)
_BENCHMARK_MODEL = flags.DEFINE_string("benchmark_model", "", "TFLite's program of that name, built for the phones.")
_DELEGATE = flags.DEFINE_enum("delegate", "xnnpack", ("xnnpack", "none", "gpu", "nnapi"), "What computes on phones.")
_MAX_CELSIUS = flags.DEFINE_float(
    "max_celsius", None, "At this temperature a device is too hot; by default 95 for this machine, 80 for others."
)
_COOL_SECONDS = flags.DEFINE_float("cool_seconds", 120.0, "For how long a device that is too hot may cool.", lower_bound=0)


def options() -> dict:
    """The arguments of `devices.connect_with`, but for the text."""
    return {flag.name: flag.value for flag in (_THREADS, _PYTHON, _BENCHMARK_MODEL, _DELEGATE, _MAX_CELSIUS, _COOL_SECONDS)}
