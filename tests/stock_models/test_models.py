import types

import numpy as np
import pytest
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeWrapper, keras, tfmot
from daqu_tf.stock_models import initialise_steps, make_switchable, set_bits, switchable_tensors
from daqu_tf.stock_models.quantizers import StockQuantizeConfig
from daqu_tf.stock_models.scheme import SwitchableScheme
from daqu_tf.supernet.initial_steps import best_steps

layers = keras.layers
annotate, apply = tfmot.quantization.keras.quantize_annotate_layer, tfmot.quantization.keras.quantize_apply
ALPHABET = (2, 3, 4, 6, 8)
PRECISIONS = [(32, 32), (8, 8), (4, 8), (32, 3), (3, 32), (2, 2)]
INPUT = (8, 8, 3)


def with_statistics(model, images):
    """The model, its batch norm as if it had been trained on `images`: no scale, offset or statistic is trivial."""
    rng = np.random.default_rng(0)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        # Mostly in the linear part of a ReLU: a deep network of random weights is chaotic else, 1% of noise becomes 60%.
        norm.gamma.assign(rng.uniform(0.5, 1.0, norm.gamma.shape))
        norm.beta.assign(rng.uniform(0.5, 2.0, norm.gamma.shape))
        norm.momentum = 0.0
    model(images, training=True)
    for norm in norms:
        norm.momentum = 0.99
    return model


def cnn():
    return keras.Sequential(
        [
            layers.Conv2D(6, 3, padding="same", use_bias=False, input_shape=INPUT, name="stem"),
            layers.BatchNormalization(name="stem_bn"),
            layers.ReLU(6.0, name="stem_relu"),
            layers.DepthwiseConv2D(3, padding="same", strides=2, name="depthwise"),
            layers.BatchNormalization(name="depthwise_bn"),
            layers.Activation("relu", name="depthwise_relu"),
            layers.Conv2D(5, 1, name="project"),
            layers.BatchNormalization(name="project_bn"),
            layers.GlobalAveragePooling2D(name="pooled"),
            layers.Dense(9, activation="relu", name="hidden"),
            layers.Dropout(0.1, name="dropout"),
            layers.Dense(4, activation="softmax", name="classifier"),
        ]
    )


def tiny():
    return keras.Sequential(
        [
            layers.Conv2D(4, 3, use_bias=False, input_shape=INPUT, name="stem"),
            layers.BatchNormalization(name="stem_bn"),
            layers.ReLU(6.0, name="stem_relu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.BatchNormalization(name="depthwise_bn"),
            layers.GlobalAveragePooling2D(name="pooled"),
            layers.Dense(4, activation="softmax", name="classifier"),
        ]
    )


def residual():
    x = images = keras.Input(INPUT, name="images")
    x = shortcut = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.ZeroPadding2D(1, name="padding")(x)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(x))
    x = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, shortcut]))
    gate = layers.Dense(4, activation="sigmoid", name="gate")(layers.GlobalAveragePooling2D(name="squeeze")(x))
    x = layers.Multiply(name="scale")([x, layers.Reshape((1, 1, 4), name="reshape")(gate)])
    swish = layers.Activation("swish", name="swish")(layers.Conv2D(4, 1, name="before_swish")(x))
    x = layers.Concatenate(name="concatenate")([layers.MaxPooling2D(name="pool")(swish), layers.MaxPooling2D(name="pool2")(x)])
    x = layers.Flatten(name="flatten")(x)
    logits = layers.Dense(3, name="logits")(x)
    return keras.Model(images, [layers.Softmax(name="softmax")(logits), layers.Dense(2, name="regression")(x)])


