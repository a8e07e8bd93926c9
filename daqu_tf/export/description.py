"""What a `.tflite` file is and how well it does, found out by running it: its manifest."""

import dataclasses
import hashlib
import pathlib
import zlib
from typing import Any

import numpy as np

from daqu_tf.data.dataset import Dataset
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
        path: The file.
        name: The model's name.
        network: What the file was exported from.
        dataset: What the network was trained on.
        storage: How the file stores the network.
        state: `inherited` or `fine_tuned`, what the network's weights are.
        **more: Fields of the manifest that only the caller knows.
    """
    space, subnet, scorer = network.space, network.subnet, Scorer(network, dataset.x_train)
    height, width = image_size(space.input_shape, subnet["resolution"])
    splits = {"search": (dataset.x_search, dataset.y_search), "test": (dataset.x_test, dataset.y_test)}
    simulated = {split: scorer.logits(x) for split, (x, _) in splits.items()}
    written = {split: HostDevice().predict(path, at_size(network, x)) for split, (x, _) in splits.items()}
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
    """What a subnet in full precision does not have: a genome, and costs that are counted in bits."""
    if FLOAT_BITS in subnet.bits.values():
        return {}
    return {
        "genome": tuple(space.genome(subnet)),
        "bitops": costs.bitops(space, subnet),
        "bit_packed_bytes": costs.bit_packed_bytes(space, subnet),
    }


def layer_table(space: SearchSpace, subnet: Subnet, graph: Graph) -> list[dict[str, Any]]:
    """Bits and container of each layer as stored in a graph, for the manifest."""
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
