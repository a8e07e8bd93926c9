"""The flags that say on which devices files are timed, shared by the tools that do it."""

from typing import Any

from absl import flags

from daqu_tf.errors import DaquError

_DEVICES = flags.DEFINE_multi_string(
    "device",
    ["host"],
    "host, this machine; raspberry_pi:user@host[:port], any Linux board to which ssh needs no password; or android:SERIAL, a phone "
    "that adb knows. May be given several times: they work side by side.",
)
_PYTHON = flags.DEFINE_string(
    "python", "python3", "The Python of boards, which has to have a runtime: ai-edge-litert or tflite-runtime."
)
_BENCHMARK_MODEL = flags.DEFINE_string("benchmark_model", None, "TFLite's program of that name, built for the phones.")
_DELEGATE = flags.DEFINE_enum("delegate", "xnnpack", ("xnnpack", "none", "gpu", "nnapi"), "What computes on phones.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the runtime.", lower_bound=1)


def connect_all() -> dict[str, Any]:
    """The devices of the flags, by what they were called there.

    Raises:
        DaquError: There is no such device, or something it needs was not given.
    """
    return {text: _connect(text) for text in _DEVICES.value}


def _connect(text: str) -> Any:
    from daqu_tf.devices import connect

    kind = text.partition(":")[0]
    if kind == "android" and not _BENCHMARK_MODEL.value:
        raise DaquError("Phones need TFLite's benchmark_model: give its path as --benchmark_model (README says where it is).")
    phone = {"benchmark_model": _BENCHMARK_MODEL.value, "delegate": _DELEGATE.value}
    options = {"android": phone, "raspberry_pi": {"python": _PYTHON.value}}.get(kind, {})
    return connect(text, threads=_THREADS.value, **options)
