import types

import integer_reference
import numpy as np
import pytest
import tensorflow as tf
from interpreters import XNNPACK, loaded
from own_models import (
    INPUT,
    OURS,
    POOLED,
    PRECISIONS,
    THEIRS,
    annotated,
    assert_built_in_kernels_are_within_one_step,
    assert_file_computes_what_the_model_does,
    assert_is_the_reference,
    calibrated,
    choose,
    conv,
    dense,
    gated,
    graph_of,
    mobilenet,
    operators,
    plain,
    residual,
    run,
    separable,
    sequence,
    simulated_codes,
    smooth,
)

from daqu_tf import check, tflite
from daqu_tf.errors import DaquError
from daqu_tf.export.export import export_tflite, round_biases
from daqu_tf.keras import keras, tfmot
from daqu_tf.stock_models import initialise_steps, make_switchable, set_bits, switchable_tensors
from daqu_tf.stock_models.quantizers import StockQuantizeConfig
from daqu_tf.tflite.metadata import Metadata
from daqu_tf.tflite.operators import Pad
from daqu_tf.tflite.weighted import Conv2D, FullyConnected

layers = keras.layers


@pytest.fixture(scope="module")
def mobile():
    return calibrated(mobilenet)


@pytest.fixture(scope="module", params=[plain, separable, residual, gated, dense], ids=lambda create: create.__name__)
def net(request):
    return calibrated(request.param)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_is_the_integer_reference_operator_by_operator(net, precision):
    choose(net.model, precision)
    assert_is_the_reference(net)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("container", ["auto", "int8", "int4"])
