"""What a trained stock model is made of: units, each a layer with weights and what follows it, and sums of two paths.

It is read from the graph of a functional tf_keras model, and nothing of the model is run.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NoReturn

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.tflite.base import same_pads

layers = keras.layers
KINDS = {layers.Conv2D: "conv", layers.DepthwiseConv2D: "depthwise", layers.Dense: "dense"}
POOL, SCALE, SKIPPED, PADDED = "pool", "scale", "skipped", "padded"
MARKS = {
    layers.GlobalAveragePooling2D: POOL,
    layers.Rescaling: SCALE,
    layers.Normalization: SCALE,
    layers.ZeroPadding2D: PADDED,
    **dict.fromkeys((layers.Dropout, layers.SpatialDropout2D, layers.Reshape, layers.Flatten), SKIPPED),
}
ENDINGS = ("softmax", "sigmoid")
_FUNCTIONS = {"linear": "linear", "relu": "relu", "relu6": "relu6", **{name: name for name in ENDINGS}}
_UNPADDED = ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True)
class TrainedUnit:
    """A layer with weights, and the batch normalization and activation behind it.

    Attributes:
        layer: The layer, of a type in `KINDS`.
        norm: The batch normalization; None if there is none.
        activation: The function: `linear`, `relu`, `relu6`, or one of `ENDINGS`.
    """

    layer: keras.layers.Layer
    norm: keras.layers.Layer | None
    activation: str

    @property
    def kind(self) -> str:
        """One of the values of `KINDS`."""
        return KINDS[type(self.layer)]

    @property
    def kernel(self) -> int:
        """The side of the kernel in pixels; 1 of a dense layer."""
        return 1 if self.kind == "dense" else self.layer.kernel_size[0]

    @property
    def stride(self) -> int:
        """The stride along height and width."""
        return 1 if self.kind == "dense" else self.layer.strides[0]

    @property
    def channels(self) -> int:
        """The channels of the output."""
        return int(self.layer.output_shape[-1])

    @property
    def is_pointwise(self) -> bool:
        """Whether the unit is the same matrix product at every pixel."""
        return self.kind == "conv" and self.kernel == 1


@dataclasses.dataclass(frozen=True)
class Sum:
    """Two paths from one tensor, which are added.

    Attributes:
        units: The units of the longer path.
        shortcut: The unit of the other path; None where that is the tensor itself.
        activation: The function behind the sum: `linear`, `relu` or `relu6`.
    """

    units: tuple[TrainedUnit, ...]
    shortcut: TrainedUnit | None
    activation: str


@dataclasses.dataclass(frozen=True)
class Mark:
    """A layer without weights: a pool, a scale of the input, a padding, or one that changes nothing.

    Attributes:
        layer: The layer.
        kind: The kind, one of the values of `MARKS`.
    """

    layer: keras.layers.Layer
    kind: str


Element = TrainedUnit | Sum | Mark


def refuse(layer: keras.layers.Layer, reason: str) -> NoReturn:
    """Raises `DaquError` that names a layer which no search space has."""
    raise DaquError(f"`init_from` has layer {layer.name!r} ({type(layer).__name__}), which cannot be taken: {reason}.")


def elements_of(model: keras.Model) -> list[Element]:
    """All that a functional model is made of, from its input to its output.

    Raises:
        DaquError: A layer, or the way they are put together, is none that is known here (the layer is named).
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.inputs[0].shape) != 4:
        raise DaquError(f"`init_from` must have one image for its input and one output, but {model.name!r} has others.")
    return _Reader(model).all()


