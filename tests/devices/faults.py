"""What every fault of a device has to be."""

import pytest

from daqu_tf.devices import DeviceError
from daqu_tf.errors import DaquError


def refused(call, *words):
    """Calls; checks that it is refused in one sentence that has these words."""
    with pytest.raises(DeviceError) as caught:
        call()
    message = str(caught.value)
    assert isinstance(caught.value, DaquError) and "\n" not in message and message.endswith(".")
    for word in words:
        assert word in message
