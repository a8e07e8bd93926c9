"""A job that begins from a trained network: its space, its photos' size, and that the finalists begin where it ended."""

import dataclasses
import types

import numpy as np
import pytest
from PIL import Image

from daqu_tf import RunConfig, data, files
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import Manifest
from daqu_tf.keras import keras
from daqu_tf.pipeline import pipeline
from daqu_tf.pipeline.finalist import TAUGHT_SHARE
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.rates import TRIED, best_rate
from daqu_tf.spaces.hand_scaled import reduced
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.supernet.supernet import Supernet

layers = keras.layers


def separable(shape, classes, widths=(16, 32, 48)):
    """A MobileNetV1 for small images, whose first separable block halves them."""
    inputs = keras.Input(shape)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.8)(layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)))
    for stride, width in zip((2, 1, 2), widths):
        for layer in (layers.DepthwiseConv2D(3, stride, "same", use_bias=False), layers.Conv2D(width, 1, use_bias=False)):
            x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.8)(layer(x)))
    return keras.Model(inputs, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)), name="little")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that tells digits apart, in a file, and its accuracy on the search split."""
    keras.utils.set_random_seed(0)
    digits, model = data.load("digits", 0), separable((8, 8, 1), 10)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    model.fit(np.asarray(digits.x_train), digits.y_train, batch_size=64, epochs=12, verbose=0)
    model.save(path := tmp_path_factory.mktemp("trained") / "little.keras")
    return path, model.evaluate(np.asarray(digits.x_search), digits.y_search, verbose=0)[1]


def config(path, folder, **settings):
    return RunConfig("digits", str(folder), init_from=str(path), architectures="hand_scaled", **settings)


def test_the_supernet_begins_as_accurate_as_the_network(trained, tmp_path):
    path, accuracy = trained
    plan = Plan.of(config(path, tmp_path))
    assert plan.space.name == "little" and plan.start.keeps_classifier and accuracy > 0.9
    assert [stage.block for stage in plan.space.stages] == ["separable"] * 3
    supernet = Supernet(plan.space)
    supernet.load_arrays(plan.start.arrays)
    supernet.activate(plan.space.largest().with_bits(32, 32))
    found = Scorer(supernet, plan.dataset.x_train).accuracy(plan.dataset.x_search, plan.dataset.y_search)
    assert found == pytest.approx(accuracy, abs=1e-6)


def test_another_classifier_where_there_are_other_classes(trained, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "three.npz", x_train=rng.integers(0, 256, (90, 8, 8), np.uint8), y_train=np.arange(90) % 3)
    plan = Plan.of(RunConfig(str(tmp_path / "three.npz"), str(tmp_path / "run"), init_from=str(trained[0])))
    assert not plan.start.keeps_classifier and plan.start.arrays["classifier/kernel"].shape == (48, 3)


def test_smaller_forms_lose_pixels_first_and_channels_then(trained, tmp_path):
    space = Plan.of(config(trained[0], tmp_path)).space
    found = reduced(space)
    assert found[-1] == space.largest() and len(set(found)) == len(found)
    sides = [subnet["resolution"] for subnet in found]
    assert sides == sorted(sides)
    assert all(subnet["stage3.width"] == 48 for subnet in found if subnet["resolution"] > min(sides))


def test_photos_are_read_at_the_size_of_the_network(tmp_path):
    for label in ("a", "b"):
        for number in range(6):
            path = tmp_path / "photos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    separable((16, 24, 3), 2).save(tmp_path / "model.h5")
    settings = {"init_from": str(tmp_path / "model.h5"), "cache_dir": str(tmp_path / "cache"), "batch_size": 2}
    plan = Plan.of(RunConfig(str(tmp_path / "photos"), str(tmp_path / "run"), **settings))
    assert plan.dataset.image_shape == (16, 24, 3) and plan.config.image_size == "16x24"
    assert (
        Plan.of(RunConfig(str(tmp_path / "photos"), str(tmp_path / "run"), image_size="12", **settings)).space.input_shape[0] == 12
    )


def test_what_does_not_go_with_a_network_is_refused(trained, tmp_path):
    with pytest.raises(DaquError, match="`space` has no effect with `init_from`"):
        config(trained[0], tmp_path, space="resnet")
    with pytest.raises(DaquError, match="`begin_with` has no effect with `init_from`"):
        config(trained[0], tmp_path, begin_with="random")
    with pytest.raises(DaquError, match="does not exist: give a .keras or .h5 file"):
        Plan.of(config(tmp_path / "missing.h5", tmp_path))
    separable((8, 8, 1), 10).save(tmp_path / "grey.h5")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "colour.npz", x_train=rng.integers(0, 256, (90, 8, 8, 3), np.uint8), y_train=np.arange(90) % 3)
    with pytest.raises(DaquError, match="takes images of 1 channels, but those of the data set have 3"):
        Plan.of(RunConfig(str(tmp_path / "colour.npz"), str(tmp_path / "run"), init_from=str(tmp_path / "grey.h5")))


@pytest.mark.slow
def test_a_job_goes_on_from_the_network(trained, tmp_path):
    path, accuracy = trained
    pipeline.run(settings := config(path, tmp_path / "run", finetune_epochs=3, finalists=2, batch_size=32))
    front = files.read_json(tmp_path / "run" / "pareto.json")["members"]
    best = max(member["accuracy"]["file"]["search"] for member in front)
    assert best > accuracy - 0.02  # From random weights, three epochs are not enough.
    assert Plan.in_folder(tmp_path / "run").start is None
    before = (tmp_path / "run" / "pareto.json").read_bytes()
    assert pipeline.run(settings) and (tmp_path / "run" / "pareto.json").read_bytes() == before
    assert Manifest.read(tmp_path / "run" / "finalists" / "m00.json").fine_tuning["float_share"] > 0
    rates = {
        member["learning_rate"]
        for member in files.read_json(tmp_path / "run" / "finalists.json").values()
        if "parent" not in member
    }
    assert len(rates) == 1 and rates <= {share * settings.how_to_fine_tune["learning_rate"] for share in TRIED}
    tuned = Manifest.read(tmp_path / "run" / "finalists" / "m00.json").fine_tuning
    assert tuned["learning_rate"] in rates and not list((tmp_path / "run").glob("rate*"))


def test_a_learning_rate_that_was_asked_for_is_taken_untried(trained, tmp_path):
    plan = Plan.of(config(trained[0], tmp_path, learning_rate=3e-4))
    assert best_rate(types.SimpleNamespace(plan=plan, folder=plan.folder), plan.space.smallest()) == pytest.approx(1.2e-4)


@pytest.mark.slow
def test_a_network_that_teaches_alone(trained, tmp_path):
    """It is no start: the space is another, and all begin with random weights."""
    path, _ = trained
    settings = RunConfig(
        "digits",
        str(tmp_path / "run"),
        space="digits",
        architectures="hand_scaled",
        finetune_epochs=2,
        finalists=1,
        teacher=str(path),
    )
    pipeline.run(settings)
    tuned = Manifest.read(tmp_path / "run" / "finalists" / "m00.json").fine_tuning
    assert tuned["distillation"] == TAUGHT_SHARE and Plan.in_folder(tmp_path / "run").space.name == "digits"
    assert pipeline.run(settings)  # It goes on without the teacher's being asked again.
    with pytest.raises(DaquError, match="other settings .--teacher was"):
        pipeline.run(dataclasses.replace(settings, teacher=""))


def test_a_teacher_is_looked_at_before_the_work(trained, tmp_path, capsys):
    settings = RunConfig("digits", str(tmp_path / "run"), space="digits", teacher=str(trained[0]), budget_minutes=5)
    assert "% of the search split, with pixels from 0 to 1; " in (pipeline.dry_run(settings), capsys.readouterr().err)[1]
    keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)]).save(path := tmp_path / "three.keras")
    with pytest.raises(DaquError, match="`teacher` must put out one number for each of the 10 classes"):
        pipeline.run(dataclasses.replace(settings, teacher=str(path)))
    assert not (tmp_path / "run").exists()
