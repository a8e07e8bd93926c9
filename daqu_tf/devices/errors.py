"""The errors of devices, by what a search has to do about them."""

from daqu_tf.errors import DaquError


class DeviceError(DaquError):
    """A fault of a device, which is always a `ModelError`, a `DeviceLostError` or a `DeviceSetupError`."""


class ModelError(DeviceError):
    """One model does not run on the device or cannot be timed, so that its trial fails; other models may run."""


class DeviceLostError(DeviceError):
    """The device does not answer, or its answers are cut short. It may come back: wait, and try again."""


class DeviceTimeoutError(DeviceLostError):
    """A command gave no answer in time, because of the command or because of the device."""


class DeviceSetupError(DeviceError):
    """Something in the settings, on the device or on this machine has to be mended by a person first: stop."""
