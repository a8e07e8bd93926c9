"""The named search spaces, and those of a user's own."""

import json
import pathlib

from daqu_tf.errors import DaquError
from daqu_tf.space import SearchSpace, Stage

SPACES = {
    space.name: space
    for space in (
        SearchSpace(
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
        ),
        # Holds the MobileNetV2 that people scale by hand. The stem halves the image at once, and the first stage does not
        # expand: most of a small network's time is spent before the second stride. 5x5 kernels are few: TensorFlow trains them so
        # slowly on a CPU that a network with only 3x3 ones takes half the time a step.
        SearchSpace(
            name="mobilenet_v2_28",
            input_shape=(28, 28, 1),
            num_classes=10,
            stem_widths=(8, 16),
            stem_stride=2,
            stages=(
                Stage(widths=(8, 16), depths=(1, 2), kernels=(3,), expansions=(1,), stride=1),
                Stage(widths=(8, 16, 24), depths=(1, 2), kernels=(3,), expansions=(3, 4, 6), stride=2),
                Stage(widths=(16, 24, 40), depths=(1, 2, 3), kernels=(3, 5), expansions=(3, 4, 6), stride=2),
                Stage(widths=(24, 40, 64), depths=(1, 2), kernels=(3,), expansions=(3, 4, 6), stride=1),
            ),
            head_widths=(64, 128),
        ),
    )
}


def get(name: str) -> SearchSpace:
    """Returns the named space, or the one that a `.json` file describes.

    Raises:
        DaquError: There is no such space, or the file does not describe one.
    """
    if name.endswith(".json"):
        return _read(pathlib.Path(name))
    if name not in SPACES:
        raise DaquError(f"`space` must be one of {', '.join(SPACES)} or a .json file, but received {name!r}.")
    return SPACES[name]


def _read(path: pathlib.Path) -> SearchSpace:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise DaquError(f"The space {path} cannot be read ({error.strerror}): give the path of a .json file.") from error
    except ValueError as error:
        raise DaquError(f"The space {path} is no JSON ({error}): `daqu-space --json` prints an example.") from error
    return SearchSpace.from_json(content)
