import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image

from daqu_tf.data import photos
from daqu_tf.data.photos import GREY, RGB, Preprocessing, decode, pixels_of
from daqu_tf.errors import DaquError

INT8 = Preprocessing((8, 8), "int8", scale=1 / 255, zero_point=-128)


def picture(height=30, width=40, channels=3, seed=0):
    """Noise that is a little smooth, uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (height + 1, width + 1, channels))
    return np.squeeze((noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) // 4).astype(np.uint8)


def saved(image, format="PNG", **how):
    """An open file that holds a picture or an array."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **how)
    file.seek(0)
    return file


def weights(size, given):
    """The triangle filter as a matrix (size, given): each row is the weights of one new pixel."""
    zoom = given / size
    distances = np.abs((np.arange(size)[:, None] + 0.5) * zoom - 0.5 - np.arange(given))
    found = np.maximum(0, 1 - distances / max(zoom, 1))
    return found / found.sum(1, keepdims=True)


def flat(color, mode):
    return Image.new(mode, (9, 9), color)


def palette(transparent):
    image = flat(3, "P")
    image.putpalette([0] * 9 + [200, 100, 50])
    image.info |= {"transparency": 3} if transparent else {}
    return image


@pytest.mark.parametrize(
    ("image", "format", "rgb"),
    [
        (flat((200, 100, 50), "RGB"), "PNG", (200, 100, 50)),
        (flat(90, "L"), "JPEG", (90, 90, 90)),
        (flat((200, 100, 50, 51), "RGBA"), "PNG", (244, 224, 214)),
        (flat((0, 0, 0, 0), "RGBA"), "PNG", (255, 255, 255)),
        (flat((80, 0), "LA"), "PNG", (255, 255, 255)),
        (palette(False), "PNG", (200, 100, 50)),
        (palette(True), "PNG", (255, 255, 255)),
        (flat((0, 255, 255, 0), "CMYK"), "TIFF", (255, 0, 0)),
        (flat((0, 255, 255, 0), "CMYK"), "JPEG", (254, 0, 0)),
        (flat(1, "1"), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((9, 9), 200 * 257, np.uint16)), "PNG", (200, 200, 200)),
        (Image.fromarray(np.full((9, 9), 200 * 257, np.int32)), "TIFF", (200, 200, 200)),
    ],
)
def test_a_photo_of_any_kind_has_the_channels_that_are_wanted(image, format, rgb):
    file = saved(image, format, **({"transparency": 3} if image.info.get("transparency") else {}))
    found = np.asarray(decode(file, RGB))
    assert found.shape == (9, 9, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - rgb).max() <= 1
    grey = np.asarray(decode(file, GREY))
    assert grey.shape == (9, 9) and np.abs(grey - np.dot(found[0, 0], (0.299, 0.587, 0.114))).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(orientation):
    # By the standard, which side of the picture lies first in the file, and where its rows begin.
    stored = picture()
    upright = stored.transpose(1, 0, 2) if orientation > 4 else stored
    upright = upright[::-1] if orientation in (3, 4, 7, 8) else upright
    upright = upright[:, ::-1] if orientation in (2, 3, 6, 7) else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(decode(saved(stored, exif=exif), RGB)), upright)
    np.testing.assert_array_equal(INT8.pixels(saved(stored, exif=exif)), INT8.pixels(saved(upright)))


@pytest.mark.parametrize("shape", [(30, 40), (40, 31), (8, 8), (5, 6), (401, 300)])
@pytest.mark.parametrize("size", [(8, 8), (12, 8), (7, 10)])
def test_the_centre_of_a_photo_is_brought_to_size_by_a_triangle_filter(shape, size):
    image = picture(*shape)
    zoom = min(shape[0] / size[0], shape[1] / size[1])
    height, width = (round(side * zoom) for side in size)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    inner = image[top : top + height, left : left + width].astype(float)
    expected = np.einsum("ij,jkc,lk->ilc", weights(size[0], height), inner, weights(size[1], width))
    found = pixels_of(saved(image), RGB, size)
    assert found.shape == (*size, 3) and np.abs(found - expected).max() <= 1


def test_a_photo_goes_by_way_of_the_size_that_was_trained_with():
    file = saved(picture(300, 200))
    two_steps = dataclasses.replace(INT8, source_size=(12, 12))
    source = pixels_of(file, RGB, (12, 12))
    np.testing.assert_array_equal(two_steps.pixels(file), INT8.pixels(saved(source)))
    assert two_steps.sizes == ((12, 12), (8, 8)) and dataclasses.replace(INT8, source_size=(8, 8)).sizes == ((8, 8),)
    grey = dataclasses.replace(two_steps, channels=GREY).pixels(file)
    assert grey.shape == (8, 8, 1)


