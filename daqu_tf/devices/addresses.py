"""What a device is called: the text of an address, such as `raspberry_pi:pi@board`, and the device that it stands for."""

from typing import Any

from daqu_tf.devices.android import AndroidDevice
from daqu_tf.devices.base import Device
from daqu_tf.devices.errors import DeviceSetupError
from daqu_tf.devices.group import DeviceGroup, Patience
from daqu_tf.devices.host import HostDevice
from daqu_tf.devices.raspberry_pi import RaspberryPiDevice

# By kind: the class, and how what comes after the colon is called.
_KINDS = {
    "android": (AndroidDevice, "SERIAL"),
    "host": (HostDevice, ""),
    "raspberry_pi": (RaspberryPiDevice, "user@host"),
}


def connect(text: str, patience: Patience | None = None, **options: Any) -> Device:
    """Returns the device of a text.

    Args:
        text: `host`, this machine; `raspberry_pi:[user@]host[:port]`, any Linux board; or `android:SERIAL`, a phone. Several of
            one kind, with commas between them, share the work: `android:SERIAL,android:SERIAL`.
        patience: With it the device is waited for when it is lost, as several are in any case: see `DeviceGroup`.
        **options: What the class of that device takes, such as `threads`.

    Raises:
        DeviceSetupError: There is no such kind of device, its address is none, or there are several kinds.
    """
    kind_of(text)
    devices = [_connect(each, options) for each in text.split(",")]
    return DeviceGroup(devices, patience) if patience or len(devices) > 1 else devices[0]


def connect_with(
    text: str,
    threads: int = 1,
    python: str = "python3",
    benchmark_model: str = "",
    delegate: str = "xnnpack",
    max_celsius: float | None = None,
    cool_seconds: float = 120.0,
    patience: Patience | None = None,
) -> Device:
    """Returns the device of a text, told what the devices of its kind have to know.

    Args:
        text: As of `connect`.
        threads: Of the runtime.
        python: That of boards.
        benchmark_model: Path of TFLite's program of that name, for phones.
        delegate: What computes on phones.
        max_celsius: At which a device is too hot; None leaves that to the device.
        cool_seconds: For how long it may cool then.
        patience: As of `connect`.

    Raises:
        DeviceSetupError: There is no such kind of device, or it needs something that was not given.
    """
    kind = kind_of(text)
    if kind == "android" and not benchmark_model:
        raise DeviceSetupError(
            "Phones need TFLite's benchmark_model: `benchmark_model` must be its path (README says where it is)."
        )
    phone = {"benchmark_model": benchmark_model, "delegate": delegate}
    options = {"android": phone, "raspberry_pi": {"python": python}}.get(kind, {})
    found = connect(text, patience, threads=threads, **options)
    for device in getattr(found, "devices", [found]):
        device.cool_seconds = cool_seconds
        device.max_celsius = device.max_celsius if max_celsius is None else max_celsius
    return found


def kind_of(text: str) -> str:
    """Returns the kind of the device, or devices, of a text as of `connect`.

    Raises:
        DeviceSetupError: There is no such kind of device, or there are several.
    """
    kinds = list(dict.fromkeys(each.partition(":")[0] for each in text.split(",")))
    if not _KINDS.keys() >= set(kinds):
        raise DeviceSetupError(f"A device must be given as {_forms()}, but received {text!r}.")
    if len(kinds) > 1:
        raise DeviceSetupError(f"Devices that share the work must be of one kind, but received {text!r}: time them apart.")
    return kinds[0]


def _forms() -> str:
    return " or ".join(f"{kind}:{needs}" if needs else kind for kind, (_, needs) in _KINDS.items())


def _connect(text: str, options: dict[str, Any]) -> Device:
    kind, _, address = text.partition(":")
    made, needs = _KINDS[kind]
    if bool(address) != bool(needs):
        raise DeviceSetupError(f"A device must be given as {_forms()}, but received {text!r}.")
    return made(address, **options) if needs else made(**options)
