"""The batches of a training: images, augmented and prefetched, which depend on seed and step alone."""

import dataclasses
from collections.abc import Iterator

import tensorflow as tf

from daqu_tf.data import mirroring
from daqu_tf.data.dataset import Dataset
from daqu_tf.training.schedule import augmentation_parts, check_batch_size

ZOOM, COLOUR, CUTOUT = 0.35, 0.15, 0.35  # Where these are done; see `Augmentation`.


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The augmentation of training images.

    Attributes:
        shift: The most pixels by which each image is moved along height and width, with edges repeated.
        mirror: Whether half of the images, at random, are mirrored.
        zoom: The most by which the part of an image that is seen is smaller than it, as a share of its sides; what is seen may lie
            anywhere in the image. 0 sees all of it.
        colour: The most by which brightness is changed, and contrast, each as a share, and the saturation of images in colour by
            twice that.
        cutout: The side of a grey square at a random place, as a share of the height; 0 has none (DeVries and Taylor,
            arXiv:1708.04552).
    """

    shift: int
    mirror: bool
    zoom: float = 0.0
    colour: float = 0.0
    cutout: float = 0.0

    @classmethod
    def of(cls, dataset: Dataset, name: str) -> "Augmentation":
        """The augmentation of a name; `auto` is the one that fits the data set.

        Images are moved by a fourteenth of their height. With `auto`, those that keep their class in a mirror, as `data.mirroring`
        finds it of photos, are mirrored, and moved by an eighth.

        Args:
            dataset: The data set, whose images decide.
            name: The name, as `schedule.augmentation_parts` takes it.
        """
        parts = augmentation_parts(name)
        photos = parts is None and _keep_classes(dataset)
        if parts is None:
            parts = ("shift", "mirror") if photos else ("shift",)
        pixels = max(1, dataset.image_shape[0] // (8 if photos else 14))
        strengths = {"zoom": ZOOM, "colour": COLOUR, "cutout": CUTOUT}
        return cls(
            pixels if "shift" in parts else 0, "mirror" in parts, **{part: strengths[part] for part in parts if part in strengths}
        )

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The augmented images (count, height, width, channels) of given ones.

        Args:
            images: The images (count, height, width, channels), in [0, 1].
            seed: The seed (2,) of everything random.
        """
        seeds = iter(tf.unstack(tf.random.split(seed, 9)))
        images = self._moved(images, seeds) if self.shift or self.mirror or self.zoom else images
        images = self._recoloured(images, seeds) if self.colour else images
        return self._cut_out(images, seeds) if self.cutout else images

    def _moved(self, images: tf.Tensor, seeds: Iterator[tf.Tensor]) -> tf.Tensor:
        count, (height, width) = tf.shape(images)[0], images.shape[1:3]
        down, right, coin = next(seeds), next(seeds), next(seeds)
        mirrored = (_uniform(count, coin, 0.0, 1.0) < 0.5) & self.mirror
        seen = 1.0 - _uniform(count, next(seeds), 0.0, self.zoom) if self.zoom else tf.ones([count])
        # Where the pixel in a row and column of the result comes from: one kernel, in half the time of two gathers (ours).
        across, zero = tf.where(mirrored, -seen, seen), tf.zeros([count])
        left, top = (
            (1.0 - part) * (side - 1) / 2 + self._offset(count, some, 1.0 - seen, side)
            for part, side, some in ((across, width, right), (seen, height, down))
        )
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=tf.stack([across, zero, left, zero, seen, top, zero, zero], axis=1),
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR" if self.zoom else "NEAREST",
            fill_mode="NEAREST",
        )

    def _offset(self, count: tf.Tensor, seed: tf.Tensor, unseen: tf.Tensor, side: int) -> tf.Tensor:
        """By how many pixels each image is moved along a side; by whole ones where nothing is zoomed."""
        if not self.zoom:
            return tf.cast(tf.random.stateless_uniform([count], seed, -self.shift, self.shift + 1, tf.int32), tf.float32)
        return _uniform(count, seed, -1.0, 1.0) * (unseen * side / 2 + self.shift)

    def _recoloured(self, images: tf.Tensor, seeds: Iterator[tf.Tensor]) -> tf.Tensor:
        def factor(most: float) -> tf.Tensor:
            return _uniform(tf.shape(images)[0], next(seeds), -most, most)[:, tf.newaxis, tf.newaxis, tf.newaxis]

        grey = tf.reduce_mean(images, [1, 2, 3], keepdims=True)
        images = (images - grey) * (1.0 + factor(self.colour)) + grey + factor(self.colour)
        if images.shape[-1] == 3:
            grey = tf.reduce_mean(images, -1, keepdims=True)
            images = (images - grey) * (1.0 + factor(2 * self.colour)) + grey
        return tf.clip_by_value(images, 0.0, 1.0)

    def _cut_out(self, images: tf.Tensor, seeds: Iterator[tf.Tensor]) -> tf.Tensor:
        count, (height, width) = tf.shape(images)[0], images.shape[1:3]
        inside = []
        for side in (height, width):
            centre = _uniform(count, next(seeds), 0.0, float(side))[:, tf.newaxis]
            inside.append(tf.abs(tf.range(side, dtype=tf.float32) + 0.5 - centre) < self.cutout * height / 2)
        rows, columns = inside
        return tf.where((rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :])[..., tf.newaxis], 0.5, images)


