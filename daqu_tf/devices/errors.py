"""What can go wrong on a device, by what a search has to do about it."""

from daqu_tf.errors import DaquError


class DeviceError(DaquError):
    """A fault of a device; always one of the three kinds below."""


class ModelError(DeviceError):
    """One model does not run there, or cannot be timed: a failed trial. Others may run."""


class DeviceLostError(DeviceError):
    """The device does not answer, or its answers do not come through whole. It may come back: wait, and try again."""


class DeviceTimeoutError(DeviceLostError):
    """A command gave no answer in time, by its own fault or the device's."""


class DeviceSetupError(DeviceError):
    """Settings, or something on the device or on this machine, that a person has to mend first: stop."""
