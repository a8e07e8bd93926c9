"""Which space suits a device: that of the family whose network is the fastest there, of some that learn about as much."""

import pathlib
import tempfile

from daqu_tf import spaces
from daqu_tf.data import Dataset
from daqu_tf.devices import Device
from daqu_tf.export.encoding import encode, write
from daqu_tf.latency.block_graph import of_subnet
from daqu_tf.spaces.hand_scaled import scaled
from daqu_tf.targets import Target

# The width of a network of each family. On Fashion-MNIST, the two are equally accurate after equal minutes of training (ours).
WIDTHS = {"resnet": 0.75, "mobilenet_v2": 0.5}
USUAL = "mobilenet_v2"  # Where no device decides: of the families, it has the fewest multiplications.
REPEATS = 3


def latencies_us(device: Device, dataset: Dataset, target: Target) -> dict[str, float]:
    """The latency of a network of each family with random weights, in microseconds, by the name of its space; the fastest first.

    Args:
        device: What times files.
        dataset: The images and classes that the networks are for.
        target: The target, in whose files the networks are timed.

    Raises:
        DaquError: The images are too small for a family, or the device does not time files.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{name}.tflite" for name in WIDTHS]
        for path, (name, width) in zip(paths, WIDTHS.items()):
            space = target.restrict(spaces.get(name).for_images(dataset.image_shape, dataset.num_classes))
            write(encode(of_subnet(space, scaled(space, width), target.storage), target.storage), path)
        found = {name: one.median_us for name, one in zip(WIDTHS, device.measure_many(paths, repeats=REPEATS))}
    return dict(sorted(found.items(), key=lambda item: item[1]))
