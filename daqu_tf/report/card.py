"""The card of the models: one Markdown file beside them, for people who put a model into an application."""

import html
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from daqu_tf.data.photos import GREY, Preprocessing
from daqu_tf.errors import DaquError
from daqu_tf.report.page import headline
from daqu_tf.report.run import Member, Run, member_of
from daqu_tf.report.text import figure, percent, standard_error, timed_by
from daqu_tf.runs.commands import run_command

_SHOWN_LABELS = 100
_CODE = """\
import io
import sys
import zipfile
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

photo = ImageOps.exif_transpose(Image.open(sys.argv[1]))
if photo.has_transparency_data:
    photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo.convert("RGBA"))
photo = photo.convert("{mode}")
zoom = min(photo.width / {source_width}, photo.height / {source_height})
width, height = round({source_width} * zoom), round({source_height} * zoom)
left, top = (photo.width - width) // 2, (photo.height - height) // 2
photo = photo.crop((left, top, left + width, top + height))
for size in {sizes}:  # Width and height.
    photo = photo.resize(size, Image.Resampling.BILINEAR)
pixel = np.asarray(photo).reshape({shape}).astype(np.float64)

model = open("{file}", "rb").read()
labels = zipfile.ZipFile(io.BytesIO(model)).read("labels.txt").decode().splitlines()
classify = Interpreter(model_content=model).get_signature_runner()
logits = classify(image=({formula}).astype(np.{type}))["classifier"][0].astype(np.float64)
step, zero = classify.get_output_details()["classifier"]["quantization"]
logits = (logits - zero) * step if step else logits
scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print(f"{{labels[scores.argmax()]}} {{scores.max():.1%}}")
"""

_MEDIAPIPE = (
    "For a file that takes 8-bit pixels as they are, as MediaPipe's ImageClassifier needs it: `daqu-export --run={run} "
    "--subnet={name} --fine_tuned --input_type=uint8 --output_type=uint8 --output={name}_uint8.tflite`."
)


def write(run: Run, run_folder: str = "..", about: str = "") -> str:
    """The Markdown text of the card of a run's models; what the run does not tell is left out.

    Args:
        run: The run.
        run_folder: The folder of the run, as seen from the card.
        about: What the card says first; the result of the run by default.
    """
    data = run.config.get("dataset") or {}
    title = f"Image classifiers for {data.get('name', 'a data set')}, on {run.config.get('target', 'an unnamed target')}"
    picture = f"![Accuracy over each cost]({run_folder}/pareto.png)" if len(run.members) > 1 else ""
    parts = [f"# {_text(title)}", _text(about or headline(run)), picture, _table(run), _notes(run)]
    first = next((member for member in run.front if member.input.keys() >= {"offset", "scale"}), None)
    if first:
        feeding = _photos(first, first.preprocessing) if first.preprocessing else [_arrays(first)]
        parts += ["## How to feed them", *feeding, _MEDIAPIPE.format(name=first.name, run=run_folder)]
    names = next((member.class_names for member in run.members if member.class_names), ())
    if names:
        parts += ["## Classes", _classes(names)]
    return "\n\n".join(filter(None, [*parts, "## How they were made", _command(run), _origin(run)])) + "\n"


