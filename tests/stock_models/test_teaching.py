"""A trained network as a teacher: which pixels it takes, what it thinks, and what cannot teach."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from daqu_tf import data
from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.stock_models.teaching import teacher_from
from daqu_tf.training.fine_tuning import FineTuner, FineTuning

layers = keras.layers
DIGITS = data.load("digits", 0)


@functools.cache
def linear():
    """A linear network for digits in [0, 1], which gives logits."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(inputs)))
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.asarray(DIGITS.x_train), DIGITS.y_train, batch_size=64, epochs=8, verbose=0)
    return model


def saved(folder, model):
    model.save(path := folder / "teacher.keras")
    return path


def with_pixels(change, size=(8, 8), channels=1):
    """The network behind a change of its pixels, for images of another size or number of channels."""
    inputs = x = keras.Input((*size, channels))
    for layer in change:
        x = layer(x)
    return keras.Model(inputs, linear()(x))


@pytest.mark.parametrize(
    ("limits", "change"),
    [((0.0, 1.0), []), ((-1.0, 1.0), [layers.Rescaling(0.5, 0.5)]), ((0.0, 255.0), [layers.Rescaling(1 / 255)])],
)
def test_the_pixels_that_it_takes_are_found(limits, change, tmp_path):
    teacher = teacher_from(saved(tmp_path, with_pixels(change)), DIGITS)
    assert teacher.limits == limits and teacher.accuracy > 0.9 and teacher.seconds > 0
    images = DIGITS.x_train[:5]
    np.testing.assert_allclose(teacher(images), linear()(images), atol=1e-4)


@pytest.mark.parametrize("last", [layers.Softmax(), layers.Activation("softmax")])
def test_probabilities_are_taken_as_such(last, tmp_path):
    model = keras.Model(linear().inputs, last(linear().output))
    teacher, images = teacher_from(saved(tmp_path, model), DIGITS), DIGITS.x_train[:5]
    np.testing.assert_allclose(tf.nn.softmax(teacher(images)), model(images), atol=1e-5)


def test_it_may_take_larger_images_and_colours(tmp_path):
    halves = [layers.Conv2D(1, 1, kernel_initializer="ones", use_bias=False), layers.AveragePooling2D(2), layers.Rescaling(1 / 3)]
    teacher = teacher_from(saved(tmp_path, with_pixels(halves, (16, 16), 3)), DIGITS)
    assert teacher.model.input_shape == (None, 16, 16, 3) and teacher.accuracy > 0.9


def test_what_cannot_teach_is_refused(tmp_path):
    logits = linear().output
    for model, words in (
        (keras.Model(linear().inputs, layers.Dense(9)(logits)), "one number for each of the 10 classes, but .* puts out .*9"),
        (keras.Model(linear().inputs, tf.negative(logits)), "rightly, about as many as by chance: its classes must be"),
        (keras.Model(inputs := keras.Input((64,)), layers.Dense(10)(inputs)), "must take images of 1 channels"),
    ):
        with pytest.raises(DaquError, match=words):
            teacher_from(saved(tmp_path, model), DIGITS)
    with pytest.raises(DaquError, match="`teacher` .*missing.h5 does not exist"):
        teacher_from(tmp_path / "missing.h5", DIGITS)


def test_networks_learn_what_it_thinks(digits, tmp_path):
    """Labels that lie: who is taught by the teacher alone is right all the same."""
    wrong = dataclasses.replace(DIGITS, y_train=(DIGITS.y_train + 1) % 10)
    teacher = teacher_from(saved(tmp_path, linear()), DIGITS)
    space = digits.supernet.space
    subnet = space.largest()
    how = FineTuning(steps=120, distillation=1.0)
    network, _ = FineTuner(space, digits.supernet.arrays(), wrong, how, teacher).tune(subnet)
    right = np.mean(np.argmax(network(DIGITS.x_search[:]), -1) == DIGITS.y_search)
    assert right > 0.6
