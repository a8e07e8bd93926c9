"""What a practitioner ships without a search: a series of hand-scaled MobileNetV2, trained, then 8-bit QAT by TFMOT or PTQ.

    python benchmarks/practitioner.py --dataset=fashion_mnist.npz --widths=0.35,0.5,1.0 --minutes=13.3 --output_dir=series

Stock tf_keras on one core, on the training images that daqu_tf trains on, moved and mirrored as daqu_tf does it. Each width gets
its minutes of processor time, in which it is built, traced and trained, so that what else runs on the machine takes nothing from
it. Of QAT and PTQ the one counts that is more accurate on the search split. Writes `width_W.tflite` and `width_W.json` for each; a
width that is already there with the same settings is not trained again. The test images are scored once, at the end, and decide
nothing.

`--application --image_size=96` trains MobileNetV2 as tf_keras.applications has it, and keeps its float weights as `width_W.keras`.
`--init_from=width_W.keras --image_size=96` fine-tunes such a network, with a new classifier.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from absl import app, flags, logging
from ai_edge_litert.interpreter import Interpreter

from daqu_tf import data
from daqu_tf.data import Dataset
from daqu_tf.data.reading import Reading
from daqu_tf.training.batches import Augmentation

_DATASET = flags.DEFINE_string("dataset", None, "The data set, as daqu-run takes it.", required=True)
_WIDTHS = flags.DEFINE_list("widths", ["0.35", "0.5", "1.0"], "Width multipliers.")
_MINUTES = flags.DEFINE_float("minutes", 5.0, "Minutes of training for each width.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 8e-3, "Peak of the cosine schedule before QAT.")
_SEED = flags.DEFINE_integer("seed", 0, "Seeds weights, batches and augmentation.")
_IMAGE_SIZE = flags.DEFINE_string("image_size", "auto", "The size of photos, as daqu-run takes it.")
_AUGMENTATION = flags.DEFINE_string("augmentation", "auto", "What is done to training images: auto, shift, or shift,mirror.")
_APPLICATION = flags.DEFINE_bool("application", False, "MobileNetV2 as tf_keras.applications has it, of pixels in [-1, 1].")
_INIT_FROM = flags.DEFINE_string("init_from", None, "A .keras file of --application, which is fine-tuned.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where the files go.", required=True)
_QUICK = flags.DEFINE_bool("quick", False, "A coarse form of about a minute: the first of --widths, trained for 15 seconds.")

BATCH = 128
WEIGHT_DECAY = 0.02
STAGES = ((16, 2, 1), (24, 2, 2), (40, 1, 2), (64, 2, 1))  # channels, blocks, stride: 14 -> 14 -> 7 -> 4 -> 4
EXPANSION = 6
QAT_SHARE = 0.25  # of the minutes
MIN_STEPS = 30  # however short the minutes: the ranges of QAT have to see some batches
QAT_LEARNING_RATE = 0.1  # of the peak before QAT
CALIBRATION_IMAGES = 500

Arrays = tuple[np.ndarray, np.ndarray]


def scaled(channels: int, width: float) -> int:
    """Returns `channels * width` as MobileNetV2 rounds it: a multiple of 8, never more than 10% below the product."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _normalised(x: tf.Tensor, layer: keras.layers.Layer, relu: bool = True) -> tf.Tensor:
    # Keras' momentum of 0.99 would leave statistics behind that a run of a few thousand steps has not caught up with.
    x = keras.layers.BatchNormalization(momentum=0.9)(layer(x))
    return keras.layers.ReLU(6.0)(x) if relu else x


def _inverted_residual(x: tf.Tensor, channels: int, expansion: int, stride: int) -> tf.Tensor:
    shortcut = x
    if expansion > 1:
        x = _normalised(x, keras.layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False))
    x = _normalised(x, keras.layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False))
    x = _normalised(x, keras.layers.Conv2D(channels, 1, use_bias=False), relu=False)
    return keras.layers.Add()([shortcut, x]) if shortcut.shape == x.shape else x


