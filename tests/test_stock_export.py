import types

import integer_reference
import numpy as np
import pytest
import tensorflow as tf
from interpreters import BUILTIN, XNNPACK, loaded

from daqu_tf import export, tflite_file, tflite_metadata
from daqu_tf.errors import DaquError
from daqu_tf.export import export_tflite, round_biases
from daqu_tf.keras import keras, tfmot
from daqu_tf.stock_models import (
    StockQuantizeConfig,
    SwitchableScheme,
    initialise_steps,
    make_switchable,
    set_bits,
    switchable_tensors,
)
from daqu_tf.targets import Storage
from daqu_tf.tflite_graph import FloatTensor
from daqu_tf.tflite_kernels import Conv2D, FullyConnected
from daqu_tf.tflite_metadata import Metadata
from daqu_tf.tflite_operators import Pad

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
    return export.to_graph(model, Storage(container))


def calibrated(create):
    keras.utils.set_random_seed(1)
    stock = create()
    images = smooth(stock.input_shape[1:])
    randomise(stock, images)
    model = make_switchable(stock)
    initialise_steps(model, images)
    return types.SimpleNamespace(model=model, images=images)


@pytest.fixture(scope="module")
def mobile():
    return calibrated(mobilenet)


@pytest.fixture(scope="module", params=[plain, separable, residual], ids=lambda create: create.__name__)
def net(request):
    return calibrated(request.param)


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
    wrapped = f"quant_{name}"
    return model.get_layer(wrapped if wrapped in {layer.name for layer in model.layers} else name).get_output_at(-1)


def simulated_codes(net, graph):
    """int8 values of all tensors but the last, as Keras computes them, by name: (images, ...)."""
    tensors = [tensor for tensor in graph.tensors if tensor.name != graph.output]
    outputs = keras.Model(net.model.inputs, [output_of(net.model, tensor.name) for tensor in tensors])
    reals = (y.numpy().astype(np.float64) for y in outputs(net.images[:8]))
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
            assert steps.max() <= 1 and np.mean(steps > 0) <= 0.01, operator.output


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
    interpreter, graph = loaded(path.read_bytes(), BUILTIN), tflite_file.read(path.read_bytes())
    run(interpreter, net.images[0])
    values = {tensor.name: interpreter.get_tensor(index) for index, tensor in enumerate(graph.tensors)}
    for operator in graph.operators:
        expected = integer_reference.compute(graph, operator, *(values[name] for name in operator.inputs))
        assert np.abs(values[operator.output].astype(int) - expected).max() <= 1, operator.output


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_is_the_integer_reference_operator_by_operator(net, precision):
    choose(net.model, precision)
    assert_is_the_reference(net)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("container", ["auto", "int8", "int4"])
