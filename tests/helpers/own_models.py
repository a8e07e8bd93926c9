"""Models that users might write, made switchable, and what their files are compared with."""

import types

import integer_reference
import numpy as np
from interpreters import BUILTIN, XNNPACK, loaded

from daqu_tf import tflite
from daqu_tf.export.export import round_biases, to_graph
from daqu_tf.keras import keras, tfmot
from daqu_tf.stock_models import initialise_steps, make_switchable, set_bits, switchable_tensors
from daqu_tf.stock_models.quantizers import StockQuantizeConfig
from daqu_tf.stock_models.scheme import SwitchableScheme
from daqu_tf.targets.storage import Storage

layers = keras.layers
INPUT = (12, 10, 3)
PRECISIONS = {"w8a8": (8, 8), "w4a8": (4, 8), "w3a4": (3, 4), "w2a2": (2, 2), "mixed": None}


def plain():
    """What a book on Keras begins with."""
    x = images = keras.Input(INPUT, name="images")
    x = layers.BatchNormalization(name="first_bn")(layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(x))
    x = layers.MaxPooling2D(name="pool")(layers.ReLU(name="first_relu")(x))
    x = layers.BatchNormalization(scale=False, name="second_bn")(layers.Conv2D(12, (3, 2), name="second")(x))
    x = layers.Flatten(name="flatten")(layers.Activation("relu", name="second_relu")(x))
    x = layers.Dropout(0.5, name="dropout")(layers.Dense(16, activation="relu", name="third")(x))
    return keras.Model(images, layers.Dense(5, activation="softmax", name="logits")(x))


def separable():
    """Depthwise and pointwise, padded in every way."""
    x = images = keras.Input(INPUT, name="images")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="as_same")(x)
    x = layers.BatchNormalization(name="first_bn")(layers.Conv2D(8, 3, 2, use_bias=False, name="first")(x))
    x = layers.ZeroPadding2D(2, name="more_than_same")(layers.ReLU(6.0, name="first_relu")(x))
    x = layers.BatchNormalization(center=False, name="second_bn")(layers.DepthwiseConv2D(3, 2, name="second")(x))
    x = layers.ReLU(6.0, name="second_relu")(x)
    x = layers.BatchNormalization(name="third_bn")(layers.Conv2D(12, 1, use_bias=False, name="third")(x))
    x = layers.Dense(6, name="logits")(layers.GlobalAveragePooling2D(name="pooled")(x))
    return keras.Model(images, layers.Softmax(name="softmax")(x))


def residual():
    """Sums, rectified and not, one with a shortcut of its own."""
    x = images = keras.Input(INPUT, name="images")
    x = shortcut = layers.Conv2D(8, 3, padding="same", activation="relu", name="first_relu")(x)
    x = layers.BatchNormalization(name="second_bn")(layers.Conv2D(8, 3, padding="same", name="second")(x))
    x = shortcut = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, shortcut]))
    x = layers.BatchNormalization(name="third_bn")(layers.Conv2D(6, 1, name="third")(x))
    shortcut = layers.BatchNormalization(name="shortcut_bn")(layers.Conv2D(6, 1, name="shortcut")(shortcut))
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pooled")(layers.Add(name="sum_of_linear")([x, shortcut]))
    x = layers.Reshape((5,), name="reshape")(layers.Conv2D(5, 1, name="logits")(x))
    return keras.Model(images, layers.Activation("softmax", name="softmax")(x))


def gated():
    """Hard-swish and squeeze-excite, as Keras' own MobileNetV3 writes them, and Keras' hard sigmoid."""

    def hard_sigmoid(x):
        return layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)

    x = images = keras.Input(INPUT, name="images")
    x = layers.Rescaling(0.5, 0.1, name="halved")(layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="first")(x))
    x = layers.BatchNormalization(name="first_bn")(x)
    x = layers.Multiply(name="swish")([x, hard_sigmoid(x)])
    several = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="second")
    x = layers.ReLU(name="second_relu")(layers.BatchNormalization(name="second_bn")(several(x)))
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeezed")(x)
    gate = layers.ReLU(name="reduced_relu")(layers.Conv2D(4, 1, name="reduced")(gate))
    x = layers.Multiply(name="excited")([x, hard_sigmoid(layers.Conv2D(16, 1, name="excite")(gate))])
    x = layers.BatchNormalization(name="third_bn")(layers.SeparableConv2D(6, 3, depth_multiplier=2, name="third")(x))
    x = layers.Multiply(name="keras_swish")([layers.Activation("hard_sigmoid", name="keras_gate")(x), x])
    x = layers.Conv2D(6, 1, activation="hard_sigmoid", name="fourth")(x)
    x = layers.GlobalMaxPooling2D(name="pooled")(x)
    return keras.Model(images, layers.Dense(5, activation="softmax", name="logits")(x))


