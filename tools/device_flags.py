"""The flags that say on which device files are timed, which several tools share."""

from absl import flags

DEVICE_HELP = (
    "The device that times files: host for this machine, raspberry_pi:user@host[:port] for any Linux board to which ssh needs no "
    "password, or android:SERIAL for a phone that adb knows. Several of one kind, with commas between them, share the work."
)

_THREADS = flags.DEFINE_integer("threads", 1, "The number of threads of the runtime on the device.", lower_bound=1)
_PYTHON = flags.DEFINE_string(
    "python", "python3", "The Python on a board, which must have a runtime: ai-edge-litert or tflite-runtime."
)
_BENCHMARK_MODEL = flags.DEFINE_string("benchmark_model", "", "The path of TFLite's program benchmark_model, built for the phones.")
_DELEGATE = flags.DEFINE_enum("delegate", "xnnpack", ("xnnpack", "none", "gpu", "nnapi"), "The delegate that computes on phones.")
_MAX_CELSIUS = flags.DEFINE_float(
    "max_celsius", None, "The temperature at which a device is too hot; by default 95 for this machine and 80 for others."
)
_COOL_SECONDS = flags.DEFINE_float(
    "cool_seconds", 120.0, "The longest time for which a device that is too hot may cool.", lower_bound=0
)


def options() -> dict:
    """The arguments of `devices.connect_with` that the flags give, which are all but the address."""
    return {flag.name: flag.value for flag in (_THREADS, _PYTHON, _BENCHMARK_MODEL, _DELEGATE, _MAX_CELSIUS, _COOL_SECONDS)}
