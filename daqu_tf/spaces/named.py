"""The search spaces that come with the library, and the reader of a space from a file."""

import functools
import json
import os
import pathlib

from daqu_tf.errors import DaquError
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage


def _mobilenet_v3_imagenet() -> SearchSpace:
    """MobileNetV3 as Once-for-All searched it (Cai et al., ICLR 2020), but with elastic widths and no layer behind the pool."""
    elastic = functools.partial(Stage, depths=(2, 3, 4), kernels=(3, 5, 7), expansions=(3, 4, 6))
    return SearchSpace(
        name="mobilenet_v3_imagenet",
        input_shape=(224, 224, 3),
        num_classes=1000,
        stem_widths=(16,),
        stem_stride=2,
        stages=(
            Stage(widths=(16,), depths=(1,), kernels=(3,), expansions=(1,), stride=1),
            elastic(widths=(16, 24), stride=2),
            elastic(widths=(32, 40), stride=2, squeeze_excite=True),
            elastic(widths=(64, 80), stride=2, activation="hard_swish"),
            elastic(widths=(96, 112), stride=1, squeeze_excite=True, activation="hard_swish"),
            elastic(widths=(128, 160), stride=2, squeeze_excite=True, activation="hard_swish"),
        ),
        head_widths=(640, 960),
        resolutions=(128, 160, 192, 224),
        activation="hard_swish",
    )


def _mobilenet_v3_cifar() -> SearchSpace:
    """MobileNetV3 for images of 32x32, which the stem halves at once."""
    elastic = functools.partial(Stage, kernels=(3, 5), expansions=(3, 4, 6))
    return SearchSpace(
        name="mobilenet_v3_cifar",
        input_shape=(32, 32, 3),
        num_classes=10,
        stem_widths=(8, 16),
        stem_stride=2,
        stages=(
            Stage(widths=(8, 16), depths=(1,), kernels=(3,), expansions=(1,), stride=1),
            elastic(widths=(16, 24), depths=(1, 2), stride=2),
            elastic(widths=(24, 40), depths=(1, 2, 3), stride=1, squeeze_excite=True),
            elastic(widths=(40, 64, 80), depths=(1, 2, 3), stride=2, activation="hard_swish", squeeze_excite=True),
        ),
        head_widths=(128, 240),
        resolutions=(24, 28, 32),
        activation="hard_swish",
    )


def _resnet() -> SearchSpace:
    """Full convolutions for small images: ResNet-8's three stages of basic blocks, behind a stem that halves the image at once.

    A processor with dot products of 8 bits computes full convolutions so well that a network of these has three to five times the
    multiplications of a MobileNetV2 of the same latency, and trains as fast (ours, by measurement, on an AMD EPYC with VNNI). A
    network of width 1.0 has 16, 48 and 96 channels in one block a stage.
    """
    basic = functools.partial(Stage, block="basic", kernels=(3,), expansions=(1,))
    return SearchSpace(
        name="resnet",
        input_shape=(32, 32, 3),
        num_classes=10,
        stem_widths=(8, 16, 24),
        stem_stride=2,
        stages=(
            basic(widths=(), depths=(1, 2), stride=1),
            basic(widths=(16, 24, 32, 48), depths=(1, 2), stride=2),
            basic(widths=(32, 48, 64, 96), depths=(1, 2, 3), stride=2),
        ),
        head_widths=(),
        resolutions=(24, 28, 32),
        by_hand=(("stem.width", 16), ("stage1.depth", 1), ("stage2.depth", 1), ("stage3.depth", 1)),
    )


def _mobilenet_v2() -> SearchSpace:
    """Holds the MobileNetV2 that people scale by hand, block by block, for small images.

    A network of width 1.0 has 16, 24, 40 and 64 channels in 2, 2, 1 and 2 blocks. The first stage does not expand: most of a small
    network's time is spent before the second stride. All kernels are 3x3, since TensorFlow trains larger depthwise ones so slowly
    on a CPU that a network without them takes half the time a step.
    """
    elastic = functools.partial(Stage, kernels=(3,), expansions=(3, 4, 6))
    return SearchSpace(
        name="mobilenet_v2",
        input_shape=(32, 32, 3),
        num_classes=10,
        stem_widths=(8, 16),
        stem_stride=2,
        stages=(
            Stage(widths=(), depths=(1, 2), kernels=(3,), expansions=(1,), stride=1),
            elastic(widths=(8, 16, 24), depths=(1, 2), stride=2),
            elastic(widths=(16, 24, 32, 40), depths=(1, 2), stride=2),
            elastic(widths=(24, 32, 48, 64), depths=(1, 2, 3), stride=1),
        ),
        head_widths=(),
        resolutions=(24, 28, 32),
        by_hand=(
            ("stage3.depth", 1),
            ("stage4.depth", 2),
        ),
    )


def _mobilenet_v1() -> SearchSpace:
    """The MobileNetV1 that people put on microcontrollers, for small images: separable convolutions, and no sums to hold in memory.

    A network of width 1.0 has 16, 32, 64, 128 and 128 channels, the stem's first, in one block a stage.
    """
    separable = functools.partial(Stage, block="separable", kernels=(3,), expansions=(1,))
    return SearchSpace(
        name="mobilenet_v1",
        input_shape=(32, 32, 3),
        num_classes=10,
        stem_widths=(8, 16),
        stem_stride=2,
        stages=(
            separable(widths=(8, 16, 24, 32), depths=(1,), stride=1),
            separable(widths=(16, 24, 32, 48, 64), depths=(1, 2), stride=2),
            separable(widths=(32, 48, 64, 96, 128), depths=(1, 2), stride=2),
            separable(widths=(48, 64, 96, 128), depths=(1, 2, 3), stride=1),
        ),
        head_widths=(),
        resolutions=(24, 28, 32),
        by_hand=(("stage2.depth", 1), ("stage3.depth", 1), ("stage4.depth", 1)),
    )