def built(create, shape=INPUT, **arguments):
    """Stock model, its switchable twin with steps from data, and those data."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(8, 1, 1, 3)) + 0.5 * rng.normal(size=(8, *shape))).astype(np.float32)
    stock = with_statistics(create(), images)
    model = make_switchable(stock, for_file=False, **arguments)
    initialise_steps(model, images)
    return types.SimpleNamespace(create=create, stock=stock, model=model, images=images)


@pytest.fixture(scope="module")
def sequential():
    return built(cnn)


@pytest.fixture(scope="module")
def functional():
    return built(residual)


@pytest.fixture(scope="module")
def mobilenet():
    def create():
        return keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), alpha=0.35, classes=10)

    return built(create, (96, 96, 3))


@pytest.fixture(params=["sequential", "functional", "mobilenet"])
def net(request):
    net = request.getfixturevalue(request.param)
    set_bits(net.model, 32, 32)
    return net


def arrays(outputs):
    return [tensor.numpy() for tensor in tf.nest.flatten(outputs)]


def steps(tensor, bits):
    return tf.exp(tensor.variables["log_step"])[tensor.quantizer.alphabet.index(bits)].numpy()


def by_name(model, role):
    return {tensor.layer: tensor for tensor in switchable_tensors(model) if tensor.role == role}


def rounded_kernel(tensor, bits):
    """By NumPy alone."""
    kernel, limit = tensor.kernel.numpy(), 2 ** (bits - 1) - 1
    step = steps(tensor, bits)
    step = step[:, None] if "depthwise_kernel" in tensor.kernel.name else step  # (height, width, channel, 1), or channel last.
    return np.clip(np.round(kernel / step), -limit, limit) * step


def placed(model):
    return {(t.layer, t.role): (t.quantizer.alphabet, t.quantizer.signed or t.role == "weight") for t in switchable_tensors(model)}


def test_places_of_quantizers_in_a_sequential_model(sequential):
    fixed = (8,)
    assert placed(sequential.model) == {
        ("stem_input", "activation"): (fixed, True),
        ("stem", "weight"): (fixed, True),
        ("stem_relu", "activation"): (ALPHABET, False),
        ("depthwise", "weight"): (ALPHABET, True),
        ("depthwise_relu", "activation"): (ALPHABET, False),
        ("project", "weight"): (ALPHABET, True),
        ("project_bn", "activation"): (fixed, True),
        ("pooled", "activation"): (fixed, True),
        ("hidden", "weight"): (ALPHABET, True),
        ("hidden", "activation"): (ALPHABET, False),
        ("classifier", "weight"): (fixed, True),
        ("classifier", "activation"): (fixed, True),
    }


def test_places_of_quantizers_in_a_functional_model(functional):
    fixed = (8,)
    assert placed(functional.model) == {
        ("images", "activation"): (fixed, True),
        ("stem", "weight"): (fixed, True),
        ("stem", "activation"): (ALPHABET, False),
        ("conv", "weight"): (ALPHABET, True),
        ("bn", "activation"): (fixed, True),
        ("sum_relu", "activation"): (fixed, False),
        ("squeeze", "activation"): (fixed, False),
        ("gate", "weight"): (ALPHABET, True),
        ("gate", "activation"): (fixed, True),
        ("scale", "activation"): (fixed, False),
        ("before_swish", "weight"): (ALPHABET, True),
        ("before_swish", "activation"): (fixed, True),
        ("swish", "activation"): (fixed, True),
        ("concatenate", "activation"): (fixed, True),
        ("logits", "weight"): (fixed, True),
        ("logits", "activation"): (fixed, True),
        ("regression", "weight"): (fixed, True),
        ("regression", "activation"): (fixed, True),
    }


def test_a_tensor_that_is_used_before_the_relu_too_is_quantized_there():
    images = keras.Input(INPUT)
    linear = layers.BatchNormalization(name="bn")(layers.Conv2D(2, 1, name="conv")(images))
    model = make_switchable(keras.Model(images, [linear, layers.ReLU(name="relu")(linear)]), activation_bits=(4, 8), for_file=False)
    assert {name: t.quantizer.alphabet for name, t in by_name(model, "activation").items() if name in ("conv", "bn", "relu")} == {
        "bn": (8,),
        "relu": (4, 8),
    }


def test_32_bits_are_the_stock_model_exactly(net):
    for expected, found in zip(arrays(net.stock(net.images)), arrays(net.model(net.images)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_stock_model_stays_as_it_was(sequential):
    layer = sequential.stock.get_layer("stem")
    assert len(layer._inbound_nodes) == 1 and isinstance(layer.kernel, tf.Variable)
    assert not {id(v) for v in sequential.stock.variables} & {id(v) for v in sequential.model.variables}


@pytest.mark.parametrize("name", ["sequential", "functional"])
def test_32_bits_have_the_gradients_of_the_stock_model(name, request):
    net = request.getfixturevalue(name)
    set_bits(net.model, 32, 32)

    def gradients(model, variables):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(y**2) for y in tf.nest.flatten(model(net.images, training=False))])
        return arrays(tape.gradient(loss, variables))

    weights = by_name(net.model, "weight")
    kernels = [getattr(net.stock.get_layer(n), t.kernel.name.split("/")[-1].split(":")[0]) for n, t in weights.items()]
    found = gradients(net.model, [tensor.kernel for tensor in weights.values()])
    for expected, gradient in zip(gradients(net.stock, kernels), found, strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_8_bits_are_near_float_and_2_bits_are_not(net):
    float_, spread = arrays(net.model(net.images)), [y.std(axis=0).mean() for y in arrays(net.model(net.images))]
    errors = []
    for bits in (8, 2):
        set_bits(net.model, bits, bits)
        errors.append([np.abs(y - f).mean() / s for y, f, s in zip(arrays(net.model(net.images)), float_, spread)])
    print(errors)
    assert max(errors[0]) < 0.2
    assert all(coarse > 3 * fine for fine, coarse in zip(*errors))


@pytest.mark.parametrize("bits", ALPHABET)
def test_kernels_in_use_lie_on_the_grid_of_their_channel(net, bits):
    set_bits(net.model, weight_bits=bits)
    net.model(net.images[:1])
    weights = by_name(net.model, "weight")
    used = {w.layer.name: w.layer for w in net.model.layers if isinstance(w, QuantizeWrapper)}
    for name, tensor in weights.items():
        own_bits = bits if len(tensor.quantizer.alphabet) > 1 else 8
        depthwise = isinstance(used[name], layers.DepthwiseConv2D)
        kernel = (used[name].depthwise_kernel if depthwise else used[name].kernel).numpy()
        np.testing.assert_allclose(kernel, rounded_kernel(tensor, own_bits), rtol=1e-5, atol=1e-7)
        channels = np.moveaxis(kernel, 2 if depthwise else -1, 0)
        assert max(len(np.unique(channel)) for channel in channels) <= 2**own_bits - 1
        assert len(np.unique(kernel)) > len(channels)  # Each channel has a step of its own.


@pytest.mark.parametrize("bits", [2, 4])
def test_activations_lie_on_a_grid(sequential, bits):
    set_bits(sequential.model, 32, bits)
    activations = by_name(sequential.model, "activation")
    searched = [name for name, tensor in activations.items() if len(tensor.quantizer.alphabet) > 1]
    outputs = keras.Model(sequential.model.inputs, [sequential.model.get_layer(f"quant_{name}").output for name in searched])
    for name, y in zip(searched, arrays(outputs(sequential.images)), strict=True):
        codes = y / steps(activations[name], bits)
        np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
        assert 2**bits / 2 < len(np.unique(y)) <= 2**bits
        assert codes.min() >= 0 and round(codes.max()) == 2**bits - 1


@pytest.mark.parametrize("weight_bits, activation_bits", PRECISIONS)
def test_the_whole_model_is_stock_layers_with_roundings_between(sequential, weight_bits, activation_bits):
    set_bits(sequential.model, weight_bits, activation_bits)
    weights, activations = by_name(sequential.model, "weight"), by_name(sequential.model, "activation")

    def rounded(x, name, signed, searched):
        if activation_bits == 32:
            return x
        bits = activation_bits if searched else 8
        step, (low, high) = (
            steps(activations[name], bits),
            (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1),
        )
        return (np.clip(np.round(x / step), low, high) * step).astype(np.float32)

    reference = cnn()
    reference.set_weights(sequential.stock.get_weights())
    reference.get_layer("classifier").activation = keras.activations.linear
    for name, tensor in weights.items():
        bits = 8 if name in ("stem", "classifier") and weight_bits != 32 else weight_bits
        if bits != 32:
            layer = reference.get_layer(name)
            layer.set_weights([rounded_kernel(tensor, bits), *layer.get_weights()[1:]])
    x = rounded(sequential.images, "stem_input", True, False)
    for layer in reference.layers:
        x = layer(x).numpy()
        if layer.name in ("stem_relu", "depthwise_relu", "hidden"):
            x = rounded(x, layer.name, False, True)
        elif layer.name in ("project_bn", "pooled", "classifier"):
            x = rounded(x, layer.name, True, False)
    np.testing.assert_allclose(sequential.model(sequential.images), tf.nn.softmax(x), rtol=1e-4, atol=1e-6)


def test_steps_are_the_best_ones_for_float_tensors_whatever_the_bits(sequential):
    set_bits(sequential.model, 2, 2)
    before = [t.variables["log_step"].numpy() for t in switchable_tensors(sequential.model)]
    initialise_steps(sequential.model, sequential.images)
    for tensor, old in zip(switchable_tensors(sequential.model), before):
        np.testing.assert_array_equal(tensor.variables["log_step"].numpy(), old)
        assert tensor.variables["bits"].numpy() in (2, 8)
    activations = by_name(sequential.model, "activation")
    names = ["depthwise_relu", "project_bn"]
    floats = keras.Model(sequential.stock.inputs, [sequential.stock.get_layer(name).output for name in names])
    for name, values in zip(names, arrays(floats(sequential.images))):
        for bits in activations[name].quantizer.alphabet:
            expected = best_steps(values.reshape(-1, 1), *activations[name].quantizer.code_range(bits))
            np.testing.assert_allclose(steps(activations[name], bits), expected[0], rtol=1e-5)


def test_a_large_activation_is_sampled():
    images = keras.Input((64, 64, 3))
    model = make_switchable(keras.Model(images, layers.ReLU(name="relu")(images)), for_file=False)
    x = np.random.default_rng(0).normal(size=(8, 64, 64, 3)).astype(np.float32)
    initialise_steps(model, x)
    expected = best_steps(np.maximum(x, 0).reshape(-1, 1), 0, 15)
    assert steps(by_name(model, "activation")["relu"], 4) == pytest.approx(expected[0], rel=0.1)


def test_one_trace_serves_all_bits(sequential):
    call = tf.function(lambda x: sequential.model(x, training=False))
    mixed = ({"depthwise": 3, "hidden": 32, "stem": 8}, {"stem_relu": 2, "classifier": 32})
    outputs = []
    for weight_bits, activation_bits in (*PRECISIONS, mixed):
        set_bits(sequential.model, weight_bits, activation_bits)
        outputs.append(call(sequential.images).numpy())
        np.testing.assert_allclose(outputs[-1], sequential.model(sequential.images), rtol=1e-4, atol=1e-6)
    assert call.experimental_get_tracing_count() == 1
    assert len({y.tobytes() for y in outputs}) == len(outputs)


def test_bits_by_layer_leave_the_others(sequential):
    set_bits(sequential.model, 4, 6)
    set_bits(sequential.model, {"hidden": 2}, {"stem_relu": 32})
    assert {n: int(t.variables["bits"]) for n, t in by_name(sequential.model, "weight").items()} == {
        "stem": 8, "depthwise": 4, "project": 4, "hidden": 2, "classifier": 8,
    }  # fmt: skip
    activations = {n: int(t.variables["bits"]) for n, t in by_name(sequential.model, "activation").items()}
    assert activations["stem_relu"] == 32 and activations["hidden"] == 6 and activations["project_bn"] == 8


def train(model, images):
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.train_on_batch(images, np.arange(8) % 4)


def contents(model):
    return [arrays((t.variables["log_step"], () if t.kernel is None else t.kernel)) for t in switchable_tensors(model)]


@pytest.fixture(scope="module")
def trained():
    """After a step of training at low bits, and what there was before."""
    net = built(tiny)
    set_bits(net.model, 4, 3)
    net.before = contents(net.model)
    train(net.model, net.images)
    net.after = contents(net.model)
    return net


def test_a_training_step_moves_weights_and_only_the_active_steps(trained):
    wanted = {("weight", True): 4, ("activation", True): 3}
    for tensor, before, after in zip(switchable_tensors(trained.model), trained.before, trained.after, strict=True):
        alphabet = tensor.quantizer.alphabet
        row = alphabet.index(wanted.get((tensor.role, len(alphabet) > 1), 8))
        moved = after[0] != before[0]
        assert moved[row].any() and not np.delete(moved, row, axis=0).any()
        assert all((new != old).mean() > 0.3 for old, new in zip(before[1:], after[1:]))


def assert_same_at_every_precision(found, net):
    set_bits(net.model, 4, 3)
    np.testing.assert_array_equal(found(net.images), net.model(net.images))  # The bits are saved too.
    for weight_bits, activation_bits in PRECISIONS:
        for model in (found, net.model):
            set_bits(model, weight_bits, activation_bits)
        np.testing.assert_array_equal(found(net.images), net.model(net.images))


@pytest.mark.parametrize("file", ["a.h5", "a.weights.h5", "checkpoint"])
def test_weights_go_into_a_new_model(trained, file, tmp_path):
    set_bits(trained.model, 4, 3)
    trained.model.save_weights(tmp_path / file)
    fresh = make_switchable(tiny())
    assert np.abs(fresh(trained.images) - trained.model(trained.images)).max() > 1e-3
    fresh.load_weights(tmp_path / file)
    assert_same_at_every_precision(fresh, trained)


@pytest.mark.parametrize("file", ["a.h5", "a.keras"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_whole_model_comes_back(trained, file, tmp_path):
    set_bits(trained.model, 4, 3)
    trained.model.save(tmp_path / file)
    with tfmot.quantization.keras.quantize_scope():
        loaded = keras.models.load_model(tmp_path / file)
    assert_same_at_every_precision(loaded, trained)
    kernels = [tensor.kernel for tensor in by_name(loaded, "weight").values()]
    assert {id(kernel) for kernel in kernels} <= {id(weight) for weight in loaded.trainable_weights}


def annotated():
    """The user chooses himself, one config for two layers."""
    ours = StockQuantizeConfig(weight_bits=(2, 4, 8), activation_bits=(2, 4, 8))
    return keras.Sequential(
        [
            annotate(layers.Conv2D(4, 3, activation="relu", input_shape=INPUT, name="one"), ours),
            annotate(layers.DepthwiseConv2D(3, activation="relu", name="two"), ours),
            layers.Flatten(),
            annotate(layers.Dense(3, name="logits"), StockQuantizeConfig(weight_bits=(8,))),
        ]
    )


def test_a_user_may_annotate_and_apply(sequential):
    stock = annotated()
    with tfmot.quantization.keras.quantize_scope():
        model = apply(stock, SwitchableScheme())
    initialise_steps(model, sequential.images)
    np.testing.assert_array_equal(model(sequential.images), stock(sequential.images))
    set_bits(model, {"one": 2}, {"two": 4})
    first = model.get_layer("quant_one")(sequential.images)
    second = model.get_layer("quant_two")(first)
    assert len(np.unique(first)) > 300 and 8 < len(np.unique(second)) <= 16
    kernels = [model.get_layer(f"quant_{name}").layer for name in ("one", "two")]
    assert len(np.unique(kernels[0].kernel[..., 0])) <= 3 and len(np.unique(kernels[1].depthwise_kernel[:, :, 0])) == 9


def test_under_the_default_scheme_tfmot_adds_quantizers_of_its_own(sequential):
    with tfmot.quantization.keras.quantize_scope():
        model = apply(annotated())
    assert [(t.layer, t.role) for t in switchable_tensors(model)] == [
        ("one", "weight"), ("one", "activation"), ("two", "weight"), ("two", "activation"), ("logits", "weight"),
    ]  # fmt: skip
    model(sequential.images, training=True)  # Theirs take their ranges from training.
    initialise_steps(model, sequential.images)
    float_ = model(sequential.images).numpy()
    set_bits(model, 8, 8)
    assert 0 < np.abs(model(sequential.images) - float_).max() < 0.1 * float_.std()


def of_keras_3():
    import keras as keras3

    return keras3.Sequential([keras3.layers.Input(INPUT), keras3.layers.Conv2D(2, 3)])


class Subclassed(keras.Model):
    def call(self, x):
        return x


def sequence(*stack):
    return keras.Sequential(list(stack))


def shared():
    images, relu = keras.Input(INPUT), layers.ReLU(name="twice")
    return keras.Model(images, relu(layers.Conv2D(3, 1)(relu(images))))


def with_operator():
    images = keras.Input(INPUT)
    return keras.Model(images, tf.sin(images))


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda: "mobilenet", "`model` must be a functional or Sequential tf_keras model, but received a str"),
        (lambda: tf.Module(), "received a Module"),
        (of_keras_3, "`model` is a Sequential of Keras 3, but must be of tf_keras: build it with `import tf_keras as keras`"),
        (lambda: Subclassed(), "received a Subclassed"),
        (lambda: keras.Sequential([layers.Dense(2)], name="unbuilt"), "must be built, but 'unbuilt' is not: give"),
        (lambda: sequence(layers.LSTM(2, input_shape=(4, 3), name="rnn")), "layer 'rnn' of type LSTM cannot be exported because"),
        (lambda: sequence(layers.Lambda(tf.abs, input_shape=INPUT, name="f")), "'f' of type Lambda"),
        (lambda: sequence(layers.Conv2DTranspose(2, 3, input_shape=INPUT, name="up")), "'up' of type Conv2DTranspose"),
        (shared, "'twice' of type ReLU .* called more than once: give each"),
        (with_operator, "of type TFOpLambda"),
        (
            lambda: sequence(layers.Dense(2, input_shape=(3,), dtype="float16", name="half")),
            "'half.*' .* computes in float16",
        ),
    ],
)
def test_models_that_cannot_be_quantized(model, message):
    with pytest.raises(DaquError, match=message):
        make_switchable(model())
    with pytest.raises(DaquError, match=message.replace("exported", "quantized")):
        make_switchable(model(), for_file=False)


def within():
    images = keras.Input(INPUT, name="images")
    body = sequence(layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm"), layers.ReLU(name="relu"))
    second = keras.Sequential([layers.Conv2D(4, 3, input_shape=(6, 6, 4), name="conv"), body_of(4)], name="second")
    return keras.Model(images, layers.Dense(3, name="logits")(layers.Flatten(name="flat")(second(body(images)))))


def body_of(channels):
    images = x = keras.Input((4, 4, 4))
    return keras.Model(images, layers.Conv2D(channels, 1, name="last")(layers.BatchNormalization(name="norm")(x)), name="body")


def test_models_within_a_model_are_taken_with_their_weights(tmp_path):
    net = built(within)
    names = [layer.name.removeprefix("quant_") for layer in net.model.layers]
    assert names[1:] == ["images", "conv", "norm", "relu", "conv_1", "norm_1", "last", "flat", "logits"]
    np.testing.assert_allclose(net.model(net.images), net.stock(net.images), atol=1e-5)


def test_a_part_that_is_called_twice_would_be_trained_apart():
    part = keras.Sequential([layers.Conv2D(3, 1, input_shape=INPUT, name="conv")])
    images = keras.Input(INPUT)
    with pytest.raises(DaquError, match="'conv' .* called more than once: give each call a layer of its own"):
        make_switchable(keras.Model(images, part(part(images))))


@pytest.mark.parametrize("alphabet", [(), (1, 8), (4, 9), (8, 32), 4, "48"])
@pytest.mark.parametrize("argument", ["weight_bits", "activation_bits"])
def test_alphabets_that_cannot_be(argument, alphabet):
    with pytest.raises(DaquError, match=f"`{argument}` must be a sequence of bits from 2 to 8"):
        make_switchable(cnn(), **{argument: alphabet})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weight_bits": 5}, r"`weight_bits` must be one of \[2, 3, 4, 6, 8, 32\], but received 5"),
        ({"activation_bits": "4"}, "`activation_bits` must be one of"),
        ({"weight_bits": {"stem": 4}}, r"`weight_bits` of 'stem' must be one of \[8, 32\], but received 4"),
        ({"weight_bits": {"hidden": 2, "stem_bn": 4}}, "names 'stem_bn', which has no weight quantizer: choose of stem, depthwise"),
        ({"weight_bits": [4]}, r"but received \[4\]"),
        ({"weight_bits": 4, "activation_bits": {"project": 8}}, "names 'project', which has no activation quantizer"),
    ],
)
def test_bits_that_cannot_be_set_change_nothing(sequential, arguments, message):
    set_bits(sequential.model, 6, 6)
    with pytest.raises(DaquError, match=message):
        set_bits(sequential.model, **arguments)
    assert {int(t.variables["bits"]) for t in switchable_tensors(sequential.model)} == {6, 8}


def test_a_stock_model_has_no_bits(sequential):
    with pytest.raises(DaquError, match="has none: use what `make_switchable` returns"):
        set_bits(sequential.stock, 4)
    with pytest.raises(DaquError, match="has none"):
        initialise_steps(sequential.stock, sequential.images)


def test_weight_bits_need_a_kernel():
    with pytest.raises(DaquError, match="'relu' of type ReLU cannot be quantized because `weight_bits` are for Conv2D"):
        apply(sequence(annotate(layers.ReLU(input_shape=INPUT, name="relu"), StockQuantizeConfig((4,)))), SwitchableScheme())