def table_of(manifests: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table of models, which may come from several runs.

    Args:
        manifests: The manifests of the models.

    Raises:
        DaquError: A value is no manifest.
    """
    heads = ("model", "data", "pixels", "weights", "test accuracy", "file, bytes", "deflated")
    try:
        return _markdown(heads, [_row_of_any(member_of(manifest), manifest["dataset"]) for manifest in manifests])
    except (KeyError, TypeError, AttributeError) as error:
        raise DaquError(f"A manifest is none ({type(error).__name__}: {error}): export its model again.") from error


def _row_of_any(member: Member, data: str) -> tuple[str, ...]:
    sizes = _sizes(member, "file_bytes", "deflated_bytes")
    return (member.name, data, _pixels(member), _weights(member), percent(member.test), *sizes)


def _table(run: Run) -> str:
    heads = ("model", "test accuracy", "latency, µs", "file, bytes", "pixels", "weights")
    return _markdown(heads, map(_row, run.front)) if run.front else ""


def _markdown(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(map(_text, row))} |" for row in (heads, ("---",) * len(heads), *rows))


def _row(member: Member) -> tuple[str, ...]:
    latency = member.costs.get("latency_us")
    return (
        member.name,
        percent(member.test),
        "–" if latency is None else figure(latency),
        *_sizes(member, "file_bytes"),
        _pixels(member),
        _weights(member),
    )


def _sizes(member: Member, *names: str) -> tuple[str, ...]:
    return tuple(f"{member.costs[name]:,.0f}" if name in member.costs else "–" for name in names)


def _pixels(member: Member) -> str:
    return " x ".join(f"{member.input[side]:.0f}" for side in ("height", "width") if side in member.input) or "–"


def _weights(member: Member) -> str:
    bits = "–" if member.mean_weight_bits is None else f"{member.mean_weight_bits:.1f} bits on average"
    return bits + (f", {member.int4_layers} of {len(member.layers)} layers INT4" if member.int4_layers else "")


def _notes(run: Run) -> str:
    device = timed_by(run.front)
    others = ", ".join(member.name for member in run.members if not member.on_front)
    notes = [
        standard_error(run),
        f"Latency is the median, timed by {device}." if device else "",
        f"Also here, but dominated by others: {others}." if others else "",
        "`NAME.manifest.json` has the bits of each layer and all measurements.",
    ]
    return _text(" ".join(filter(None, notes)))


def _numbers(member: Member) -> dict[str, str]:
    return {key: f"{member.input[key]:.9g}" for key in ("offset", "scale")}


def _photos(member: Member, way: Preprocessing) -> tuple[str, ...]:
    """How to feed photos, in words and as code, by what the files state."""
    numbers = _numbers(member)
    is_eight_bits = numbers == {"offset": "0", "scale": "255"}
    trained = "" if is_eight_bits else f" In training, 0 and 255 were {numbers['offset']} and {_highest(member)}."
    others = f" That is {member.name}; the others differ in their own pixels alone, which the table has." if way.source_size else ""
    text = (
        f"{way.text()}{trained}{others} The largest output is the class; outputs are logits. Each file holds the labels, and it "
        "states all of this for programs, as its manifest does. The reference, to compare an application with: "
        f"`daqu-predict {member.file} photo.jpg`. The same as a script, for photos of 8 bits a channel:"
    )
    return text, f"```python\n{example(member, way)}```"


def example(member: Member, way: Preprocessing) -> str:
    """A Python script that names the class of a photo with LiteRT, NumPy and Pillow alone.

    Args:
        member: The model, whose file lies in the working folder.
        way: What becomes of a photo before the model reads it.
    """
    height, width = way.sizes[0]
    return _CODE.format(
        file=member.file,
        mode="L" if way.channels == GREY else "RGB",
        source_height=height,
        source_width=width,
        sizes=[(across, down) for down, across in way.sizes],
        shape=(1, *way.size, 1 if way.channels == GREY else 3),
        formula=way.formula("pixel").replace("round", "np.round"),
        type=way.input_type,
    )


def _arrays(member: Member) -> str:
    """How to feed files of before, whose networks were trained with images of which pixels were skipped."""
    numbers = _numbers(member)
    is_eight_bits = numbers == {"offset": "0", "scale": "255"}
    return (
        "Bring an image to the model's pixels as `tf.image.resize` does without antialiasing, for so these models were trained, "
        f"then make int8 of each value: `round(clip((value - {numbers['offset']}) / {numbers['scale']}, 0, 1) * 255) - 128`"
        + (", for 8-bit pixels simply `pixel - 128`. " if is_eight_bits else ". ")
        + "The largest output is the class; outputs are logits. "
        + "The files hold the labels, and TFLite metadata that say this of 8-bit pixels."
    )


def _highest(member: Member) -> str:
    return f"{member.input['offset'] + member.input['scale']:.9g}"


def _classes(names: tuple[str, ...]) -> str:
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:_SHOWN_LABELS]))
    more = len(names) - _SHOWN_LABELS
    return _text(shown + (f", and {more} more in each file's `labels.txt`." if more > 0 else "."))


def _command(run: Run) -> str:
    settings = run.config.get("flags")
    if not isinstance(settings, dict):
        return ""
    return f"```\n{run_command('run', settings, lambda path: pathlib.PurePath(path).name)}\n```"  # Its end says enough of a path.


def _origin(run: Run) -> str:
    versions = run.config.get("versions")
    named = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else ""
    return _text(f"Seed {run.config.get('seed', '?')}." + (f" Versions: {named}." if named else ""))


def _text(value: Any) -> str:
    """A text on one line, escaped so that it is no HTML and ends no cell of a table."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")
