"""Runs all `.tflite` files of a folder in any Python that has a runtime, with the kernels that it chooses itself.

    PYTHON tests/devices/run_files.py FOLDER

Inputs of `NAME.tflite` are the arrays of `NAME.npz`, by their names in the file, one by one along their first axis; its outputs
become `NAME.npy`.
"""

import pathlib
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[2] / "daqu_tf/devices"))
import runner


def run(model: pathlib.Path) -> None:
    interpreter, _ = runner.open_model(model, 1)
    sources, (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    values = dict(np.load(model.with_suffix(".npz")))
    outputs = []
    for index in range(len(values[sources[0]["name"]])):
        for source in sources:
            interpreter.set_tensor(source["index"], values[source["name"]][index : index + 1])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(sink["index"]))
    np.save(model.with_suffix(".npy"), np.concatenate(outputs))


if __name__ == "__main__":
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tflite")):
        run(path)
