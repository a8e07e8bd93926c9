"""Siblings: finalists at fewer bits, which are trained on from one that was trained at the highest."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daqu_tf.pipeline.budget import SIBLING_SHARE
from daqu_tf.spaces.bits import next_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import Target, costs

if TYPE_CHECKING:
    from daqu_tf.training.fine_tuning import FineTuning

BITS = (4,)  # The weight bits of siblings, but for depthwise kernels: those have few weights, and feel fewer bits most.
LEAST_SAVED = 0.1  # The share of its parent's bytes by which a sibling's file must be smaller.
RATE = 0.3  # The learning rate of a sibling's training, as a share of its parent's: it begins with weights that are at rest.


def siblings_of(space: SearchSpace, target: Target, finalists: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The siblings of finalists by name, as `finalists.json` holds them; none where fewer bits hardly make the file smaller.

    Args:
        space: The part of the space that the job trains.
        target: What the networks are for.
        finalists: The finalists by name, as `search.finalists.choose` returns them.
    """
    found = {}
    for name, finalist in finalists.items():
        for bits, subnet in smaller(space, target, space.subnet(finalist["values"])).items():
            found[f"{name}_w{bits}"] = {"parent": name, "values": subnet.to_json(), "macs": finalist["macs"]}
    return found


def smaller(space: SearchSpace, target: Target, parent: Subnet) -> dict[int, Subnet]:
    """The subnets of fewer bits, by their bits, whose files are so much smaller that they are worth their training.

    Args:
        space: The space of the subnet.
        target: What the files are for: it says which weights they hold in fewer bytes.
        parent: The subnet at its highest bits.
    """
    limit = (1 - LEAST_SAVED) * costs.file_bytes(space, parent, target)
    subnets = {bits: at_bits(space, parent, bits) for bits in BITS}
    return {bits: subnet for bits, subnet in subnets.items() if costs.file_bytes(space, subnet, target) <= limit}


def how_to_tune(how: "FineTuning") -> "FineTuning":
    """How a sibling is trained whose parent was trained as `how` says."""
    seconds, steps = SIBLING_SHARE * how.seconds, math.ceil(SIBLING_SHARE * how.steps)
    return dataclasses.replace(how, learning_rate=RATE * how.learning_rate, seconds=seconds, steps=steps)


def parents(finalists: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names of the siblings of each finalist that is trained from the supernet's weights, by its name."""
    return {
        name: [other for other, sibling in finalists.items() if sibling.get("parent") == name]
        for name, finalist in finalists.items()
        if "parent" not in finalist
    }


def teacher(has_teacher: bool, finalists: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The name of the finalist that is trained before the others and teaches them, the largest; None where there is none."""
    alone = parents(finalists)
    return max(alone, key=lambda name: finalists[name]["macs"]) if has_teacher and len(alone) > 1 else None


def at_bits(space: SearchSpace, parent: Subnet, bits: int) -> Subnet:
    """The architecture of `parent` with weights of at least so many bits, the fewest that there are, but for depthwise kernels."""
    kinds, values = {layer.name: layer.kind for layer in space.layers(parent)}, parent.values
    for gene in space.genes:
        layer, _, what = gene.name.rpartition(".")
        if what == "weight_bits" and gene.name in values and kinds[layer] != "depthwise":
            values = values | {gene.name: next_bits(gene.values, bits)}
    return space.subnet(values)
