"""Networks of every family written by hand in stock tf_keras layers, for the largest subnet of `families.py` in float."""

from daqu_tf.keras import keras
from daqu_tf.supernet.weights import EPSILON

layers = keras.layers


def _convolution(x, name, layer, activation=None):
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}.normalize")(layer(x))
    return x if activation is None else activation(x)


def _relu(x):
    return layers.ReLU()(x)


def _relu6(x):
    return layers.ReLU(6.0)(x)


def _hard_swish(x):
    return layers.Multiply()([x, layers.Rescaling(1 / 6)(layers.ReLU(6.0)(layers.Rescaling(1.0, 3.0)(x)))])


def _conv(name, filters, size=1, stride=1):
    return layers.Conv2D(filters, size, stride, "same", use_bias=False, name=name)


def _inverted_residual(x, name, width, expansion, kernel, stride, activation, squeeze=None, adds=False):
    shortcut, hidden = x, x.shape[-1] * expansion
    if expansion > 1:
        x = _convolution(x, f"{name}.expand", _conv(f"{name}.expand", hidden), activation)
    depthwise = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}.depthwise")
    x = _convolution(x, f"{name}.depthwise", depthwise, activation)
    if squeeze:
        y = layers.Dense(squeeze, "relu", name=f"{name}.squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        y = layers.Dense(hidden, name=f"{name}.excite")(y)
        y = layers.Rescaling(1 / 6)(layers.ReLU(6.0)(layers.Rescaling(1.0, 3.0)(y)))
        x = layers.Multiply()([x, y])
    x = _convolution(x, f"{name}.project", _conv(f"{name}.project", width))
    return layers.Add()([shortcut, x]) if adds or name.endswith("block2") else x


def _basic(x, name, width, expansion, stride, adds=False):
    y = _convolution(x, f"{name}.conv1", _conv(f"{name}.conv1", width * expansion, 3, stride), _relu)
    y = _convolution(y, f"{name}.conv2", _conv(f"{name}.conv2", width, 3))
    if name.endswith("block1") and not adds:
        x = _convolution(x, f"{name}.shortcut", _conv(f"{name}.shortcut", width, 1, stride))
    return _relu(layers.Add()([x, y]))


def _separable(x, name, width, kernel, stride):
    depthwise = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}.depthwise")
    x = _convolution(x, f"{name}.depthwise", depthwise, _relu6)
    return _convolution(x, f"{name}.project", _conv(f"{name}.project", width), _relu6)


def _ends(shape, classes, body, head=None, stem_activation=_relu, stride=1, zero=0.0):
    inputs = keras.Input(shape)
    x = layers.Rescaling(1.0, -zero)(inputs) if zero else inputs
    x = body(_convolution(x, "stem", _conv("stem", 8, 3, stride), stem_activation))
    if head:
        x = _convolution(x, "head", _conv("head", head), stem_activation)
    return keras.Model(inputs, layers.Dense(classes, name="classifier")(layers.GlobalAveragePooling2D()(x)))


def inverted_residual():
    def body(x):
        x = _inverted_residual(x, "stage1.block1", 8, 1, 3, 1, _relu, adds=True)
        x = _inverted_residual(x, "stage1.block2", 8, 1, 3, 1, _relu)
        x = _inverted_residual(x, "stage2.block1", 12, 3, 5, 2, _relu)
        return _inverted_residual(x, "stage2.block2", 12, 3, 5, 1, _relu)

    return _ends((12, 10, 1), 5, body, head=24)


def squeeze_excite():
    def body(x):
        x = _inverted_residual(x, "stage1.block1", 8, 1, 3, 1, _relu)
        x = _inverted_residual(x, "stage2.block1", 12, 4, 5, 2, _relu, squeeze=8)
        x = _inverted_residual(x, "stage2.block2", 12, 4, 5, 1, _relu, squeeze=16)
        x = _inverted_residual(x, "stage3.block1", 12, 2, 3, 1, _hard_swish)
        x = _inverted_residual(x, "stage3.block2", 12, 2, 3, 1, _hard_swish)
        x = _inverted_residual(x, "stage4.block1", 16, 3, 3, 2, _hard_swish, squeeze=16)
        return _inverted_residual(x, "stage4.block2", 16, 3, 3, 1, _hard_swish, squeeze=16)

    return _ends((12, 12, 3), 5, body, head=24, stem_activation=_hard_swish)


def basic():
    def body(x):
        for stage, width, expansion, stride in ((1, 8, 1, 1), (2, 12, 2, 2)):
            x = _basic(x, f"stage{stage}.block1", width, expansion, stride)
            x = _basic(x, f"stage{stage}.block2", width, expansion, 1)
        return x

    return _ends((10, 12, 3), 5, body)


def identity():
    def body(x):
        x = _basic(x, "stage1.block1", 8, 1, 1, adds=True)
        x = _basic(x, "stage1.block2", 8, 1, 1)
        return _basic(x, "stage2.block1", 12, 1, 2)

    return _ends((10, 12, 3), 5, body)


def separable():
    def body(x):
        x = _separable(x, "stage1.block1", 8, 3, 1)
        x = _separable(x, "stage2.block1", 20, 5, 2)
        x = _separable(x, "stage2.block2", 20, 5, 1)
        x = _inverted_residual(x, "stage3.block1", 16, 3, 3, 1, _relu6)
        return _inverted_residual(x, "stage3.block2", 16, 3, 3, 1, _relu6)

    return _ends((12, 12, 3), 5, body, head=40, stem_activation=_relu6, stride=2, zero=0.5)
