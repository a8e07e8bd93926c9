"""Whether other people's tools read exported files; a command of its own, since each tool is downloaded first.

    python tests/helpers/importers.py FOLDER MODEL.tflite ...

Each tool goes into a folder of its own in FOLDER, without its dependencies, of which `.venv` has what is needed here. Ends with
status 1 if one of them fails where it is expected to read the file.
"""

import pathlib
import subprocess
import sys
from collections.abc import Iterator

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
    "TensorFlow's Analyzer": ((), "import tensorflow; tensorflow.lite.experimental.Analyzer.analyze(sys.argv[1])"),
}
# What a tool says where it does not know INT4.
REFUSED = {"tf2onnx": b"KeyError: 17"}


def failures(folder: pathlib.Path, models: list[pathlib.Path]) -> Iterator[str]:
    for name, (packages, code) in TOOLS.items():
        place = folder / name.replace(" ", "_")
        if packages and not place.exists():
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), *packages]
            subprocess.run(install, check=True)
        for model in models:
            line = f"import sys; sys.path.append({str(place)!r}); {code}"
            ended = subprocess.run([sys.executable, "-c", line, str(model), str(folder / "written")], capture_output=True)
            refuses = REFUSED.get(name)
            read = "reads" if not ended.returncode else "refuses" if refuses and refuses in ended.stderr else "FAILS ON"
            print(f"{name} {read} {model.name}", flush=True)
            if read == "FAILS ON":
                yield f"{name} on {model.name}: {ended.stderr.decode(errors='replace')[-500:]} (status {ended.returncode})"


if __name__ == "__main__":
    found = list(failures(pathlib.Path(sys.argv[1]), list(map(pathlib.Path, sys.argv[2:]))))
    print(*found, sep="\n")
    sys.exit(bool(found))