def mobilenet_v2(shape: tuple[int, int, int], classes: int, width: float) -> keras.Model:
    """Returns a MobileNetV2 for small images, which takes pixels in [0, 1] and gives logits."""
    inputs = keras.Input(shape)
    stem = keras.layers.Conv2D(scaled(16, width), 3, 2, padding="same", use_bias=False)
    x = _normalised(inputs, stem)
    for index, (channels, blocks, stride) in enumerate(STAGES):
        for block in range(blocks):
            x = _inverted_residual(x, scaled(channels, width), EXPANSION if index else 1, 1 if block else stride)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def application(shape: tuple[int, int, int], classes: int, width: float) -> keras.Model:
    """Returns MobileNetV2 as tf_keras.applications has it, which takes pixels in [-1, 1] and gives logits."""
    return keras.applications.MobileNetV2(shape, width, weights=None, classes=classes, classifier_activation=None)


def fine_tuned(path: str, classes: int) -> keras.Model:
    """Returns the network of a .keras file of `application` with a new classifier."""
    model = keras.models.load_model(path, compile=False)
    return keras.Model(model.input, keras.layers.Dense(classes)(model.layers[-2].output))


def seen(images: np.ndarray) -> np.ndarray:
    """Returns images in [0, 1] as the network takes them."""
    return 2 * images - 1 if _APPLICATION.value or _INIT_FROM.value else images


