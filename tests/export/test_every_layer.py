"""Every layer of tf_keras in a model of one's own: written exactly, or refused before anything is trained."""

import inspect

import numpy as np
import pytest
from own_models import smooth

from daqu_tf import check
from daqu_tf.errors import DaquError
from daqu_tf.export.export import export_tflite, round_biases
from daqu_tf.keras import keras
from daqu_tf.stock_models import initialise_steps, make_switchable, set_bits, switchable_tensors

layers = keras.layers
# What layers must be given, by the names of their arguments; `filters` and `units` keep the channels.
GIVEN = {
    "filters": 4, "units": 4, "kernel_size": 3, "pool_size": 2, "rate": 0.5, "stddev": 0.1, "dims": (2, 1, 3), "n": 3, "axes": 1,
    "target_shape": (1, 1, -1), "num_heads": 2, "key_dim": 2, "height": 8, "width": 8, "factor": 0.1, "output_size": 4,
    "input_dim": 9, "output_dim": 4, "num_tokens": 4, "num_bins": 4, "bin_boundaries": (0.1, 0.5), "max_value": 1.0, "scale": 0.5,
    "l1": 0.1, "mask_value": 0.0, "vocabulary": ("a", "b"),
}  # fmt: skip
EXPORTED = {
    "Activation", "Add", "AveragePooling2D", "AvgPool2D", "BatchNormalization", "Concatenate", "Conv2D", "Convolution2D", "Dense",
    "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalAvgPool2D", "GlobalMaxPool2D", "GlobalMaxPooling2D",
    "MaxPool2D", "MaxPooling2D", "Multiply", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "SeparableConvolution2D",
    "Softmax", "SpatialDropout2D", "ZeroPadding2D",
}  # fmt: skip
NO_LAYERS = {"Layer", "Wrapper", "InputLayer", "InputSpec"}
NAMES = sorted(name for name, kind in vars(layers).items() if inspect.isclass(kind) and name not in NO_LAYERS)
INPUT = (8, 8, 3)


def created(kind, **arguments):
    """A layer with what it must be given; of a wrapper, around a convolution, a dense or a recurrent one."""
    names = [
        name
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
    ]
    return kind(**{name: GIVEN[name] for name in names if name in GIVEN}, **arguments)


def around(kind):
    """Layers of a kind, of which some may be built on the tensor that they are given."""
    further = [
        {},
        {"activation": "relu"},
        {"layer": layers.Conv2D(4, 3)},
        {"layer": layers.LSTM(4)},
        {"cell": layers.LSTMCell(4)},
        {"function": np.abs},
        {"mean": 0.0, "variance": 1.0},
        {"backend": None},
    ]
    for arguments in further:
        try:
            yield created(kind, **arguments)
        except Exception:  # Keras raises anything where an argument is missing.
            continue


def models(kind):
    """Models with a layer of that kind on images, rows, features, volumes, or two of each."""
    for layer in around(kind):
        for shape in ((6, 6, 4), (36, 4), (144,), (6, 6, 2, 2)):
            for count in (1, 2):
                keras.backend.clear_session()
                images = keras.Input(INPUT, name="images")
                convolutions = [layers.Conv2D(4, 3, name=f"conv{number}")(images) for number in range(count)]
                read = [x if shape == (6, 6, 4) else layers.Reshape(shape)(x) for x in convolutions]
                try:
                    copy = type(layer).from_config(layer.get_config() | {"name": "tried"})
                    outputs = copy(read if count > 1 else read[0])
                    outputs = outputs[0] if isinstance(outputs, list | tuple) else outputs
                    x = outputs if len(outputs.shape) < 3 else layers.Flatten()(outputs)
                    model = keras.Model(images, layers.Dense(3, name="logits")(x))
                except Exception:  # Keras raises anything where a layer does not go there.
                    continue
                yield model
                if len(outputs.shape) == 2:
                    yield keras.Model(images, outputs)


@pytest.mark.parametrize("name", [name if name in EXPORTED else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_a_layer_is_written_exactly_or_refused_before_training(name, tmp_path):
    written = 0
    for model in models(getattr(layers, name)):
        if found := check(model):
            assert all(reason.startswith(("layer '", "Tensor '")) for reason in found), found
            with pytest.raises(DaquError):
                make_switchable(model)
            continue
        written += 1
        switchable, images = make_switchable(model), smooth(INPUT, 8)
        initialise_steps(switchable, images)
        for choose in (min, max, lambda alphabet: 32):
            for tensor in switchable_tensors(switchable):
                set_bits(switchable, **{f"{tensor.role}_bits": {tensor.layer: choose(tensor.quantizer.alphabet)}})
            round_biases(switchable)
            export_tflite(switchable, tmp_path / "model.tflite", images=images)  # It is run and compared.
    assert (written > 0) == (name in EXPORTED)
