"""The supernet, which holds the weights of all subnets, and the static network of one subnet.

Both are a `Network` and differ in where a choice comes from. A `Supernet` reads it from one packed int vector, the active subnet,
so that one traced function serves every subnet; in a `StaticNetwork` it is a Python int.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.spaces import architecture
from daqu_tf.spaces.bits import FIXED_BITS, FLOAT_BITS, MIXED_PRECISIONS
from daqu_tf.spaces.layer import Layer
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.layers import ElasticBatchNormalization, TensorQuantizer, quantize_input, resize
from daqu_tf.supernet.quantizers import Bits, SwitchableQuantizer
from daqu_tf.supernet.units import Unit, UnitChain
from daqu_tf.supernet.weights import cut

HALF_TYPES = MIXED_PRECISIONS[1:]
STEP_IMAGES = 128  # The number of images from which activation steps are set.
FIXED = "fixed_bits"  # The name of the bits of the tensors that are not searched: 8, or 32 in a float network.


class Network(keras.Model):
    """The layers of a search space, one behind another.

    Args:
        space: The search space.
        largest: The largest value that each gene can have in this network, by its name.
        name: The name of the Keras model.
        mixed_precision: The type in which convolutions and matrix products compute: `float16`, `bfloat16`, or None for float32.
            Everything else is float32, the weights too, so that a network of another type can load them.

    Raises:
        DaquError: `mixed_precision` is none of these.
    """

    def __init__(self, space: SearchSpace, largest: Mapping[str, int], name: str, mixed_precision: str | None = None):
        super().__init__(name=name)
        if mixed_precision not in (None, *HALF_TYPES):
            raise DaquError(f"`mixed_precision` must be one of {', '.join(HALF_TYPES)}, or None, but received {mixed_precision!r}.")
        self.space, self.mixed_precision = space, mixed_precision
        self._searched = {gene.name for gene in space.genes}
        self.blocks: list[UnitChain] = []
        for layer in architecture.layers(space, largest):
            unit = Unit(layer, self._quantizer, f"{layer.name}.unit", mixed_precision)
            if layer.block and self.blocks and self.blocks[-1].name == layer.block:
                self.blocks[-1].units.append(unit)
            else:
                self.blocks.append(UnitChain([unit], name=layer.block or f"{layer.name}.block"))

    def choice(self, name: str) -> Bits:
        """The active value of the gene or `FIXED` that `name` names: a Python int, or a scalar int32 tensor."""
        raise NotImplementedError

    @property
    def choices(self) -> Mapping[str, Bits]:
        """The active values of all genes that act, by name."""
        raise NotImplementedError

    @property
    def _input_zero(self) -> float | tf.Tensor:
        """The code of the pixel that stands for 0, which is a whole one unless the network is in float."""
        exact, code = 255.0 * self.space.input_zero, float(self.space.input_zero_code)
        bits = self.choice(FIXED)
        if isinstance(bits, int):
            return exact if bits == FLOAT_BITS else code
        return tf.where(bits == FLOAT_BITS, exact, code)

    def _quantizer(self, gene: str | None, **arguments: Any) -> SwitchableQuantizer:
        """A quantizer whose bits are those of `gene`, or fixed if the space has no such gene."""
        if gene not in self._searched:
            return SwitchableQuantizer((FIXED_BITS,), functools.partial(self.choice, FIXED), **arguments)
        alphabet = self.space.weight_bits if gene.endswith("weight_bits") else self.space.activation_bits
        return SwitchableQuantizer(alphabet, functools.partial(self.choice, gene), **arguments)

    def call(
        self,
        images: tf.Tensor,
        training: bool = False,
        statistics_rate: float | None = None,
        observe: tuple[int, ...] = (),
    ) -> tf.Tensor:
        """Computes logits.

        Args:
            images: The images (batch, height, width, channels), in [0, 1].
            training: Whether to normalize by the statistics of the batch instead of the stored ones.
            statistics_rate: The share in (0, 1] by which the stored statistics move to those of the batch; None leaves them.
            observe: The bits whose activation steps are set from this batch, in eager mode only.

        Returns:
            The logits (batch, classes).
        """
        arguments = {"training": training, "statistics_rate": statistics_rate, "observe": observe}
        choices = self.choices
        layers = {layer.name: layer for layer in architecture.layers(self.space, choices)}
        images = resize(images, architecture.image_size(self.space.input_shape, choices["resolution"]))
        x = quantize_input(images, self._input_zero)
        for block in self.blocks:
            x = _run(block, x, layers, arguments)
        return x

    def create(self) -> "Network":
        """Creates the variables, and gives the network itself."""
        self(tf.zeros((1, *self.space.input_shape)))
        return self

    @functools.cached_property
    def variables_by_name(self) -> dict[str, tf.Variable]:
        """The variables by names that do not depend on the order of creation, such as `stage1.block1.expand/kernel`."""
        named: dict[str, tf.Variable] = {}
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, QuantizeWrapper):
                named |= {f"{layer.name}/{_leaf(v)}": v for v in (*layer.weights, *layer.layer.weights)}
            elif isinstance(layer, ElasticBatchNormalization | TensorQuantizer):
                named |= {f"{layer.name}/{_leaf(v)}": v for v in layer.weights}
        return {name: variable for name, variable in named.items() if not name.endswith("/optimizer_step")}

    def arrays(self) -> dict[str, np.ndarray]:
        """A copy of all weights, statistics and steps by name, and the bit alphabets that the rows of the steps belong to."""
        return {name: variable.numpy() for name, variable in self.variables_by_name.items()} | self._alphabets

    @property
    def _alphabets(self) -> dict[str, np.ndarray]:
        return {name: np.array(getattr(self.space, name)) for name in ("weight_bits", "activation_bits")}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets all weights, statistics and steps, the inverse of `arrays`.

        Raises:
            DaquError: The arrays are those of another space (the difference is named).
        """

        def require(condition: bool, name: str, expected: str, came: object) -> None:
            if not condition:
                another = f"The weights are those of another space than {self.space.name!r}"
                raise DaquError(f"{another}: `{name}` must {expected}, but received {came}.")

        for name, alphabet in self._alphabets.items():
            came = arrays.get(name, alphabet)
            require(np.array_equal(came, alphabet), name, f"be {alphabet.tolist()}", np.asarray(came).tolist())
        for name, variable in self.variables_by_name.items():
            shape = arrays[name].shape if name in arrays else None
            expected = f"have shape {tuple(variable.shape)}"
            require(shape == tuple(variable.shape), name, expected, "nothing" if shape is None else shape)
        for name in arrays.keys() - self.variables_by_name.keys() - self._alphabets.keys():
            require(False, name, "not be there", f"shape {arrays[name].shape}")
        for name, variable in self.variables_by_name.items():
            variable.assign(arrays[name])

    def weight_quantizers(self) -> list[tuple[SwitchableQuantizer, dict, tf.Variable]]:
        """For each layer with weights: the quantizer of its kernel, the quantizer's variables, and the kernel."""
        wrappers = [layer for layer in self._flatten_layers(include_self=False) if isinstance(layer, QuantizeWrapper)]
        return [(quantizer, steps, kernel) for layer in wrappers for kernel, quantizer, steps in layer._weight_vars]

    def initialise_weight_steps(self, chosen: tuple[int, ...]) -> None:
        """Sets the weight steps of the bits in `chosen` from the present weights; those of other bits stay as learned."""
        for quantizer, steps, kernel in self.weight_quantizers():
            quantizer.initialise(steps, kernel.numpy(), chosen)

    def initialise_steps(self, images: np.ndarray, weight_bits: tuple[int, ...]) -> None:
        """Sets weight steps from the present weights, and all activation steps from one batch.

        Args:
            images: The images (count, height, width, channels), which go through the active subnet.
            weight_bits: The bits whose weight steps are set, beside the fixed bits.
        """
        self.initialise_weight_steps((*weight_bits, FIXED_BITS))
        self(images, training=True, observe=(*self.space.activation_bits, FIXED_BITS))


