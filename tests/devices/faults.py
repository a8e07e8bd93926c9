"""What every fault of a device has to be."""

import pytest

from daqu_tf.devices import DeviceError, DeviceLostError, DeviceSetupError, ModelError
from daqu_tf.errors import DaquError


def refused(call, *words, kind=DeviceError):
    """Calls; checks that it is refused in one sentence that has these words, as a fault of that kind."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert isinstance(caught.value, (DeviceLostError, DeviceSetupError, ModelError))
    assert isinstance(caught.value, DaquError) and "\n" not in message and message.endswith(".")
    for word in words:
        assert word in message, message
