"""The description of a `.tflite` file, its manifest, for which the file is run."""

import dataclasses
import hashlib
import pathlib
import zlib
from typing import Any

import numpy as np

from daqu_tf.data.dataset import Dataset
from daqu_tf.data.images import parts_of
from daqu_tf.devices import HostDevice
from daqu_tf.export.export import to_graph
from daqu_tf.export.manifest import Manifest
from daqu_tf.export.proof import at_size
from daqu_tf.spaces.architecture import image_size
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.scoring import Scorer, top1
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.targets import costs
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import Graph
from daqu_tf.tflite.weighted import Weighted


def describe(
    path: pathlib.Path, name: str, network: StaticNetwork, dataset: Dataset, storage: Storage, state: str, **more: Any
) -> Manifest:
    """The manifest of a file, which is run on the search and the test split beside the network as it was trained.

    Args:
        path: The path of the file.
        name: The name of the model.
        network: The network that was exported to the file.
        dataset: The data set on which the network was trained.
        storage: How the file stores the network.
        state: The state of the network's weights, `inherited` or `fine_tuned`.
        **more: Fields of the manifest that only the caller knows.
    """
    space, subnet, scorer = network.space, network.subnet, Scorer(network, dataset.x_train)
    height, width = image_size(space.input_shape, subnet["resolution"])
    splits = {"search": (dataset.x_search, dataset.y_search), "test": (dataset.x_test, dataset.y_test)}
    simulated = {split: scorer.logits(x) for split, (x, _) in splits.items()}
    device = HostDevice()
    written = {
        split: np.concatenate([device.predict(path, at_size(network, part)) for part in parts_of(x)])
        for split, (x, _) in splits.items()
    }
    agreement = float(np.mean(written["test"].argmax(1) == simulated["test"].argmax(1)))
    content = path.read_bytes()
    return Manifest(
        name=name,
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        deflated_bytes=len(zlib.compress(content, 9)),
        space=space.name,
        storage=dataclasses.asdict(storage),
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        input={"height": height, "width": width, "offset": dataset.input_offset, "scale": dataset.input_scale},
        class_names=dataset.class_names,
        subnet=subnet.to_json(),
        subnet_text=str(subnet),
        layers=tuple(layer_table(space, subnet, to_graph(network, storage))),
        accuracy={
            name: {split: top1(logits[split], y) for split, (_, y) in splits.items()}
            for name, logits in ((state, simulated), ("file", written))
        },
        top1_agreement=agreement,
        macs=costs.macs(space, subnet),
        parameters=costs.parameters(space, subnet),
        **_costs_of_bits(space, subnet),
        **more,
    )


def _costs_of_bits(space: SearchSpace, subnet: Subnet) -> dict[str, Any]:
    """The genome, and the costs that are counted in bits, which a subnet in float does not have."""
    if FLOAT_BITS in subnet.bits.values():
        return {}
    return {
        "genome": tuple(space.genome(subnet)),
        "bitops": costs.bitops(space, subnet),
        "bit_packed_bytes": costs.bit_packed_bytes(space, subnet),
    }


def layer_table(space: SearchSpace, subnet: Subnet, graph: Graph) -> list[dict[str, Any]]:
    """The layers of a subnet with their bits and the containers in which a graph stores them, for the manifest.

    Args:
        space: The space of the subnet.
        subnet: The subnet.
        graph: The graph of its file.
    """
    kernels = {operator.output: operator for operator in graph.operators if isinstance(operator, Weighted)}
    stored = {output.removesuffix(".unrounded").removesuffix(".unclipped"): kernel for output, kernel in kernels.items()}
    fixed = subnet.fixed_bits
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "weight_bits": subnet.values.get(f"{layer.name}.weight_bits", fixed),
            "container": stored[layer.name].container,
            "input_activation_bits": FLOAT_BITS if stored[layer.name].in_float else layer.input_bits,
            "weights": layer.weights,
        }
        for layer in space.layers(subnet)
    ]