def dense():
    """Concatenations and averages, as DenseNet has them, and functions behind what other layers read."""
    x = images = keras.Input(INPUT, name="images")
    x = layers.ReLU(name="first_relu")(layers.Conv2D(6, 3, padding="same", name="first")(x))
    for number in range(2):
        y = layers.ReLU(name=f"relu{number}")(layers.BatchNormalization(name=f"bn{number}")(x))
        y = layers.BatchNormalization(name=f"inner_bn{number}")(layers.Conv2D(8, 1, use_bias=False, name=f"inner{number}")(y))
        y = layers.Conv2D(4, 3, padding="same", name=f"conv{number}")(layers.ReLU(name=f"inner_relu{number}")(y))
        x = layers.Concatenate(name=f"concat{number}")([x, y])
    x = layers.AveragePooling2D(name="average")(layers.ReLU(name="read_twice_relu")(x))
    limited = layers.ReLU(6.0, name="limited_relu")(layers.Conv2D(4, 1, name="limited")(x))
    scaled = layers.Rescaling(0.5, name="scaled")(layers.ReLU(6.0, name="scaled_relu")(layers.Conv2D(4, 1, name="before")(x)))
    x = layers.Concatenate(name="limits")([limited, scaled, layers.ReLU(name="last_relu")(layers.Conv2D(4, 1, name="last")(x))])
    mean, most = layers.GlobalAveragePooling2D(name="mean")(x), layers.GlobalMaxPooling2D(name="most")(x)
    signed = layers.GlobalAveragePooling2D(name="mean_of_signed")(layers.Conv2D(4, 1, name="signed")(x))
    x = layers.Concatenate(name="features")([mean, most, signed, layers.ReLU(name="mean_relu")(signed)])
    return keras.Model(images, layers.Dense(5, activation="softmax", name="logits")(x))


def mobilenet():
    return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)