def test_the_file_computes_what_the_model_does(net, precision, container, tmp_path):
    choose(net.model, precision)
    path = tmp_path / "model.tflite"
    export_tflite(net.model, path, container, output_activation="none")
    assert tflite.read(path.read_bytes()) == graph_of(net.model, container)
    if container != "int4":  # Its convolutions run on built-in kernels, whose flips go through the layers behind them.
        assert_file_computes_what_the_model_does(net, path)
    assert_built_in_kernels_are_within_one_step(net, path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_mobilenet_v2(mobile, precision, tmp_path):
    choose(mobile.model, precision)
    assert_is_the_reference(mobile)
    path = tmp_path / "model.tflite"
    export_tflite(mobile.model, path, output_activation="none")
    # Of random weights one flip at the top becomes many: the first two outputs of some images are as near.
    assert_file_computes_what_the_model_does(mobile, path, equal=0.2, mean=2.0, apart=8)
    assert_built_in_kernels_are_within_one_step(mobile, path)
    graph = tflite.read(path.read_bytes())
    assert not any(isinstance(operator, Pad) for operator in graph.operators)  # All its zeros are those of SAME.


APPLICATIONS = {
    "MobileNetV3Small": {"input_shape": (64, 64, 3), "alpha": 0.75, "include_preprocessing": False, "dropout_rate": 0.0},
    "MobileNetV3Large": {"input_shape": (64, 64, 3), "alpha": 0.35, "include_preprocessing": False, "minimalistic": True},
    "DenseNet121": {"input_shape": (64, 64, 3)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_of_keras(name, tmp_path):
    net = calibrated(lambda: getattr(keras.applications, name)(weights=None, classes=10, **APPLICATIONS[name]))
    choose(net.model, "w8a8")
    assert_is_the_reference(net)
    path = tmp_path / "model.tflite"
    export_tflite(net.model, path, output_activation="none")
    assert_file_computes_what_the_model_does(net, path, equal=0.2, mean=2.0, apart=8)
    choose(net.model, "mixed")  # Of random weights, one flip at few bits goes through a hundred layers.
    assert_is_the_reference(net)
    set_bits(net.model, 32, 32)
    export_tflite(net.model, tmp_path / "float.tflite", images=net.images)  # It is run and compared.


def test_a_hard_sigmoid_of_zero_is_rounded_as_in_training():
    """It is half of 255 steps, so that the least error of a bias would decide."""
    model = sequence(layers.Activation("hard_sigmoid", name="gate"), layers.Flatten(name="features"))
    net = types.SimpleNamespace(model=make_switchable(model), images=smooth(INPUT, 8) - 1.0)
    initialise_steps(net.model, net.images)
    set_bits(net.model, activation_bits=8)
    graph = graph_of(net.model)
    source = graph.tensor("images")
    codes = np.arange(-128, 128).reshape(-1, 1, 1, 1).repeat(12, 1).repeat(10, 2).repeat(3, 3)
    reals = (codes - source.zero_point) * source.scale
    expected = net.model(reals.astype(np.float32)).numpy().reshape(len(codes), -1)[:, 0]
    (gate,) = [operator for operator in graph.operators if operator.output == "gate"]
    found = [integer_reference.compute(graph, gate, code[np.newaxis].astype(np.int8)).flat[0] for code in codes]
    output = graph.tensor("gate")
    assert np.array_equal(np.array(found, int) - output.zero_point, np.rint(expected / output.scale))


@pytest.fixture(scope="module")
def trained():
    """A model after a step of training at low bits."""
    net = calibrated(plain)
    set_bits(net.model, 3, 4)
    net.model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    net.model.train_on_batch(net.images, np.arange(len(net.images)) % 5)
    return net


def test_integers_are_the_trained_ones_up_to_sign_and_a_power_of_two_a_channel(trained):
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
            largest = [np.abs(part[..., alive]).reshape(-1, alive.sum()).max(axis=0) for part in (found, codes)]
            powers = largest[0] / largest[1]  # Each channel's, by which few-bit weights are multiplied in the file.
            assert set(np.log2(powers) % 1) == {0.0} and powers.min() >= 1 and alive.mean() > 0.8
            assert np.array_equal(np.abs(found[..., alive]), np.abs(codes[..., alive]) * powers)
            assert written[names[tensor.layer]].trained_bits <= bits


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


def test_padded_images_that_are_smaller_than_the_kernel():
    """As at the end of ResNet50V2 with images of 32 pixels: the convolution alone could not read one pixel."""
    pooled = layers.GlobalAveragePooling2D(keepdims=True)
    padded = (layers.ZeroPadding2D(1, name="padding"), layers.Conv2D(6, 3, name="small"), layers.ReLU(name="small_relu"))
    model = make_switchable(sequence(conv(activation="relu"), pooled, *padded, layers.Flatten(), layers.Dense(3)))
    initialise_steps(model, smooth(INPUT, 8))
    set_bits(model, 8, 8)
    round_biases(model)
    assert operators(model)["small_relu"].padding == "SAME"
    assert_is_the_reference(types.SimpleNamespace(model=model, images=smooth(INPUT, 8)))


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
    return keras.Model(images, layers.Concatenate(1, name="both")([x, layers.Conv2D(4, 1, name="other")(x)]))


def multiplied():
    images, x = shared_input()
    return keras.Model(images, layers.Multiply(name="product")([x, layers.Conv2D(1, 1, name="mask")(x)]))


def of_any_size():
    images = keras.Input((None, None, 3), name="images")
    return keras.Model(images, layers.GlobalAveragePooling2D()(conv()(images)))


REFUSED = {
    "swish": (lambda: sequence(conv(activation="swish")), "'conv' of type Conv2D cannot be exported because the file has no"),
    "softmax inside": (lambda: sequence(conv(activation="softmax"), layers.Flatten()), "'conv' .* no softmax, and only at the end"),
    "axis": (lambda: sequence(conv(), layers.BatchNormalization(1, name="bn")), r"'bn' .* its axis is \[1\]: normalize the last"),
    "limited average": (
        lambda: sequence(conv(), layers.GlobalAveragePooling2D(), layers.ReLU(6.0, name="relu")),
        "'relu' .* an average clips at no limit: put the ReLU before",
    ),
    "leaky": (
        lambda: sequence(conv(), layers.LeakyReLU(name="leaky")),
        "'leaky' of type LeakyReLU .* no operator for it: use only",
    ),
    "slope": (lambda: sequence(conv(), layers.ReLU(negative_slope=0.1, name="relu")), "'relu' .* the file has no leaky_relu"),
    "dilation": (lambda: sequence(conv(dilation_rate=2)), r"'conv' .* `dilation_rate` is \(2, 2\): only \(1, 1\) can be"),
    "groups": (lambda: sequence(layers.Conv2D(3, 3, groups=3, name="conv")), "'conv' .* `groups` is 3: only 1"),
    "strides": (lambda: sequence(conv(strides=(1, 2))), r"'conv' .* `strides` are \(1, 2\): take the same"),
    "three": (three_summed, "'sum' .* it combines 3 tensors: take two at a time"),
    "rows": (concatenated, r"'both' .* its `axis` is 1: take the last"),
    "product": (multiplied, "'product' .* its tensors differ in shape: multiply by as many, or by one for each channel"),
    "average": (
        lambda: sequence(conv(), layers.AveragePooling2D(3, 1, padding="same", name="average")),
        "'average' .* its windows reach beyond the image, where they are smaller: give it `padding='valid'`",
    ),
    "operation": (lambda: keras.Model(x := keras.Input(INPUT), tf.sin(x)), "'tf.math.sin' of type TFOpLambda"),
    "rank": (lambda: sequence(conv(), layers.Reshape((80, 4), name="rows")), "Tensor 'rows': shape must be"),
    "outputs": (two_outputs, "`model` must have one input and one output, but has 1 and 2"),
    "size": (of_any_size, r"'images' .* its shape is \(None, None, None, 3\): build the model for images of one size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_said_before_anything_is_trained(case):
    create, message = REFUSED[case]
    model = create()
    with pytest.raises(DaquError, match=message) as raised:
        make_switchable(model)
    assert check(model) == [str(raised.value)]


def test_all_that_stands_in_the_way_is_said_at_once():
    up = (layers.Conv2DTranspose(4, 3, name="up"), layers.ReLU(name="joined"), layers.UpSampling2D(name="larger"))
    stock = sequence(conv(activation="gelu"), *up, layers.Conv2D(4, 1, groups=2, name="last"))
    found = check(stock)
    assert [reason.split("'")[1] for reason in found] == ["conv", "up", "larger", "last"]
    with pytest.raises(DaquError) as raised:
        make_switchable(stock)
    assert str(raised.value).splitlines() == found
    many = sequence(*(layers.ELU(name=f"elu{number}") for number in range(40)))
    assert len(check(many)) == 40
    with pytest.raises(DaquError, match="There are 28 more: `daqu_tf.check` lists them all"):
        make_switchable(many)


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
    (source,) = tflite.read_metadata(path.read_bytes())["subgraph_metadata"][0]["input_tensor_metadata"]
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


def test_a_sigmoid_at_the_end_is_left_out_where_that_is_said(tmp_path):
    stock = sequence(conv(activation="relu"), layers.Flatten(), layers.Dense(1, activation="sigmoid", name="logit"))
    model, images = make_switchable(stock), smooth(INPUT, 8)
    initialise_steps(model, images)
    set_bits(model, 8, 8)
    round_biases(model)
    export_tflite(model, tmp_path / "model.tflite", output_activation="none")
    logits = np.array([run(loaded((tmp_path / "model.tflite").read_bytes(), XNNPACK), image) for image in images])
    np.testing.assert_allclose(tf.sigmoid(logits), model(images), atol=0.005)


def test_a_loaded_model_is_exported_too(net, tmp_path):
    choose(net.model, "w3a4")
    net.model.save(tmp_path / "model.keras")
    with tfmot.quantization.keras.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert graph_of(loaded) == graph_of(net.model)
