"""The addresses of devices: texts such as `raspberry_pi:pi@board`, and the devices that they stand for."""

from typing import Any

from daqu_tf.devices.android import AndroidDevice
from daqu_tf.devices.base import Device
from daqu_tf.devices.errors import DeviceSetupError
from daqu_tf.devices.group import DeviceGroup, Patience
from daqu_tf.devices.host import HostDevice
from daqu_tf.devices.raspberry_pi import RaspberryPiDevice

# The class of each kind of device, and what stands after the colon in its address.
_KINDS = {
    "android": (AndroidDevice, "SERIAL"),
    "host": (HostDevice, ""),
    "raspberry_pi": (RaspberryPiDevice, "user@host"),
}


def connect(text: str, patience: Patience | None = None, **options: Any) -> Device:
    """The device that an address stands for.

    Args:
        text: `host` for this machine, `raspberry_pi:[user@]host[:port]` for any Linux board, or `android:SERIAL` for a phone.
            Several addresses of one kind, with commas between them, share the work: `android:SERIAL,android:SERIAL`.
        patience: How a lost device is waited for; None does not wait for a single device (see `DeviceGroup`).
        **options: Arguments of the class of that kind of device, such as `threads`.

    Raises:
        DeviceSetupError: The kind of device is unknown, its address has another form, or there are several kinds.
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
    """The device that an address stands for, with those of the settings that its kind needs.

    Args:
        text: The address of a device, or several with commas between them, as `connect` takes it.
        threads: The number of threads of the runtime.
        python: The Python on a board, by name or path.
        benchmark_model: The path of TFLite's program `benchmark_model`, for phones.
        delegate: The delegate on a phone, one of `benchmark_model.DELEGATES`.
        max_celsius: The temperature at which a device is too hot; None keeps the device's own.
        cool_seconds: The longest time for which a hot device may cool.
        patience: How a lost device is waited for; None does not wait for a single device.

    Raises:
        DeviceSetupError: The kind of device is unknown, or it needs a setting that was not given.
    """
    kind = kind_of(text)
    if kind == "android" and not benchmark_model:
        raise DeviceSetupError(
            "Phones need TFLite's benchmark_model: `benchmark_model` must be its path (docs/devices.md says where it is)."
        )
    phone = {"benchmark_model": benchmark_model, "delegate": delegate}
    options = {"android": phone, "raspberry_pi": {"python": python}}.get(kind, {})
    found = connect(text, patience, threads=threads, **options)
    for device in getattr(found, "devices", [found]):
        device.cool_seconds = cool_seconds
        device.max_celsius = device.max_celsius if max_celsius is None else max_celsius
    return found


def kind_of(text: str) -> str:
    """The kind of the devices that an address stands for: `host`, `raspberry_pi` or `android`.

    Raises:
        DeviceSetupError: The kind is unknown, or there are several kinds.
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
