"""The supernet, which holds the weights of all subnets, and the static network of one subnet.

Both are the same `Network`; they differ in where a choice comes from. In a `Supernet` it is read from one packed int
vector, the active subnet, so that one traced function serves every subnet; in a `StaticNetwork` it is a Python int.
"""

import functools
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.layers import (
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    QuantizedTensor,
    channels,
    quantize_input,
)
from daqu_tf.quantizers import Bits, SwitchableQuantizeConfig, SwitchableQuantizer
from daqu_tf.space import FIXED_BITS, FLOAT_BITS, SearchSpace, Stage, Subnet
from daqu_tf.weights import cut

FIXED = "fixed_bits"  # The width of the tensors that are not searched: 8, or 32 in a float network.


class Network(keras.Model):
    """Stem, stages of inverted residual blocks, head and classifier of a search space.

    Args:
        space: What may be chosen.
        name: Of the Keras model.
    """

    def __init__(self, space: SearchSpace, name: str):
        super().__init__(name=name)
        self.space = space
        self.stem = self._unit("stem", ElasticConv2D(self.maximum("stem.width"), 3, space.stem_stride), searched=False)
        self.blocks = []
        width = self.maximum("stem.width")
        for number, stage in enumerate(space.stages, 1):
            for block in range(1, self.maximum(f"stage{number}.depth") + 1):
                self.blocks.append((number, block, self._block(stage, f"stage{number}", block, width)))
                width = self.maximum(f"stage{number}.width")
        self.head = self._unit("head", ElasticConv2D(self.maximum("head.width")))
        fixed = functools.partial(self.choice, FIXED)
        self.pooled = QuantizedTensor(SwitchableQuantizer((FIXED_BITS,), fixed), name="pooled")
        self.classifier = self._quantized("classifier", ElasticDense(space.num_classes), searched=False)
        self.logits = QuantizedTensor(SwitchableQuantizer((FIXED_BITS,), fixed, signed=True), name="logits")

    def choice(self, name: str) -> Bits:
        """The active value of a gene, or of `FIXED`: a Python int or a scalar int32 tensor."""
        raise NotImplementedError

    def maximum(self, name: str) -> int:
        """The largest value the gene can take in this network."""
        raise NotImplementedError

    def call(self, images, training: bool = False, statistics_rate=None, observe: tuple[int, ...] = ()):
        """Images (batch, height, width, channels) in [0, 1] to logits (batch, classes); arguments as in the layers."""
        arguments = {"training": training, "statistics_rate": statistics_rate, "observe": observe}
        x = self.stem(quantize_input(images), arguments, filters=self.choice("stem.width"))
        for stage, number, block in self.blocks:
            x = self._run_block(block, x, stage, number, arguments)
        x = self.head(x, arguments, filters=self.choice("head.width"))
        x = self.pooled(tf.reduce_mean(x, [1, 2]), observe=observe)
        return self.logits(self.classifier(x), observe=observe)

    def _run_block(self, block, x, stage, number, arguments):
        width, depth = self.choice(f"stage{stage}.width"), self.choice(f"stage{stage}.depth")
        if isinstance(depth, int) or number == 1:
            return block(x, arguments, width)
        shape = x.shape
        x = tf.cond(depth >= number, lambda: block(x, arguments, width), lambda: tf.identity(x))
        return tf.ensure_shape(x, shape)

    def _quantized(self, name: str, layer, searched: bool = True) -> QuantizeWrapper:
        """The layer within TFMOT's wrapper, its kernel quantized to the searched bits or to the fixed ones."""
        alphabet = self.space.weight_bits if searched else (FIXED_BITS,)
        bits = functools.partial(self.choice, f"{name}.weight_bits" if searched else FIXED)
        axis = {ElasticDepthwiseConv2D: 2, ElasticDense: 1}.get(type(layer), 3)
        config = SwitchableQuantizeConfig(SwitchableQuantizer(alphabet, bits, channel_axis=axis))
        return QuantizeWrapper(layer, config, name=name)

    def _unit(self, name: str, layer, relu: bool = True, searched: bool = True) -> "Unit":
        # A linear output is signed and stays at 8 bits; what follows a ReLU has its own gene.
        bits = functools.partial(self.choice, f"{name}.activation_bits" if relu else FIXED)
        quantizer = SwitchableQuantizer(self.space.activation_bits if relu else (FIXED_BITS,), bits, signed=not relu)
        normalize = ElasticBatchNormalization(relu, quantizer, name=f"{name}.normalize")
        return Unit(self._quantized(name, layer, searched), normalize, name=f"{name}.unit")

    def _block(self, stage: Stage, stage_name: str, number: int, width: int) -> "Block":
        name = f"{stage_name}.block{number}"
        hidden = width * self.maximum(f"{name}.expansion")
        kernel = self.maximum(f"{name}.kernel")
        total = QuantizedTensor(
            SwitchableQuantizer((FIXED_BITS,), functools.partial(self.choice, FIXED), signed=True), name=f"{name}.sum"
        )
        return Block(
            self._unit(f"{name}.expand", ElasticConv2D(hidden)) if "expand" in stage.layers else None,
            self._unit(f"{name}.depthwise", ElasticDepthwiseConv2D(kernel, stage.stride if number == 1 else 1)),
            self._unit(f"{name}.project", ElasticConv2D(self.maximum(f"{stage_name}.width")), relu=False),
            total if number > 1 else None,
            functools.partial(self.choice, f"{name}.expansion"),
            functools.partial(self.choice, f"{name}.kernel"),
            name=name,
        )

    def create(self) -> "Network":
        """Creates the variables and returns the network."""
        self(tf.zeros((1, *self.space.input_shape)))
        return self

    @functools.cached_property
    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Variables under names that do not depend on the order of creation, as `stage1.block1.expand/kernel`."""
        named = {}
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, QuantizeWrapper):
                named |= {f"{layer.name}/{_leaf(v)}": v for v in (*layer.weights, *layer.layer.weights)}
            elif isinstance(layer, ElasticBatchNormalization | QuantizedTensor):
                named |= {f"{layer.name}/{_leaf(v)}": v for v in layer.weights}
        return {name: variable for name, variable in named.items() if not name.endswith("/optimizer_step")}

    def arrays(self) -> dict[str, np.ndarray]:
        """A copy of all weights, statistics and steps."""
        return {name: variable.numpy() for name, variable in self.variables_by_name.items()}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of `arrays`.

        Raises:
            DaquError: The arrays are those of another space (what differs is said).
        """
        for name, variable in self.variables_by_name.items():
            if name not in arrays or arrays[name].shape != tuple(variable.shape):
                came = arrays[name].shape if name in arrays else "nothing"
                raise DaquError(
                    f"The weights are those of another space than {self.space.name!r}: `{name}` must have shape "
                    f"{tuple(variable.shape)}, but received {came}."
                )
        for name, variable in self.variables_by_name.items():
            variable.assign(arrays[name])

    def weight_quantizers(self) -> list[tuple[SwitchableQuantizer, dict, tf.Variable]]:
        """Quantizer, its variables and the kernel of every quantized layer."""
        wrappers = [layer for layer in self._flatten_layers(include_self=False) if isinstance(layer, QuantizeWrapper)]
        return [(quantizer, steps, kernel) for layer in wrappers for kernel, quantizer, steps in layer._weight_vars]

    def initialise_weight_steps(self, widths: tuple[int, ...]) -> None:
        """Sets the weight steps of `widths` from the present weights; the steps of other widths stay as they were learned."""
        for quantizer, steps, kernel in self.weight_quantizers():
            quantizer.initialise(steps, kernel.numpy(), widths)

    def initialise_steps(self, images: np.ndarray, widths: tuple[int, ...]) -> None:
        """Sets the weight steps of `widths` and of the fixed tensors, and all activation steps from one batch.

        Args:
            images: Go through the active subnet.
            widths: Of weights.
        """
        self.initialise_weight_steps((*widths, FIXED_BITS))
        self(images, training=True, observe=(*self.space.activation_bits, FIXED_BITS))


