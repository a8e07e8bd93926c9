"""Switchable models: any functional tf_keras model with bits that are switched at run time, through TFMOT's annotate and apply.

    model = make_switchable(keras.applications.MobileNetV2(...))
    initialise_steps(model, images)
    set_bits(model, weight_bits=4, activation_bits=8)

Bits belong to tensors, and each quantizer keeps the active bits of its tensor in a variable of the layer that it serves. So bits
are saved with the model, and one traced function serves every choice. 32 bits means float.

Quantizers sit where the integer kernels of a `.tflite` round: behind the last of a group of convolution, batch normalization and
ReLU, not within it. `load_weights` fills a model built anew by `make_switchable`; a whole model comes back from
`keras.models.load_model` under TFMOT's `quantize_scope`, once this module is imported.
"""

from collections.abc import Sequence

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras, tfmot
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.stock_models.graphs import refusals
from daqu_tf.stock_models.loading import flattened
from daqu_tf.stock_models.operations import COMPOSED
from daqu_tf.stock_models.placement import COMBINING, FUNCTIONS, SELECTING, Placement, functional
from daqu_tf.stock_models.quantizers import KERNELS, refused
from daqu_tf.stock_models.scheme import PREFIX, SwitchableScheme
from daqu_tf.stock_models.switching import switchable_tensors

BITS = (2, 3, 4, 6, 8)
MOST_REASONS = 12  # In one error.


def check(model: keras.Model) -> list[str]:
    """What in a model of your own no file can hold, so that nothing is trained in vain; `make_switchable` refuses it too.

    Args:
        model: The model, as `make_switchable` takes it.

    Returns:
        One sentence for each layer that stands in the way, with the way out. A model without any can be made switchable, trained
        and exported.
    """
    try:
        original = _whole(model)
        return refusals(original) or _refusals_at_bits(_switchable(original, BITS, BITS))
    except DaquError as error:
        return [str(error)]


def make_switchable(
    model: keras.Model, weight_bits: Sequence[int] = BITS, activation_bits: Sequence[int] = BITS, *, for_file: bool = True
) -> keras.Model:
    """A copy of a model whose bits can be switched; at first all bits are 32, and it computes what the model does.

    Weights of the first and the last layers, and activations that do not follow a ReLU (inputs, linear outputs, residual sums,
    logits), have 8 bits only, or 32.

    Args:
        model: A built functional or Sequential model of stock layers, which stays as it is. Layers of models within it become
            layers of the copy.
        weight_bits: The bit alphabet of all other weights, within 2 to 8.
        activation_bits: The bit alphabet of the outputs of ReLUs, within 2 to 8.
        for_file: Whether what `export_tflite` could not write is refused now. Without it, more layers and several inputs and
            outputs are taken, for training alone.

    Returns:
        A functional model, in which `quant_NAME` wraps layer NAME where that has quantizers.

    Raises:
        DaquError: The model or some of its layers, all of which are named, cannot be quantized or written to a file, or a bit
            alphabet is not within 2 to 8.
    """
    for name, alphabet in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if not (isinstance(alphabet, Sequence) and alphabet and all(bits in range(2, 9) for bits in alphabet)):
            raise DaquError(f"`{name}` must be a sequence of bits from 2 to 8, but received {alphabet!r}: give it as (2, 4, 8).")
    original = _whole(model)
    if for_file:
        _refuse(refusals(original))
    else:
        _check_layers(original)
    made = _switchable(original, tuple(weight_bits), tuple(activation_bits))
    if for_file:
        _refuse(_refusals_at_bits(made))
    return made


def _refuse(reasons: list[str]) -> None:
    """Raises one error of all reasons, if there are any."""
    if reasons:
        further = [f"There are {len(reasons) - MOST_REASONS} more: `daqu_tf.check` lists them all."] * (len(reasons) > MOST_REASONS)
        raise DaquError("\n".join([*reasons[:MOST_REASONS], *further]))


def _refusals_at_bits(made: keras.Model) -> list[str]:
    """What no file can hold of a switchable model at its fewest bits, which it has only in the meantime."""
    bits = [(tensor.variables["bits"], min(tensor.quantizer.alphabet)) for tensor in switchable_tensors(made)]
    for variable, fewest in bits:
        variable.assign(fewest)
    found = refusals(made)
    for variable, _ in bits:
        variable.assign(FLOAT_BITS)
    return found


def _whole(model: keras.Model) -> keras.Model:
    """The model as a functional one of layers alone."""
    original = functional(model)
    return flattened(original) if any(isinstance(layer, COMPOSED) for layer in original.layers) else original


def _switchable(original: keras.Model, weight_bits: tuple[int, ...], activation_bits: tuple[int, ...]) -> keras.Model:
    """A switchable copy of a functional model, all layers of which have rules."""
    copy = keras.models.clone_model(original)
    copy.set_weights(original.get_weights())
    graph = Placement(copy)

    def annotate(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = graph.config(layer, weight_bits, activation_bits)
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config) if config else layer

    annotated = keras.models.clone_model(copy, clone_function=annotate)
    return tfmot.quantization.keras.quantize_apply(annotated, SwitchableScheme(), PREFIX)


def _check_layers(model: keras.Model) -> None:
    """Raises DaquError for the first layer that has no rule here."""
    known = KERNELS.keys() | SELECTING | COMBINING | FUNCTIONS
    calls = [node.layer.name for nodes in model._nodes_by_depth.values() for node in nodes]
    for layer in model.layers:
        if type(layer) not in known:
            names = ", ".join(sorted(kind.__name__ for kind in known))
            raise refused(layer, f"no rule says where its quantizers belong: use only {names}")
        if calls.count(layer.name) > 1:
            raise refused(layer, "it is called more than once: give each call a layer of its own")
        if layer.compute_dtype != "float32":
            raise refused(layer, f"it computes in {layer.compute_dtype}: build the model in float32")
