"""Runs all `.tflite` files of a folder, each once, in any Python that has a runtime, with the kernels that it chooses itself.

    PYTHON tests/devices/run_files.py FOLDER

Inputs of `NAME.tflite` are the arrays of `NAME.npz`, by their names in the file; its output becomes `NAME.npy`.
"""

import pathlib
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[2] / "daqu_tf/devices"))
import runner


def run(model: pathlib.Path) -> None:
    interpreter, _ = runner.open_model({"model": model, "threads": 1})
    with np.load(model.with_suffix(".npz")) as values:
        for source in interpreter.get_input_details():
            interpreter.set_tensor(source["index"], values[source["name"]])
    interpreter.invoke()
    (sink,) = interpreter.get_output_details()
    np.save(model.with_suffix(".npy"), interpreter.get_tensor(sink["index"]))


if __name__ == "__main__":
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tflite")):
        run(path)