class Unit(keras.layers.Layer):
    """A quantized convolution, then batch normalization, activation and the quantizer of the output.

    Args:
        convolution: In TFMOT's wrapper.
        normalize: What follows.
    """

    def __init__(self, convolution: QuantizeWrapper, normalize: ElasticBatchNormalization, **kwargs):
        super().__init__(**kwargs)
        self.convolution, self.normalize = convolution, normalize

    def call(self, x, arguments, **sizes):
        """NHWC in, NHWC out; `sizes` are the convolution's, `arguments` the normalization's."""
        return self.normalize(self.convolution(x, **sizes), **arguments)


class Block(keras.layers.Layer):
    """An inverted residual block (Sandler et al., CVPR 2018).

    Args:
        expand: Pointwise, with ReLU; None where nothing is expanded.
        depthwise: With ReLU.
        project: Pointwise, linear.
        total: Quantizer of the residual sum; None where there is no residual.
        expansion: Returns the active expansion.
        kernel: Returns the active kernel size.
    """

    def __init__(self, expand, depthwise, project, total, expansion, kernel, **kwargs):
        super().__init__(**kwargs)
        self.expand, self.depthwise, self.project, self.total = expand, depthwise, project, total
        self._expansion, self._kernel = expansion, kernel

    def call(self, x, arguments, width):
        """NHWC in, NHWC with `width` channels out."""
        y = x if self.expand is None else self.expand(x, arguments, filters=channels(x) * self._expansion())
        y = self.depthwise(y, arguments, kernel_size=self._kernel())
        y = self.project(y, arguments, filters=width)
        return y if self.total is None else self.total(x + y, observe=arguments["observe"])


