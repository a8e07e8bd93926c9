"""The named search spaces."""

from daqu_tf.errors import DaquError
from daqu_tf.space import SearchSpace, Stage

SPACES = {
    space.name: space
    for space in (
        SearchSpace(
            name="digits",
            input_shape=(8, 8, 1),
            num_classes=10,
            stem_widths=(8, 16),
            stem_stride=1,
            stages=(
                Stage(widths=(4, 8, 16), depths=(1, 2), kernels=(3,), expansions=(1,), stride=1),
                Stage(widths=(8, 16, 32), depths=(1, 2), kernels=(3, 5), expansions=(2, 4), stride=2),
            ),
            head_widths=(16, 32, 64),
        ),
        # Holds the MobileNetV2 that people scale by hand. The stem halves the image at once, and the first stage does not
        # expand: most of a small network's time is spent before the second stride.
        SearchSpace(
            name="mobilenet_v2_28",
            input_shape=(28, 28, 1),
            num_classes=10,
            stem_widths=(8, 16),
            stem_stride=2,
            stages=(
                Stage(widths=(8, 16), depths=(1, 2), kernels=(3, 5), expansions=(1,), stride=1),
                Stage(widths=(8, 16, 24), depths=(1, 2), kernels=(3, 5), expansions=(3, 4, 6), stride=2),
                Stage(widths=(16, 24, 40), depths=(1, 2, 3), kernels=(3, 5), expansions=(3, 4, 6), stride=2),
                Stage(widths=(24, 40, 64), depths=(1, 2), kernels=(3, 5), expansions=(3, 4, 6), stride=1),
            ),
            head_widths=(64, 128),
        ),
    )
}


def get(name: str) -> SearchSpace:
    """Returns the named space.

    Raises:
        DaquError: There is no such space.
    """
    if name not in SPACES:
        raise DaquError(f"`space` must be one of {', '.join(SPACES)}, but received {name!r}.")
    return SPACES[name]
