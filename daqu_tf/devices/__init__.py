"""Devices: what can time a `.tflite` file and run it. One file a device; `base` has what they share."""

from daqu_tf.devices.android import AndroidDevice
from daqu_tf.devices.base import Device, DeviceError, Latency
from daqu_tf.devices.host import HostDevice

__all__ = ["AndroidDevice", "Device", "DeviceError", "HostDevice", "Latency"]