def _run(block: UnitChain, x: tf.Tensor, layers: Mapping[str, Layer], arguments: Mapping[str, Any]) -> tf.Tensor:
    """The output of a block, or its input where the depth leaves the block out; only what is active is computed."""
    active = layers[block.units[0].layer.name].active
    if active is True:
        return block(x, layers, arguments)
    return tf.ensure_shape(tf.cond(active, lambda: block(x, layers, arguments), lambda: tf.identity(x)), x.shape)


class Supernet(Network):
    """The network that holds the shared weights of all subnets, and computes the active one.

    Args:
        space: The search space.
        mixed_precision: The type in which convolutions and matrix products compute: `float16`, `bfloat16`, or None for float32.

    Attributes:
        active: The active subnet as one int32 vector (1 + genes,): the fixed bits, then the value of every gene.
    """

    def __init__(self, space: SearchSpace, mixed_precision: str | None = None):
        self._genes = {gene.name: gene for gene in space.genes}
        self._index = {name: index for index, name in enumerate((FIXED, *self._genes))}
        super().__init__(space, space.largest().values, "supernet", mixed_precision)
        self.active = tf.Variable(self._pack(space.largest()), dtype=tf.int32, trainable=False, name="active")
        self.create()

    def choice(self, name: str) -> Bits:
        """The active value of the gene or `FIXED` that `name` names, a scalar int32 tensor."""
        return self.active[self._index[name]]

    @property
    def choices(self) -> Mapping[str, Bits]:
        """The values in the active vector by name, also those of genes that do not act."""
        return dict(zip(self._index, tf.unstack(self.active)))

    def activate(self, subnet: Subnet) -> None:
        """Makes `subnet` the active one, which is computed from now on."""
        self.active.assign(self._pack(subnet))

    def _pack(self, subnet: Subnet) -> list[int]:
        values = subnet.values
        in_float = [name for name, bits in subnet.bits.items() if bits == FLOAT_BITS and name in self._genes]
        known = values | {name: self._genes[name].values[0] for name in in_float}
        if self.space.subnet(known).values.keys() != values.keys():
            raise DaquError(f"`subnet` must be of space {self.space.name!r}, but has other genes: make it with `space.subnet`.")
        return [subnet.fixed_bits, *(values.get(name, gene.values[0]) for name, gene in self._genes.items())]

    def extract(self, subnet: Subnet) -> "StaticNetwork":
        """A trainable network of `subnet` alone, with its part of the weights, statistics and steps."""
        return extract(self.space, subnet, self.arrays())


