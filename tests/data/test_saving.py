"""Data sets of `tf.data` become files, and files data sets again."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from daqu_tf import data
from daqu_tf.data import save
from daqu_tf.errors import DaquError
from daqu_tf.keras import keras

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (90, 8, 10, 3), np.uint8), np.arange(90) % 3


def of(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


@pytest.mark.parametrize(
    "dataset",
    [
        of(IMAGES, LABELS),
        of(IMAGES, LABELS).batch(7),
        of(IMAGES.astype(np.float32), np.eye(3)[LABELS]).batch(16),
        of(IMAGES, LABELS).map(lambda image, label: {"image": image, "label": label}),
        of(IMAGES, LABELS[:, None]).batch(90),
    ],
)
def test_every_usual_form_gives_the_same_file(tmp_path, dataset):
    path = save(tmp_path / "set.npz", dataset, class_names=["a", "b", "c"])
    with np.load(path) as found:
        assert found["x_train"].dtype == np.uint8
        np.testing.assert_array_equal(found["x_train"], IMAGES)
        np.testing.assert_array_equal(found["y_train"], LABELS)
    assert data.load(path).class_names == ("a", "b", "c")


def test_splits_and_numbers_that_are_no_bytes_are_kept(tmp_path):
    images = IMAGES / np.float32(255)
    path = save(tmp_path / "set.npz", of(images, LABELS), val=of(images[:30], LABELS[:30]), test=of(images[:60], LABELS[:60]))
    found = data.load(path)
    assert (len(found.y_train), len(found.y_search), len(found.y_test)) == (90, 30, 60)
    np.testing.assert_allclose(found.x_test, images[:60], atol=1e-6)


def test_a_keras_folder_keeps_its_class_names(tmp_path):
    for number, image in enumerate(IMAGES):
        folder = tmp_path / "photos" / ("cat", "dog", "hen")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    found = keras.utils.image_dataset_from_directory(tmp_path / "photos", image_size=(8, 10), shuffle=False)
    loaded = data.load(save(tmp_path / "set.npz", found))
    assert loaded.class_names == ("cat", "dog", "hen") and loaded.image_shape == (8, 10, 3)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (lambda: [1], "`train` must be a tf.data.Dataset, but received list"),
        (lambda: of(IMAGES), "elements of another form"),
        (lambda: of(LABELS, LABELS), "images of shape"),
        (lambda: of(IMAGES, LABELS).take(0), "`train` holds no images"),
        (
            lambda: tf.data.Dataset.from_generator(
                lambda: ((np.zeros((side, 8, 3)), 0) for side in (8, 9)),
                output_signature=(tf.TensorSpec([None, 8, 3]), tf.TensorSpec([], tf.int32)),
            ),
            "differ in size",
        ),
    ],
)
def test_other_forms_are_refused_in_a_sentence(tmp_path, dataset, message):
    with pytest.raises(DaquError, match=message):
        save(tmp_path / "set.npz", dataset())
    assert not (tmp_path / "set.npz").exists()
    with pytest.raises(DaquError, match="must end in .npz"):
        save(tmp_path / "set.zip", of(IMAGES, LABELS))