def smooth(shape, count=64):
    noise = np.random.default_rng(0).random((count, shape[0] + 2, shape[1] + 2, shape[2]), np.float32)
    return 2 * (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / 3


def randomise(stock, images):
    """Statistics of the images, gammas of either sign, one of which is zero, and biases and offsets that are not."""
    rng = np.random.default_rng(0)
    norms = [layer for layer in stock.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
        if norm.scale:
            norm.gamma.assign(rng.uniform(0.5, 1.0, norm.gamma.shape) * rng.choice([-1, 1, 1, 1], norm.gamma.shape))
            norm.gamma[0].assign(0.0)
        if norm.center:
            norm.beta.assign(rng.uniform(-0.5, 1.5, norm.beta.shape))
    for layer in stock.layers:
        if getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(0, 0.2, layer.bias.shape))
    stock(images, training=True)


def graph_of(model, container="auto"):
    return to_graph(model, Storage(container))


def calibrated(create):
    keras.utils.set_random_seed(1)
    stock = create()
    images = smooth(stock.input_shape[1:])
    randomise(stock, images)
    model = make_switchable(stock)
    initialise_steps(model, images)
    return types.SimpleNamespace(model=model, images=images)


def choose(model, precision):
    """Sets the bits, or each tensor's own, and rounds the biases at them."""
    if PRECISIONS[precision]:
        set_bits(model, *PRECISIONS[precision])
    for number, tensor in enumerate(switchable_tensors(model)):
        if precision == "mixed" and len(alphabet := tensor.quantizer.alphabet) > 1:
            set_bits(model, **{f"{tensor.role}_bits": {tensor.layer: alphabet[number % len(alphabet)]}})
    round_biases(model)


def output_of(model, name):
    """In this model: TFMOT takes layers without quantizers over from the annotated one."""
    for ending in (".pixel", ".as_pixel", ".window"):  # The same numbers in another shape.
        name = name.removesuffix(ending)
    whole, part, number = name.partition(".part")
    if part:
        read = [output_of(model, layer.name.removeprefix("quant_")) for layer in producers(model, whole)]
        start = sum(tensor.shape[-1] for tensor in read[: int(number) - 1])
        return output_of(model, whole)[..., start : start + read[int(number) - 1].shape[-1]]
    wrapped = f"quant_{name}"
    return model.get_layer(wrapped if wrapped in {layer.name for layer in model.layers} else name).get_output_at(-1)


def producers(model, name):
    """The layers that feed one."""
    wrapped = [node for nodes in model._nodes_by_depth.values() for node in nodes if node.layer.name in (name, f"quant_{name}")]
    return [parent.layer for parent in wrapped[0].parent_nodes]


def simulated_codes(net, graph):
    """int8 values of all tensors but the last, as Keras computes them, by name: (images, ...)."""
    tensors = [tensor for tensor in graph.tensors if tensor.name != graph.output]
    outputs = keras.Model(net.model.inputs, [output_of(net.model, tensor.name) for tensor in tensors])
    reals = [y.numpy().astype(np.float64).reshape(8, *tensor.shape[1:]) for tensor, y in zip(tensors, outputs(net.images[:8]))]
    return {tensor.name: np.rint(y / tensor.scale) + tensor.zero_point for tensor, y in zip(tensors, reals)}


def assert_is_the_reference(net):
    """Operator by operator, each reading what Keras has there."""
    graph = graph_of(net.model)
    codes = simulated_codes(net, graph)
    for operator in graph.operators:
        if operator.output == graph.output:
            continue
        for image in range(8):
            inputs = (codes[name][[image]].astype(np.int8) for name in operator.inputs)
            steps = np.abs(integer_reference.compute(graph, operator, *inputs) - codes[operator.output][[image]])
            # Ties alone: a sum of floats may fall on the other side of one.
            assert steps.max() <= 1 and np.sum(steps > 0) <= max(1, 0.02 * steps.size), operator.output


def run(interpreter, image):
    """The real outputs of a file for an image."""
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    codes = np.clip(np.rint(image / scale) + zero_point, -128, 127).astype(np.int8) if scale else image
    interpreter.set_tensor(source["index"], codes[np.newaxis])
    interpreter.invoke()
    scale, zero_point = sink["quantization"]
    output = interpreter.get_tensor(sink["index"])[0].astype(np.float64)
    return (output - zero_point) * scale if scale else output


def centred(logits):
    return logits - logits.mean(-1, keepdims=True)


def assert_file_computes_what_the_model_does(net, path, equal=0.8, mean=1.0, apart=0):
    interpreter = loaded(path.read_bytes(), XNNPACK)
    logits = centred(np.array([run(interpreter, image) for image in net.images]))
    expected = centred(np.log(net.model(net.images).numpy()))
    step = interpreter.get_output_details()[0]["quantization"][0] or 1e-4  # Of real outputs: float32's own errors are less.
    steps = np.abs(logits - expected) / step
    # Equal but where a sum of floats fell on the other side of a tie; such a flip goes through the layers behind it.
    assert np.mean(steps < 0.5) > equal and np.mean(steps) < mean
    second, first = np.sort(logits.reshape(len(logits), -1) / step)[:, -2:].T
    clear = first - second >= apart
    assert np.mean((logits.argmax(-1) == expected.argmax(-1)).ravel()[clear]) > 0.95
    assert len(np.unique(np.rint(logits * 1e4))) > 4  # Of a model that computes something.


def assert_built_in_kernels_are_within_one_step(net, path):
    """Operator by operator: they round twice, which at few bits is much in the end."""
    interpreter, graph = loaded(path.read_bytes(), BUILTIN), tflite.read(path.read_bytes())
    run(interpreter, net.images[0])
    values = {tensor.name: interpreter.get_tensor(index) for index, tensor in enumerate(graph.tensors)}
    for operator in graph.operators:
        expected = integer_reference.compute(graph, operator, *(values[name] for name in operator.inputs))
        assert np.abs(values[operator.output].astype(int) - expected).max() <= 1, operator.output


def operators(model, container="auto"):
    return {operator.output: operator for operator in graph_of(model, container).operators}


def sequence(*stack):
    return keras.Sequential([layers.InputLayer(INPUT, name="images"), *stack])


def conv(**options):
    return layers.Conv2D(4, 3, name="conv", **options)


def annotated(scheme, *configs):
    """A convolution and a global average, as the user annotates them."""
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    stack = [conv(), layers.GlobalAveragePooling2D(name="pooled")]
    stack = [annotate(layer, config) if config else layer for layer, config in zip(stack, configs)]
    with tfmot.quantization.keras.quantize_scope():
        model = tfmot.quantization.keras.quantize_apply(sequence(*stack), *scheme)
    initialise_steps(model, smooth(INPUT, 2))
    for tensor in switchable_tensors(model):
        tensor.variables["bits"].assign(tensor.quantizer.alphabet[0])
    return model


OURS, THEIRS = (SwitchableScheme(),), ()
POOLED = StockQuantizeConfig(activation_bits=(8,), signed=True)