class Supernet(Network):
    """The network that holds the shared weights of all subnets; it computes the active one.

    Args:
        space: What may be chosen.

    Attributes:
        active: The active subnet as one int32 vector: the fixed bits, then the value of every gene.
    """

    def __init__(self, space: SearchSpace):
        self._genes = {gene.name: gene for gene in space.genes}
        self._index = {name: index for index, name in enumerate((FIXED, *self._genes))}
        vector = self._pack(space.largest())
        super().__init__(space, name="supernet")
        self.active = tf.Variable(vector, dtype=tf.int32, trainable=False, name="active")
        self.create()

    def choice(self, name):
        """Reads the active vector."""
        return self.active[self._index[name]]

    def maximum(self, name):
        """The gene's last value."""
        return self._genes[name].values[-1]

    def activate(self, subnet: Subnet) -> None:
        """Makes `subnet` the one that is computed from now on."""
        self.active.assign(self._pack(subnet))

    def _pack(self, subnet: Subnet) -> list[int]:
        values = subnet.values
        for name, value in values.items():
            if value not in (*self._genes[name].values, FLOAT_BITS):
                raise DaquError(f"`{name}` must be one of {self._genes[name].values} or {FLOAT_BITS}, but received {value}.")
        return [_fixed_bits(subnet), *(values.get(name, gene.values[0]) for name, gene in self._genes.items())]

    def extract(self, subnet: Subnet) -> "StaticNetwork":
        """A trainable network of `subnet` alone, with its part of the weights, statistics and steps."""
        return extract(self.space, subnet, self.arrays())


class StaticNetwork(Network):
    """The network of one subnet: every size and width is a Python int, so that nothing is left to choose.

    Args:
        space: The space of the subnet.
        subnet: The choice.
    """

    def __init__(self, space: SearchSpace, subnet: Subnet):
        self.subnet = subnet
        super().__init__(space, name="subnet")
        self.create()

    def choice(self, name):
        """The subnet's value."""
        return _fixed_bits(self.subnet) if name == FIXED else self.subnet[name]

    def maximum(self, name):
        """The subnet's value."""
        return self.subnet[name]


def extract(space: SearchSpace, subnet: Subnet, arrays: Mapping[str, np.ndarray]) -> StaticNetwork:
    """A trainable network of `subnet` alone, from the arrays of its supernet.

    Args:
        space: Of the supernet.
        subnet: What is extracted.
        arrays: `Supernet.arrays()`.
    """
    network = StaticNetwork(space, subnet)
    network.load_arrays(cut(space, subnet, arrays))
    return network


def _fixed_bits(subnet: Subnet) -> int:
    bits = {value for name, value in subnet.choices if name.endswith("_bits")}
    return FLOAT_BITS if bits == {FLOAT_BITS} else FIXED_BITS


def _leaf(variable: tf.Variable) -> str:
    return variable.name.split(":")[0].rpartition("/")[2]