def _uniform(count: tf.Tensor, seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform([count], seed, low, high)


def _keep_classes(dataset: Dataset) -> bool:
    """Whether the images keep their class in a mirror, as photos do."""
    return mirroring.keeps_classes(dataset.x_train, dataset.y_train, dataset.x_search, dataset.y_search)


def taught_labels(labels: tf.Tensor, opinion: tf.Tensor, share: float) -> tf.Tensor:
    """The mean of labels and a teacher's opinion, in which each image keeps the weight of its class.

    Args:
        labels: The labels (batch, classes), as `Batches` gives them.
        opinion: The probabilities (batch, classes) of the teacher.
        share: The share of the opinion, in [0, 1].
    """
    return (1 - share) * labels + share * opinion * tf.reduce_sum(labels, -1, keepdims=True)


class Batches:
    """The training batches of all steps.

    Args:
        dataset: The data set, of which the train split is used. In an epoch each image comes at most once; those that do not fill a
            batch are left out, and are others in each epoch.
        batch_size: The number of images in a batch.
        seed: The seed of order and augmentation.
        augmentation: The augmentation of the images.

    Attributes:
        per_epoch: The number of batches in an epoch.

    Raises:
        DaquError: There are fewer images than a batch has.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, augmentation: Augmentation):
        check_batch_size(batch_size, len(dataset.x_train))
        self._size, self._seed, self._count = batch_size, seed, len(dataset.x_train)
        self._augmentation = augmentation
        self._images, self._y = dataset.x_train, tf.one_hot(dataset.y_train, dataset.num_classes)
        if dataset.class_weights:  # The loss is linear in what is taught, so that this weighs it.
            self._y *= tf.gather(tf.constant(dataset.class_weights, tf.float32), dataset.y_train)[:, tf.newaxis]
        self.per_epoch = self._count // batch_size

    def starting_at(self, step: int) -> tf.data.Dataset:
        """The batches from a step on: images (batch, height, width, channels) in [0, 1] and labels (batch, classes).

        A row of labels is 0 but for the image's class, where it is 1, or the weight of the class.
        """
        steps = tf.data.Dataset.range(step, tf.int64.max)
        return steps.map(self._batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)

    def _batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, position = step // self.per_epoch, step % self.per_epoch
        order = tf.stack([tf.constant(self._seed, tf.int64), epoch])
        places = position * self._size + tf.range(self._size, dtype=tf.int64)
        chosen = tf.random.experimental.index_shuffle(places, order, self._count - 1)
        # They may be mapped from a file that is larger than the memory, which TensorFlow cannot gather from.
        images = tf.numpy_function(self._images.__getitem__, [chosen], tf.float32, stateful=False)
        images = tf.ensure_shape(images, (self._size, *self._images.shape[1:]))
        return self._augmentation(images, tf.stack([tf.constant(self._seed, tf.int64), step])), tf.gather(self._y, chosen)
