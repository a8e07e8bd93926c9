"""Which space suits a device: that of the family whose network is the fastest there, of some that learn about as much."""

import pathlib
import tempfile
from collections.abc import Sequence

from daqu_tf.data import Dataset
from daqu_tf.devices import Device
from daqu_tf.export.encoding import encode, write
from daqu_tf.latency.block_graph import of_subnet
from daqu_tf.spaces import SearchSpace, Subnet
from daqu_tf.spaces.fitting import fitted
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
    known = {name: target.restrict(fitted(name, dataset.image_shape, dataset.num_classes)) for name in WIDTHS}
    networks = [(space, scaled(space, WIDTHS[name])) for name, space in known.items()]
    found = dict(zip(WIDTHS, untrained_latencies_us(device, target, networks)))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def untrained_latencies_us(device: Device, target: Target, networks: Sequence[tuple[SearchSpace, Subnet]]) -> list[float]:
    """The latencies of networks with random weights, in microseconds, timed in turn.

    Args:
        device: What times files.
        target: The target, in whose files the networks are timed.
        networks: The networks, each as its space and its subnet.

    Raises:
        DaquError: The device does not time files, or does not run them.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{index}.tflite" for index in range(len(networks))]
        for path, (space, subnet) in zip(paths, networks):
            write(encode(of_subnet(space, subnet, target.storage), target.storage), path)
        return [one.median_us for one in device.measure_many(paths, repeats=REPEATS)]
