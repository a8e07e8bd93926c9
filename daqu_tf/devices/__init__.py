"""Devices: what can time a `.tflite` file and run it.

`addresses` finds the device that a text stands for. `base` is what all devices share, `measurement` is what they report,
`steadiness` says whether times can be trusted, and `errors` what can go wrong. `host` is this machine and `raspberry_pi` any Linux
board, through `ssh`; both run Python (`python_device`), in which `runner` times a file. `android` is a phone, through `adb`, with
TFLite's own `benchmark_model`. `group` is several devices of one kind that share the work.
"""

from daqu_tf.devices.addresses import connect, connect_with, kind_of
from daqu_tf.devices.android import AndroidDevice
from daqu_tf.devices.base import Device
from daqu_tf.devices.errors import DeviceError, DeviceLostError, DeviceSetupError, ModelError
from daqu_tf.devices.group import DeviceGroup, Patience
from daqu_tf.devices.host import HostDevice
from daqu_tf.devices.measurement import Latency
from daqu_tf.devices.raspberry_pi import RaspberryPiDevice

__all__ = [
    "connect",
    "connect_with",
    "kind_of",
    "Device",
    "HostDevice",
    "RaspberryPiDevice",
    "AndroidDevice",
    "DeviceGroup",
    "Patience",
    "Latency",
    "DeviceError",
    "DeviceSetupError",
    "DeviceLostError",
    "ModelError",
]