@pytest.mark.parametrize("input_range", [(0, 1), (-1, 1), (0, 255), (-123.675, 131.325), (-2.2, 2.7)])
@pytest.mark.parametrize("form", ["int8", "uint8", "float32", "coarse"])
def test_pixels_become_the_numbers_that_the_formula_says(input_range, form):
    low, high = input_range
    step = (high - low) / 255
    kind = "int8" if form == "coarse" else form
    scale, black = (step * 1.7, round(-low / step / 1.7)) if form == "coarse" else (step, round(-low / step))
    zero_point = black - (128 if kind == "int8" else 0)
    tensor = {} if kind == "float32" else {"scale": scale, "zero_point": zero_point}
    way = Preprocessing((8, 8), kind, input_range, **tensor)
    pixels = np.arange(256, dtype=np.uint8)
    numbers = way.numbers(pixels)
    assert numbers.dtype == kind and way.takes_pixels == (form in ("int8", "uint8"))
    if way.takes_pixels:
        np.testing.assert_array_equal(numbers.astype(int) - np.iinfo(kind).min, pixels)
    real = low + pixels * step
    stood_for = numbers if kind == "float32" else (numbers.astype(float) - zero_point) * scale
    assert np.abs(stood_for - real).max() <= (1e-4 if kind == "float32" else scale * 0.5001 + (step / 2 if way.takes_pixels else 0))
    said = [eval(way.formula("pixel"), {"pixel": pixel}) for pixel in range(256)]
    np.testing.assert_allclose(numbers, said, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    "way", [INT8, dataclasses.replace(INT8, source_size=(12, 10), channels=GREY), Preprocessing((8, 6), "float32", (-1.0, 1.0))]
)
def test_what_is_stated_is_read_back(way):
    assert Preprocessing.from_json(way.to_json()) == way
    later = way.to_json() | {"something": "new"}
    assert Preprocessing.from_json(later) == way


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"filter": "bilinear"}, "`filter` of a preprocessing must be one of antialiased triangle, but received 'bilinear'"),
        ({"crop": "stretch"}, "`crop` of a preprocessing must be one of centre, but received 'stretch'"),
        ({"channels": "BGR"}, "`channels` of a preprocessing must be one of grey, RGB"),
        ({"size": "8 x 8"}, "A preprocessing is none"),
        ({"input_range": None}, "A preprocessing is none"),
    ],
)
def test_a_way_that_is_not_known_is_refused(change, sentence):
    with pytest.raises(DaquError, match=sentence):
        Preprocessing.from_json(INT8.to_json() | change)


def test_the_text_says_each_step():
    text = dataclasses.replace(INT8, source_size=(12, 10), channels=GREY).text()
    for words in (
        "EXIF", "one grey channel", "transparent parts on white", "rectangle of 10 to 12 around its centre",
        "to 10 x 12 pixels (width x height), and then to 8 x 8", "antialiased triangle filter", "`pixel - 128` as int8",
    ):  # fmt: skip
        assert words in text
    assert "the largest square" in INT8.text() and "red, green and blue" in INT8.text()
    assert "feed `pixel / 127.5 - 1` as float32" in Preprocessing((8, 8), "float32", (-1, 1)).text()


def cut(file, share):
    data = file.getvalue()
    return data[: math.ceil(len(data) * share)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no format that is known"),
        (b"a text, and no photo", "no format that is known"),
        (cut(saved(picture(), "JPEG"), 0.6), "cannot be read as an image"),
        (cut(saved(picture()), 0.6), "cannot be read as an image"),
        (saved(np.full((4, 4), 0.5, np.float32), "TIFF").getvalue(), "real numbers"),
        (saved(np.full((4, 4), 70_000, np.int32), "TIFF").getvalue(), "more than 16 bits"),
    ],
)
def test_what_is_no_photo_is_named(content, sentence, tmp_path):
    path = tmp_path / "some.jpg"
    path.write_bytes(content)
    with pytest.raises(DaquError, match=f"some.jpg .*{sentence}"):
        INT8.pixels(path)


def test_no_such_photo(tmp_path):
    with pytest.raises(DaquError, match="none.jpg does not exist: give the path of a photo"):
        INT8.pixels(tmp_path / "none.jpg")


def test_all_files_of_a_folder(tmp_path):
    for name in ("b.jpg", "a/c.png", ".hidden", "a/.d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert photos.in_folder(tmp_path) == [tmp_path / "a" / "c.png", tmp_path / "b.jpg"]
    with pytest.raises(DaquError, match="holds no files"):
        photos.in_folder(tmp_path / "a" / ".d" / "nothing")