class _Reader:
    def __init__(self, model: keras.Model):
        self._start = model.inputs[0]
        self._readers: dict[int, list[Any]] = {}
        for nodes in model._nodes_by_depth.values():
            for node in nodes:
                if not node.is_input:
                    for tensor in node.keras_inputs:
                        self._readers.setdefault(id(tensor), []).append(node)

    def all(self) -> list[Element]:
        first, *others = self._readers.get(id(self._start), [None])
        if first is None or others:
            raise DaquError("`init_from` must have one layer that reads its input.")
        found, node = self._path(first)
        if node is not None:
            refuse(node.layer, "it adds what comes from one place")
        return found

    def _path(self, node: Any) -> tuple[list[Element], Any]:
        """What follows from a node on, and the sum that ends it; None where the model ends."""
        found: list[Element] = []
        while node is not None and not isinstance(node.layer, layers.Add):
            element, tensor = self._element(node)
            if isinstance(element, TrainedUnit):
                _check_padding(element, found)
            found.append(element)
            while len(nodes := self._readers.get(id(tensor), [])) > 1:
                element, tensor = self._sum(nodes)
                found.append(element)
            node = nodes[0] if nodes else None
        return found, node

    def _element(self, node: Any) -> tuple[Element, Any]:
        layer, tensor = node.layer, node.outputs
        if type(layer) in KINDS:
            return self._unit(layer, tensor)
        if type(layer) in MARKS:
            return Mark(layer, MARKS[type(layer)]), tensor
        if _function_of(layer) in ENDINGS:
            return Mark(layer, SKIPPED), tensor
        refuse(layer, "no block of a search space has it")

    def _unit(self, layer: keras.layers.Layer, tensor: Any) -> tuple[TrainedUnit, Any]:
        _check_plain(layer)
        norm, activation = None, _FUNCTIONS.get(keras.activations.serialize(layer.activation), "")
        if not activation:
            refuse(layer, f"its activation is {keras.activations.serialize(layer.activation)}, and relu and relu6 are known")
        while len(nodes := self._readers.get(id(tensor), [])) == 1 and activation == "linear":
            after = nodes[0].layer
            if type(after) is layers.BatchNormalization and norm is None:
                norm = after
            elif function := _function_of(after):
                activation = function
            else:
                break
            tensor = nodes[0].outputs
        return TrainedUnit(layer, norm, activation), tensor

    def _sum(self, nodes: Sequence[Any]) -> tuple[Sum, Any]:
        paths = sorted((self._path(node) for node in nodes), key=lambda path: len(path[0]))
        if len(paths) != 2 or paths[0][1] is None or paths[0][1] is not paths[1][1]:
            refuse(nodes[0].layer, "what it reads goes to several layers that no sum joins")
        end = paths[0][1]
        short, long = ([each for each in path if isinstance(each, TrainedUnit)] for path, _ in paths)
        others = [each for path, _ in paths for each in path if not isinstance(each, TrainedUnit)]
        if len(short) > 1 or any(isinstance(each, Sum) or each.kind != PADDED for each in others):
            refuse(end.layer, "its paths are others than one of convolutions, and one of a single convolution or none")
        tensor, activation = end.outputs, "linear"
        following = self._readers.get(id(tensor), [])
        if len(following) == 1 and (function := _function_of(following[0].layer)):
            tensor, activation = following[0].outputs, function
        return Sum(tuple(long), short[0] if short else None, activation), tensor


def _function_of(layer: keras.layers.Layer) -> str:
    """The function that a layer without weights is; empty where it is none that is known."""
    if type(layer) is layers.Softmax:
        return "softmax"
    if type(layer) is layers.ReLU:
        is_plain = not layer.negative_slope and not layer.threshold
        highest = None if layer.max_value is None else float(layer.max_value)
        return {None: "relu", 6.0: "relu6"}.get(highest, "") if is_plain else ""
    return _FUNCTIONS.get(keras.activations.serialize(layer.activation), "") if type(layer) is layers.Activation else ""


def _check_plain(layer: keras.layers.Layer) -> None:
    if type(layer) is layers.Dense:
        return
    height, width = layer.kernel_size
    is_plain = height == width and layer.strides[0] == layer.strides[1] and layer.dilation_rate[0] == layer.dilation_rate[1] == 1
    if not is_plain or layer.data_format != "channels_last" or getattr(layer, "groups", 1) != 1 or height % 2 == 0:
        refuse(layer, "its kernel or strides are not square, or even, or it is dilated, grouped, or has its channels first")
    if type(layer) is layers.DepthwiseConv2D and layer.depth_multiplier != 1:
        refuse(layer, f"its depth multiplier is {layer.depth_multiplier}, and only 1 is known")


def _check_padding(unit: TrainedUnit, before: Sequence[Element]) -> None:
    """Refuses a unit that is padded otherwise than SAME does it, which all layers of search spaces do."""
    if unit.kind == "dense":
        return
    mark = before[-1] if before else None
    padding = mark.layer if isinstance(mark, Mark) and mark.kind == PADDED else None
    pads = padding.padding if padding else _UNPADDED
    size = (padding or unit.layer).input_shape[1:3]
    if None in size or (unit.layer.padding == "same" and padding is None):
        return
    same = tuple(same_pads(side, unit.kernel, unit.stride) for side in size)
    if unit.layer.padding == "same" or tuple(map(tuple, pads)) != same:
        refuse(unit.layer, f"it reads images of {size[0]}x{size[1]} that are padded otherwise than by `padding='same'`")
