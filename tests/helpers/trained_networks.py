"""Networks as people bring them, with statistics as if they were trained: those of their own activations on images."""

import functools

import numpy as np

from daqu_tf.keras import keras

layers = keras.layers
SHAPE, CLASSES = (64, 64, 3), 7
SIGNED, UNIT, BYTES = (-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)


def photos(count, side, channels=3, seed=0):
    """Images in [0, 1] (count, side, side, channels) on the grid of 255 steps, with neighbours alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, side + 2, side + 2, channels))
    return ((noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) // 3).astype(np.float32) / 255


def mobilenet_v2(alpha):
    return keras.applications.MobileNetV2(SHAPE, alpha, weights=None, classes=CLASSES)


def mobilenet_v1(alpha):
    return keras.applications.MobileNet(SHAPE, alpha, weights=None, classes=CLASSES)


def _normalised(x, layer, activation=None):
    x = layers.BatchNormalization()(layer(x))
    return x if activation is None else layers.Activation(activation)(x)


def resnet(has_norm=True, scaled=True):
    """MLPerf Tiny's ResNet-8 of three stages, and a second block in the last one."""

    def convolution(x, filters, size, stride, activation=None):
        layer = layers.Conv2D(filters, size, stride, "same")
        if has_norm:
            return _normalised(x, layer, activation)
        return layers.Activation(activation)(layer(x)) if activation else layer(x)

    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(inputs) if scaled else inputs
    x = convolution(x, 16, 3, 1, "relu")
    for width, stride, first in ((16, 1, False), (32, 2, True), (64, 2, True), (64, 1, False)):
        y = convolution(convolution(x, width, 3, stride, "relu"), width, 3, 1)
        x = layers.Activation("relu")(layers.Add()([convolution(x, width, 1, stride) if first else x, y]))
    x = layers.Flatten()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(layers.Dropout(0.2)(x)))


NETWORKS = {
    **{f"mobilenet_v2 {alpha}": (functools.partial(mobilenet_v2, alpha), SIGNED) for alpha in (0.35, 0.5, 0.75, 1.0, 1.4)},
    **{f"mobilenet_v1 {alpha}": (functools.partial(mobilenet_v1, alpha), SIGNED) for alpha in (0.25, 0.5, 1.0)},
    "resnet": (resnet, BYTES),
    "resnet without norm": (functools.partial(resnet, has_norm=False), BYTES),
    "resnet without scale": (functools.partial(resnet, scaled=False), UNIT),
}


@functools.cache
def trained(name):
    """A network of `NETWORKS`, and the numbers that it takes for black and white."""
    build, limits = NETWORKS[name]
    keras.utils.set_random_seed(0)
    model, rng = build(), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(photos(16, SHAPE[0], seed=1) * (limits[1] - limits[0]) + limits[0], training=True)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, *others = layer.get_weights()
            gamma = rng.uniform(0.5, 1.5, gamma.shape) * rng.choice([-1, 1], gamma.shape)
            layer.set_weights([gamma, rng.normal(0, 0.5, beta.shape), *others])
        elif isinstance(layer, layers.Conv2D) and layer.use_bias:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    return model, limits


def logits(model):
    """The model without the softmax at its end."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    last = copy.layers[-1]
    if isinstance(last, layers.Activation):
        return keras.Model(copy.inputs, last.input)
    last.activation = keras.activations.linear
    return copy
