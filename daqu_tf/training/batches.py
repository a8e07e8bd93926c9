"""The batches of a training: cached images, augmented and prefetched, which depend on seed and step alone."""

import dataclasses

import tensorflow as tf

from daqu_tf.data import mirroring
from daqu_tf.data.dataset import Dataset
from daqu_tf.training.schedule import check_batch_size


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The augmentation of training images.

    Attributes:
        shift: The most pixels by which each image is moved along height and width, with edges repeated.
        mirror: Whether half of the images, at random, are mirrored.
    """

    shift: int
    mirror: bool

    @classmethod
    def of(cls, dataset: Dataset, name: str) -> "Augmentation":
        """The augmentation of a name; `auto` is the one that fits the data set.

        Photos, CIFAR among them, have CIFAR's usual one, which moves images of 32 pixels by four and mirrors them; other images are
        moved by a fourteenth of their height. With `auto`, images are mirrored where they keep their class in a mirror, as
        `data.mirroring` finds it, and Fashion-MNIST is, where that is known.

        Args:
            dataset: The data set, whose name, height and images decide.
            name: The name, one of `schedule.AUGMENTATIONS`.
        """
        cifar, fashion = (dataset.name.startswith(stem) for stem in ("cifar", "fashion_mnist"))
        photos = cifar or (name == "auto" and not fashion and _are_photos(dataset))
        mirror = (photos or fashion) if name == "auto" else name == "shift_mirror"
        return cls(0 if name == "none" else max(1, dataset.image_shape[0] // (8 if photos else 14)), mirror)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The augmented images (count, height, width, channels) of given ones.

        Args:
            images: The images (count, height, width, channels).
            seed: The seed (2,) of everything random.
        """
        if not (self.shift or self.mirror):
            return images
        count, (height, width) = tf.shape(images)[0], images.shape[1:3]
        down, right, coin = tf.unstack(tf.random.split(seed, 3))
        rows, columns = (
            tf.cast(tf.random.stateless_uniform([count], some, -self.shift, self.shift + 1, tf.int32), tf.float32)
            for some in (down, right)
        )
        mirrored = (tf.random.stateless_uniform([count], coin) < 0.5) & self.mirror
        # Where the pixel in a row and column of the result comes from: one kernel, in half the time of two gathers (ours).
        zero, one = tf.zeros([count]), tf.ones([count])
        start = tf.where(mirrored, columns + float(width - 1), columns)
        moves = tf.stack([tf.where(mirrored, -one, one), zero, start, zero, one, rows, zero, zero], axis=1)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=moves,
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="NEAREST",
            fill_mode="NEAREST",
        )


def _are_photos(dataset: Dataset) -> bool:
    """Whether the images keep their class in a mirror, as photos do."""
    return mirroring.keeps_classes(dataset.x_train, dataset.y_train, dataset.x_search, dataset.y_search)


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
        self._x, self._y = tf.constant(dataset.x_train), tf.one_hot(dataset.y_train, dataset.num_classes)
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
        images = self._augmentation(tf.gather(self._x, chosen), tf.stack([tf.constant(self._seed, tf.int64), step]))
        return images, tf.gather(self._y, chosen)
