import keras_tuner
import numpy as np
import pytest

from daqu_tf.errors import DaquError
from daqu_tf.oracle.hyperparameters import choices_of
from daqu_tf.pareto.choices import ABSENT, LEVELS, Choices


def everything():
    space = keras_tuner.HyperParameters()
    space.Choice("kind", ["mlp", "cnn"])
    space.Boolean("bias")
    space.Fixed("classes", 10)
    space.Int("layers", 1, 4)
    space.Int("units", 1, 1000, sampling="log")
    space.Float("rate", 1e-4, 1e-1, sampling="log")
    space.Float("dropout", 0.0, 0.5, step=0.25)
    with space.conditional_scope("kind", ["cnn"]):
        space.Choice("kernel", [3, 5])
        space.Boolean("pool")
        with space.conditional_scope("pool", [True]):
            space.Int("stride", 1, 2)
    return space


def test_every_kind_of_hyperparameter_has_values():
    choices = choices_of(everything()).options
    assert choices["kind"] == ("mlp", "cnn") and choices["bias"] == (False, True) and choices["classes"] == (10,)
    assert choices["layers"] == (1, 2, 3, 4) and choices["dropout"] == (0.0, 0.25, 0.5)
    assert choices["units"][0] == 1 and choices["units"][-1] == 1000 and all(type(value) is int for value in choices["units"])
    rates = np.array(choices["rate"])
    assert len(rates) == LEVELS + 1 and rates[0] == 1e-4 and rates[-1] == pytest.approx(1e-1)
    assert np.diff(np.log(rates)) == pytest.approx(np.log(1000) / LEVELS)


def test_values_are_those_that_kerastuner_activates():
    space, rng = everything(), np.random.default_rng(0)
    choices = choices_of(space)
    for code in choices.canonical(rng.integers(0, choices.sizes, (200, len(choices.sizes)))):
        values = choices.decode(code)
        space.values = dict(values)
        assert set(values) == {parameter.name for parameter in space.space if space.is_active(parameter)}
        assert choices.encode(values) == tuple(code) and choices.missing(tuple(code)) is None


def test_absence_is_inherited():
    choices = choices_of(everything())
    names = list(choices.options)
    code = dict(zip(names, choices.canonical(np.zeros((1, len(names)), int))[0]))
    assert [name for name, index in code.items() if index == ABSENT] == ["kernel", "pool", "stride"]


def test_a_real_number_becomes_the_nearest_that_is_searched():
    choices = choices_of(everything())
    values = choices.decode([0] * 7) | {"rate": 0.00213}
    nearest = min(choices.options["rate"], key=lambda rate: abs(rate - 0.00213))
    assert choices.decode(choices.encode(values))["rate"] == nearest
    with pytest.raises(DaquError, match="`rate` must be one of 0.0001 to 0.1, but received 0.2"):
        choices.encode({"rate": 0.2})


def test_what_is_missing_is_named():
    choices = Choices({"a": (1, 2), "b": (1, 2)}, {"b": (("a", (2,)),)})
    assert choices.missing((0, ABSENT)) is None
    assert choices.missing((1, ABSENT)) == "b"


def test_a_name_that_is_there_twice():
    space = keras_tuner.HyperParameters()
    space.Choice("kind", ["a", "b"])
    for kind in ("a", "b"):
        with space.conditional_scope("kind", [kind]):
            space.Int("units", 1, 3 if kind == "a" else 5)
    with pytest.raises(DaquError, match="`units` must be registered once"):
        choices_of(space)