def test_the_file_computes_what_the_model_does(net, precision, container, tmp_path):
    choose(net.model, precision)
    path = tmp_path / "model.tflite"
    export_tflite(net.model, path, container)
    assert tflite_file.read(path.read_bytes()) == graph_of(net.model, container)
    if container != "int4":  # Its convolutions run on built-in kernels, whose flips go through the layers behind them.
        assert_file_computes_what_the_model_does(net, path)
    assert_built_in_kernels_are_within_one_step(net, path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_mobilenet_v2(mobile, precision, tmp_path):
    choose(mobile.model, precision)
    assert_is_the_reference(mobile)
    path = tmp_path / "model.tflite"
    export_tflite(mobile.model, path)
    # Of random weights one flip at the top becomes many: the first two outputs of some images are as near.
    assert_file_computes_what_the_model_does(mobile, path, equal=0.2, mean=2.0, apart=8)
    assert_built_in_kernels_are_within_one_step(mobile, path)
    graph = tflite_file.read(path.read_bytes())
    assert not any(isinstance(operator, Pad) for operator in graph.operators)  # All its zeros are those of SAME.


def operators(model, container="auto"):
    return {operator.output: operator for operator in graph_of(model, container).operators}


@pytest.fixture(scope="module")
def trained():
    """A model after a step of training at low bits."""
    net = calibrated(plain)
    set_bits(net.model, 3, 4)
    net.model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    net.model.train_on_batch(net.images, np.arange(len(net.images)) % 5)
    return net


def test_integers_are_the_trained_ones_up_to_sign(trained):
    trained.model(trained.images[:1])  # Puts the fake-quantized kernels into the layers.
    written, names = (
        operators(trained.model),
        {"first": "first_relu", "second": "second_relu", "third": "third", "logits": "logits"},
    )
    for tensor in switchable_tensors(trained.model):
        if tensor.role == "weight":
            bits = int(tensor.variables["bits"])
            step = np.exp(tensor.variables["log_step"][tensor.quantizer.alphabet.index(bits)])
            codes = np.rint(trained.model.get_layer(f"quant_{tensor.layer}").layer.kernel / step)
            found = np.moveaxis(written[names[tensor.layer]].weights, 0, -1)
            alive = np.abs(found).reshape(-1, found.shape[-1]).sum(axis=0) > 0
            assert np.array_equal(np.abs(found[..., alive]), np.abs(codes[..., alive])) and alive.mean() > 0.8
            assert written[names[tensor.layer]].weight_bits <= bits


def test_rounding_the_biases_changes_no_file_and_brings_the_model_nearer(trained):
    graph, before = graph_of(trained.model), simulated_codes(trained, graph_of(trained.model))
    round_biases(trained.model)
    after = simulated_codes(trained, graph)
    assert graph_of(trained.model) == graph
    differences = [np.mean(before[name] != after[name]) for name in ("first_relu", "second_relu", "third")]
    assert all(share < 0.3 for share in differences) and max(differences) > 0, differences
    assert_is_the_reference(trained)


def test_a_step_so_large_that_6_is_not_the_highest_code():
    net = calibrated(separable)
    set_bits(net.model, 8, 4)
    for tensor in switchable_tensors(net.model):
        if tensor.layer in ("first_relu", "second_relu"):
            tensor.variables["log_step"].assign(np.full(5, np.log(0.6)))  # 6 is code 10 of 15.
    net.model.get_layer("first_bn").beta.assign_add(np.full(8, 3.0))
    round_biases(net.model)
    assert {tensor.zero_point for tensor in graph_of(net.model).tensors if tensor.name == "first_relu"} == {117}
    assert_is_the_reference(net)
    assert simulated_codes(net, graph_of(net.model))["first_relu"].max() == 127


def test_containers_follow_the_bits():
    model = calibrated(separable).model
    for bits, packed in ((4, {"third_bn"}), (6, set())):
        set_bits(model, bits, 8)
        found = {name for name, operator in operators(model).items() if getattr(operator, "container", "INT8") == "INT4"}
        assert found == packed
        assert all(getattr(operator, "container", "INT8") == "INT8" for operator in operators(model, "int8").values())
    assert isinstance(operators(model)["third_bn"], Conv2D) and isinstance(operators(model)["logits"], FullyConnected)


def test_zeros_are_an_operator_only_where_a_convolution_does_not_add_them_itself():
    model = calibrated(separable).model
    set_bits(model, 8, 8)
    written = operators(model)
    assert written["first_relu"].padding == "SAME" and written["first_relu"].input == "images"
    assert written["second_relu"].padding == "VALID" and written["second_relu"].input == "more_than_same"
    assert [operator.pads for operator in written.values() if isinstance(operator, Pad)] == [((2, 2), (2, 2))]


def sequence(*stack):
    return keras.Sequential([layers.InputLayer(INPUT, name="images"), *stack])


def conv(**options):
    return layers.Conv2D(4, 3, name="conv", **options)


def shared_input():
    x = images = keras.Input(INPUT, name="images")
    return images, layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)


def three_summed():
    images, x = shared_input()
    others = [layers.Conv2D(4, 1, name=name)(x) for name in ("one", "two")]
    return keras.Model(images, layers.Add(name="sum")([x, *others]))


def two_outputs():
    images, x = shared_input()
    return keras.Model(images, [x, layers.Conv2D(2, 1)(x)])


def concatenated():
    images, x = shared_input()
    return keras.Model(images, layers.Concatenate(name="both")([x, layers.Conv2D(4, 1, name="other")(x)]))