class StaticNetwork(Network):
    """The network of one subnet, in which all sizes and bits are Python ints.

    Args:
        space: The space of the subnet.
        subnet: The subnet.
        mixed_precision: The type in which convolutions and matrix products compute: `float16`, `bfloat16`, or None for float32.
    """

    def __init__(self, space: SearchSpace, subnet: Subnet, mixed_precision: str | None = None):
        self.subnet = subnet
        super().__init__(space, subnet.values, "subnet", mixed_precision)
        self.create()

    def choice(self, name: str) -> Bits:
        """The value of the gene or `FIXED` that `name` names, a Python int."""
        return self.subnet.fixed_bits if name == FIXED else self.subnet[name]

    @property
    def choices(self) -> Mapping[str, Bits]:
        """The values of all genes of the subnet by name."""
        return self.subnet.values

    @property
    def input_zero(self) -> float:
        """What is taken from images in [0, 1] before the first layer."""
        return self._input_zero / 255.0


def extract(space: SearchSpace, subnet: Subnet, arrays: Mapping[str, np.ndarray]) -> StaticNetwork:
    """A trainable network of one subnet, from the weights of its supernet.

    Args:
        space: The space of the supernet.
        subnet: The subnet to extract.
        arrays: The supernet's weights by name, as `Supernet.arrays()` gives them.
    """
    network = StaticNetwork(space, subnet)
    network.load_arrays(cut(space, subnet, arrays))
    return network


def _leaf(variable: tf.Variable) -> str:
    return variable.name.split(":")[0].rpartition("/")[2]