def _mobilenet_v3() -> SearchSpace:
    """MobileNetV3 for small images: squeeze-excite in the later stages, hard-swish at both ends, and a head.

    A network of width 1.0 has 16, 24, 40 and 64 channels in 1, 2, 1 and 2 blocks, and a head of 192. All kernels are 3x3, as in
    `mobilenet_v2`.
    """
    elastic = functools.partial(Stage, kernels=(3,), expansions=(3, 4, 6))
    return SearchSpace(
        name="mobilenet_v3",
        input_shape=(32, 32, 3),
        num_classes=10,
        stem_widths=(8, 16),
        stem_stride=2,
        stages=(
            Stage(widths=(), depths=(1,), kernels=(3,), expansions=(1,), stride=1),
            elastic(widths=(8, 16, 24), depths=(1, 2), stride=2),
            elastic(widths=(16, 24, 32, 40), depths=(1, 2), stride=2, squeeze_excite=True),
            elastic(widths=(24, 32, 48, 64), depths=(1, 2, 3), stride=1, activation="hard_swish", squeeze_excite=True),
        ),
        head_widths=(64, 96, 144, 192),
        resolutions=(24, 28, 32),
        activation="hard_swish",
        by_hand=(("stage3.depth", 1), ("stage4.depth", 2)),
    )


def _mobilenet_v2_28() -> SearchSpace:
    """Holds the MobileNetV2 that people scale by hand, for images of 28x28.

    The stem halves the image at once, and the first stage does not expand: most of a small network's time is spent before the
    second stride. 5x5 kernels are few: TensorFlow trains them so slowly on a CPU that a network with only 3x3 ones takes half the
    time a step.
    """
    expansions = (3, 4, 6)
    return SearchSpace(
        name="mobilenet_v2_28",
        input_shape=(28, 28, 1),
        num_classes=10,
        stem_widths=(8, 16),
        stem_stride=2,
        stages=(
            Stage(widths=(8, 16), depths=(1, 2), kernels=(3,), expansions=(1,), stride=1),
            Stage(widths=(8, 16, 24), depths=(1, 2), kernels=(3,), expansions=expansions, stride=2),
            Stage(widths=(16, 24, 40), depths=(1, 2, 3), kernels=(3, 5), expansions=expansions, stride=2),
            Stage(widths=(24, 40, 64), depths=(1, 2), kernels=(3,), expansions=expansions, stride=1),
        ),
        head_widths=(64, 128),
        resolutions=(20, 24, 28),
    )


def _resnet_cifar() -> SearchSpace:
    """Holds the ResNet-20 of CIFAR (He et al., CVPR 2016), with a convolution in every stage's first shortcut."""
    basic = functools.partial(Stage, block="basic", depths=(1, 2, 3), expansions=(1, 2))
    return SearchSpace(
        name="resnet_cifar",
        input_shape=(32, 32, 3),
        num_classes=10,
        stem_widths=(8, 16),
        stem_stride=1,
        stages=(
            basic(widths=(8, 16), kernels=(3,), stride=1),
            basic(widths=(16, 24, 32), kernels=(1, 3), stride=2),
            basic(widths=(32, 48, 64), kernels=(1, 3), stride=2),
        ),
        head_widths=(),
        resolutions=(24, 28, 32),
    )


def _digits() -> SearchSpace:
    """A space for scikit-learn's handwritten digits of 8x8, whose supernet trains in a minute."""
    return SearchSpace(
        name="digits",
        input_shape=(8, 8, 1),
        num_classes=10,
        stem_widths=(4, 8, 16),
        stem_stride=1,
        stages=(
            Stage(widths=(4, 8, 16), depths=(1, 2), kernels=(3,), expansions=(1,), stride=1),
            Stage(widths=(8, 16, 32), depths=(1, 2), kernels=(3, 5), expansions=(2, 4), stride=2),
        ),
        head_widths=(16, 32, 64),
        resolutions=(6, 8),
    )


_NAMED = (
    _digits(),
    _resnet(),
    _mobilenet_v2(),
    _mobilenet_v1(),
    _mobilenet_v3(),
    _mobilenet_v2_28(),
    _mobilenet_v3_cifar(),
    _resnet_cifar(),
    _mobilenet_v3_imagenet(),
)
SPACES = {space.name: space for space in _NAMED}


def get(name: str | os.PathLike) -> SearchSpace:
    """The named space, or the space that a `.json` file describes.

    Args:
        name: One of `SPACES`, or the path of a `.json` file as `SearchSpace.to_json` describes a space.

    Raises:
        DaquError: There is no such space, or the file does not describe one.
    """
    if str(name).endswith(".json"):
        return _read(pathlib.Path(name))
    if name not in SPACES:
        raise DaquError(f"`space` must be one of {', '.join(SPACES)} or a .json file, but received {name!r}.")
    return SPACES[name]


def _read(path: pathlib.Path) -> SearchSpace:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DaquError(f"The space {path} cannot be read ({error.strerror}): give the path of a .json file.") from error
    except (ValueError, RecursionError) as error:
        raise DaquError(f"The space {path} is no JSON ({error}): `daqu-space --json` prints an example.") from error
    return SearchSpace.from_json(content)