def augmented(images: np.ndarray, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Returns `images`, each moved by up to `how.shift` pixels and, if wanted, half of them mirrored, in one gather."""
    count, rows, columns, _ = images.shape
    row = np.arange(rows) + rng.integers(0, 2 * how.shift + 1, (count, 1))
    column = np.arange(columns) + rng.integers(0, 2 * how.shift + 1, (count, 1))
    if how.mirror:
        column = np.where(rng.random((count, 1)) < 0.5, column, column[:, ::-1])
    border = (how.shift, how.shift)
    padded = np.pad(images, ((0, 0), border, border, (0, 0)))
    return padded[np.arange(count)[:, None, None], row[:, :, None], column[:, None, :]]


def _batches(dataset: Dataset, rng: np.random.Generator) -> Iterator[Arrays]:
    images, labels, how = dataset.x_train, dataset.y_train, Augmentation.of(dataset, _AUGMENTATION.value)
    while True:
        order = rng.permutation(len(labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            index = order[start : start + BATCH]
            yield seen(augmented(images[index], how, rng)), labels[index]


def _optimizer() -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.AdamW(weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _step(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Callable[[np.ndarray, np.ndarray], None]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(input_signature=[tf.TensorSpec([BATCH, *model.input_shape[1:]]), tf.TensorSpec([BATCH], tf.int32)])
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))

    return step


def fit(model: keras.Model, batches: Iterator[Arrays], peak: float, begin: float, end: float) -> int:
    """Trains until the clock of this process shows `end`, but `MIN_STEPS` at least; the cosine runs over time, down to zero.

    Returns:
      The number of steps.
    """
    optimizer = _optimizer()
    step = _step(model, optimizer)
    for count, (images, labels) in enumerate(batches):
        progress = min(1.0, (time.process_time() - begin) / (end - begin))
        if progress == 1 and count >= MIN_STEPS:
            return count
        optimizer.learning_rate.assign(peak * (1 + math.cos(math.pi * progress)) / 2)
        step(images, labels.astype(np.int32))


def accuracy(model: keras.Model, test: Arrays) -> float:
    """Returns the share of `test` that `model` labels rightly."""
    images, labels = test
    return float(np.mean(model.predict(images, batch_size=500, verbose=0).argmax(-1) == labels))


def tflite_accuracy(content: bytes, test: Arrays) -> float:
    """Returns the share of `test` that the .tflite `content` labels rightly, image by image as on a device."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    right = 0
    for image, label in zip(*test):
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        right += int(interpreter.get_tensor(sink).argmax() == label)
    return right / len(test[1])


def converted(model: keras.Model, calibration: np.ndarray | None = None) -> bytes:
    """Returns the int8 .tflite of a QAT model, or of a float model by post-training quantization with images to calibrate it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if calibration is not None:
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    return converter.convert()


def _network(settings: dict, dataset: Dataset) -> keras.Model:
    if _INIT_FROM.value:
        return fine_tuned(_INIT_FROM.value, dataset.num_classes)
    make = application if _APPLICATION.value else mobilenet_v2
    return make(dataset.image_shape, dataset.num_classes, settings["width"])


def baseline(settings: dict, dataset: Dataset, keep: pathlib.Path) -> tuple[bytes, dict]:
    """Trains, quantizes and converts one network.

    Args:
      settings: The minutes, the width, the peak learning rate and the seed.
      dataset: The data set.
      keep: Where the float network of `--application` is kept.

    Returns:
      The .tflite and the figures that belong to it.
    """
    begin = time.process_time()
    end = begin + 60 * settings["minutes"]
    qat_begin = end - QAT_SHARE * (end - begin)
    keras.utils.set_random_seed(settings["seed"])
    batches = _batches(dataset, np.random.default_rng(settings["seed"]))
    model = _network(settings, dataset)
    steps = fit(model, batches, settings["learning_rate"], begin, qat_begin)
    if _APPLICATION.value:
        model.save(keep)
    by_calibration = converted(model, seen(dataset.x_train[:CALIBRATION_IMAGES]))
    qat = tfmot.quantization.keras.quantize_model(model)
    qat_steps = fit(qat, batches, settings["learning_rate"] * QAT_LEARNING_RATE, qat_begin, end)
    by_training = converted(qat)
    search, test = (seen(np.asarray(dataset.x_search)), dataset.y_search), (seen(np.asarray(dataset.x_test)), dataset.y_test)
    found = {name: (tflite_accuracy(each, search), each) for name, each in (("qat", by_training), ("ptq", by_calibration))}
    kept = max(found, key=lambda name: found[name][0])
    content = found[kept][1]
    return content, {
        "minutes_taken": (time.process_time() - begin) / 60,
        "float_steps": steps,
        "qat_steps": qat_steps,
        "images": BATCH * (steps + qat_steps),
        "search_accuracy": {name: accuracy for name, (accuracy, _) in found.items()},
        "kept": kept,
        "float_accuracy": accuracy(model, test),
        "tflite_accuracy": tflite_accuracy(content, test),
        "file_bytes": len(content),
        "parameters": model.count_params(),
    }


def _settings() -> list[dict]:
    """Returns the settings of each network, as the flags ask for them."""
    widths, minutes = (_WIDTHS.value[:1], 0.25) if _QUICK.value else (_WIDTHS.value, _MINUTES.value)
    common = {"dataset": os.path.basename(_DATASET.value), "seed": _SEED.value, "learning_rate": _LEARNING_RATE.value}
    if _AUGMENTATION.value != "auto":
        common |= {"augmentation": _AUGMENTATION.value}
    if _APPLICATION.value or _INIT_FROM.value:
        common |= {"image_size": _IMAGE_SIZE.value, "init_from": os.path.basename(_INIT_FROM.value or "random weights")}
    return [{**common, "width": float(width), "minutes": minutes} for width in widths]


def _done(path: pathlib.Path, settings: dict) -> bool:
    return path.exists() and json.loads(path.read_text())["settings"] == settings


def main(argv: list[str]) -> None:
    """Makes the baselines that `--output_dir` does not hold yet."""
    del argv
    logging.set_verbosity(logging.WARNING)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    folder = pathlib.Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = data.load(_DATASET.value, _SEED.value, how=Reading(image_size=_IMAGE_SIZE.value))
    for settings in _settings():
        path = folder / f"width_{settings['width']:g}.json"
        if not _done(path, settings):
            content, figures = baseline(settings, dataset, path.with_suffix(".keras"))
            path.with_suffix(".tflite").write_bytes(content)
            # Written last: a width counts as done when its figures are there.
            path.write_text(json.dumps({"settings": settings, "figures": figures}, indent=1) + "\n")
        print(path, path.read_text(), flush=True)


if __name__ == "__main__":
    app.run(main)