def of_any_size():
    images = keras.Input((None, None, 3), name="images")
    return keras.Model(images, layers.GlobalAveragePooling2D()(conv()(images)))


REFUSED = {
    "swish": (lambda: sequence(conv(activation="swish")), "'conv' of type Conv2D cannot be exported because the file has no"),
    "softmax inside": (lambda: sequence(conv(activation="softmax"), layers.Flatten()), "'conv' .* no softmax, and only at the end"),
    "normalized images": (lambda: sequence(layers.BatchNormalization(name="bn"), conv()), "'bn' .* put it directly behind one"),
    "normalized ReLU": (lambda: sequence(conv(activation="relu"), layers.BatchNormalization(name="bn")), "'bn' .* directly behind"),
    "axis": (lambda: sequence(conv(), layers.BatchNormalization(1, name="bn")), r"'bn' .* its axis is \[1\]: normalize the last"),
    "late ReLU": (
        lambda: sequence(conv(), layers.MaxPooling2D(), layers.ReLU(name="relu")),
        "'relu' .* what its ReLU reads is a tensor of the file already",
    ),
    "leaky": (
        lambda: sequence(conv(), layers.LeakyReLU(name="leaky")),
        "'leaky' of type LeakyReLU .* no operator for it: use only",
    ),
    "slope": (lambda: sequence(conv(), layers.ReLU(negative_slope=0.1, name="relu")), "'relu' .* already, and no operator"),
    "dilation": (lambda: sequence(conv(dilation_rate=2)), r"'conv' .* `dilation_rate` is \(2, 2\): only \(1, 1\) can be"),
    "groups": (lambda: sequence(layers.Conv2D(3, 3, groups=3, name="conv")), "'conv' .* `groups` is 3: only 1"),
    "multiplier": (lambda: sequence(layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw")), "'dw' .* `depth_multiplier` is 2"),
    "strides": (lambda: sequence(conv(strides=(1, 2))), r"'conv' .* `strides` are \(1, 2\): take the same"),
    "three": (three_summed, "'sum' .* it adds 3 tensors: add two at a time"),
    "concatenation": (concatenated, "'both' of type Concatenate"),
    "rank": (lambda: sequence(conv(), layers.Reshape((80, 4), name="rows")), "tensor 'rows': shape must be"),
    "outputs": (two_outputs, "`model` must have one input and one output, but has 1 and 2"),
    "size": (of_any_size, r"'images' .* its shape is \(None, None, None, 3\): build the model for images of one size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_said_before_anything_is_written(case, tmp_path):
    create, message = REFUSED[case]
    model = make_switchable(create())
    initialise_steps(model, smooth(INPUT, 2))
    set_bits(model, 8, 8)
    with pytest.raises(DaquError, match=message):
        export_tflite(model, tmp_path / "model.tflite")
    assert not [*tmp_path.iterdir()]


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
ANNOTATED = {
    "signed": (OURS, StockQuantizeConfig((8,), (4,), signed=True), POOLED, "'conv' .* only behind a ReLU .* set its bits to 8"),
    "average": (OURS, StockQuantizeConfig((8,), (8,)), StockQuantizeConfig((), (4,)), "'pooled' .* only behind a ReLU"),
    "16 bits": (
        OURS,
        StockQuantizeConfig((16,), (8,)),
        POOLED,
        "layer 'conv': the weight has 16 bits: set bits from 2 to 8, or 32",
    ),
    "images": (THEIRS, StockQuantizeConfig((8,), (8,)), POOLED, "a quantizer of it is not of `daqu_tf`: give `quantize_apply`"),
}


@pytest.mark.parametrize("case", ANNOTATED)
def test_what_a_user_annotates_and_the_file_cannot_say(case):
    scheme, *configs, message = ANNOTATED[case]
    with pytest.raises(DaquError, match=message):
        graph_of(annotated(scheme, *configs))


@pytest.mark.parametrize("signed", [False, True])
def test_what_a_user_annotates_and_the_file_can_say(signed):
    net = types.SimpleNamespace(model=annotated(OURS, StockQuantizeConfig((3,), (8,), signed), POOLED), images=smooth(INPUT, 8))
    round_biases(net.model)
    assert operators(net.model)["conv"].relu is not signed  # To clip at 0 is a ReLU.
    assert_is_the_reference(net)


IN_FLOAT = {
    "activation": (StockQuantizeConfig((8,)), POOLED, ["conv", "images.real", "pooled.unrounded"]),
    "weight": (StockQuantizeConfig((), (8,)), POOLED, ["conv.unrounded", "images.real"]),
    "last activation": (StockQuantizeConfig((8,), (8,)), None, ["conv.real", "pooled"]),
}


@pytest.mark.parametrize("case", IN_FLOAT)
def test_what_has_no_quantizer_is_real(case, tmp_path):
    *configs, names = IN_FLOAT[case]
    model = annotated(OURS, *configs)
    graph = graph_of(model)
    assert sorted(tensor.name for tensor in graph.tensors if isinstance(tensor, FloatTensor)) == sorted(names)
    export_tflite(model, tmp_path / "model.tflite", images=smooth(INPUT, 8))


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(32, 8), (4, 32), (32, 32)])
def test_layers_in_float_compute_what_the_model_does(net, weight_bits, activation_bits, tmp_path):
    set_bits(net.model, weight_bits, activation_bits)
    export_tflite(net.model, path := tmp_path / "model.tflite")
    assert_file_computes_what_the_model_does(net, path)


@pytest.mark.parametrize("container", ["float32", "float16"])
def test_a_model_without_quantizers_in_a_float_file(container, tmp_path):
    keras.utils.set_random_seed(1)
    model, images = residual(), smooth(INPUT)
    randomise(model, images)
    export_tflite(model, path := tmp_path / "model.tflite", container)
    computed = centred(np.array([run(loaded(path.read_bytes(), XNNPACK), image) for image in images]))
    expected = centred(np.log(model(images).numpy()))
    most = {"float32": 1e-5, "float16": 5e-3}[container]
    assert np.abs(computed - expected).max() < most * np.abs(expected).max()


FLOATS = ("float32", "float16", "dynamic")


@pytest.mark.parametrize("container", FLOATS)
def test_a_quantized_model_in_a_float_file_is_near(net, container, tmp_path):
    choose(net.model, "w4a8")
    export_tflite(net.model, path := tmp_path / "model.tflite", container)
    stored = {op.container for op in tflite_file.read(path.read_bytes()).operators if hasattr(op, "container")}
    assert stored <= {"float32": {"FLOAT32"}, "float16": {"FLOAT16"}, "dynamic": {"INT4", "INT8", "FLOAT32"}}[container]
    assert container != "dynamic" or stored & {"INT4", "INT8"}
    computed = centred(np.array([run(loaded(path.read_bytes(), XNNPACK), image) for image in net.images]))
    expected = centred(np.log(net.model(net.images).numpy()))
    assert np.sqrt(np.mean((computed - expected) ** 2)) < 0.2 * np.std(expected)


@pytest.mark.parametrize("container", FLOATS)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_float_file_clips_at_6(container, bits, tmp_path):
    keras.utils.set_random_seed(0)
    model = make_switchable(sequence(conv(), layers.ReLU(6.0, name="six"), layers.GlobalAveragePooling2D(), layers.Dense(3)))
    images = smooth(INPUT, 8)
    kernel = next(tensor.kernel for tensor in switchable_tensors(model) if tensor.layer == "conv" and tensor.role == "weight")
    kernel.assign(30 * kernel)
    initialise_steps(model, images)
    set_bits(model, 8, bits)
    export_tflite(model, path := tmp_path / "model.tflite", container)
    computed = np.array([run(loaded(path.read_bytes(), XNNPACK), image) for image in images])
    assert np.abs(computed - model(images)).max() < {4: 0.1, 8: 0.02}[bits] * np.abs(computed).max()


def test_a_relu_behind_a_pool_is_an_integers_alone(tmp_path):
    model = make_switchable(sequence(conv(), layers.GlobalAveragePooling2D(name="pool"), layers.ReLU(), layers.Dense(3)))
    initialise_steps(model, smooth(INPUT, 8))
    set_bits(model, 8, 8)
    export_tflite(model, tmp_path / "model.tflite", images=smooth(INPUT, 8))
    with pytest.raises(DaquError, match="'pool' .* in float no operator is a ReLU behind it: put the ReLU before it"):
        graph_of(model, "float32")


def test_a_model_of_dense_layers(tmp_path):
    keras.utils.set_random_seed(0)
    stock = keras.Sequential([keras.Input((20,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    model = make_switchable(keras.Model(stock.inputs, stock.outputs))
    initialise_steps(model, np.random.default_rng(0).random((32, 20), np.float32))
    set_bits(model, 8, 8)
    round_biases(model)
    for container in ("auto", "float32"):
        export_tflite(model, tmp_path / "model.tflite", container)


def test_rounding_biases_moves_means_where_there_is_nothing_else():
    keras.utils.set_random_seed(0)
    net = types.SimpleNamespace(images=smooth(INPUT, 8))
    stock = sequence(conv(use_bias=False), layers.BatchNormalization(center=False), layers.ReLU(), layers.GlobalAveragePooling2D())
    (norm,) = (layer for layer in stock.layers if isinstance(layer, layers.BatchNormalization))
    norm.moving_mean.assign(np.linspace(-1, 1, norm.moving_mean.shape[0]))
    net.model = make_switchable(stock)
    initialise_steps(net.model, net.images)
    set_bits(net.model, 8, 8)
    before = graph_of(net.model)
    round_biases(net.model)
    assert graph_of(net.model) == before
    assert_is_the_reference(net)


def test_metadata_of_a_model_that_takes_other_numbers_than_pixels(tmp_path):
    model, images = make_switchable(plain()), smooth(INPUT, 8) - 1
    initialise_steps(model, images)
    set_bits(model, 8, 8)
    round_biases(model)
    metadata = Metadata("mine", "Five classes.", tuple("abcde"), mean=127.5, std=127.5)
    export_tflite(model, path := tmp_path / "model.tflite", metadata=metadata, images=images)
    (source,) = tflite_metadata.read(path.read_bytes())["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["process_units"] == [{"options": ("NormalizationOptions", {"mean": [127.5], "std": [127.5]})}]
    (image,) = (tensor for tensor in graph_of(model).tensors if tensor.name == "images")
    assert f"feed round((pixel - 127.5) / 127.5 / {image.scale:.9g}) " in source["description"]


def test_a_model_without_steps_is_refused():
    model = make_switchable(plain())
    set_bits(model, 8, 8)
    with pytest.raises(DaquError, match="must have steps, but those of '.*' were never set: call `initialise_steps` first"):
        graph_of(model)


def test_other_models_containers_and_folders(net, tmp_path):
    set_bits(net.model, 8, 8)
    with pytest.raises(DaquError, match="has none: use what `make_switchable` returns"):
        graph_of(plain())
    with pytest.raises(DaquError, match="`container` must be one of auto, int8, .*, but received 'int2'"):
        graph_of(net.model, "int2")
    with pytest.raises(DaquError, match="cannot be written"):
        export_tflite(net.model, tmp_path / "missing" / "model.tflite")


def test_a_sigmoid_at_the_end_is_left_out(tmp_path):
    stock = sequence(conv(activation="relu"), layers.Flatten(), layers.Dense(1, activation="sigmoid", name="logit"))
    model, images = make_switchable(stock), smooth(INPUT, 8)
    initialise_steps(model, images)
    set_bits(model, 8, 8)
    round_biases(model)
    export_tflite(model, tmp_path / "model.tflite")
    logits = np.array([run(loaded((tmp_path / "model.tflite").read_bytes(), XNNPACK), image) for image in images])
    np.testing.assert_allclose(tf.sigmoid(logits), model(images), atol=0.005)


def test_a_loaded_model_is_exported_too(net, tmp_path):
    choose(net.model, "w3a4")
    net.model.save(tmp_path / "model.keras")
    with tfmot.quantization.keras.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert graph_of(loaded) == graph_of(net.model)
