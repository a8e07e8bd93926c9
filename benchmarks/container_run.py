"""Runs one `.tflite` file in any Python that has a runtime, for `containers.py`, and prints what the runtime made of it as JSON.

    PYTHON benchmarks/container_run.py MODEL.tflite INPUTS.npy OUTPUTS.npy

One input of the array after the other, along its first axis. It imports no more than the runner of devices does.
"""

import json
import pathlib
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1] / "daqu_tf/devices"))
import runner

_REFUSED = 3


def delegated(interpreter) -> str:
    """`wholly` if one delegate node yields the output and reads the inputs and constants alone, else `in part` or `not`."""
    nodes = interpreter._get_ops_details()
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    if not delegates:
        return "not"
    made = {int(tensor) for node in nodes if node["op_name"] != "DELEGATE" for tensor in node["outputs"]}
    ends = [sink["index"] for sink in interpreter.get_output_details()]
    alone = len(delegates) == 1 and list(delegates[0]["outputs"]) == ends
    return "wholly" if alone and not made & {int(tensor) for tensor in delegates[0]["inputs"]} else "in part"


def main() -> None:
    """Exits with status 3 and the reason where the runtime refuses the file."""
    model, inputs, outputs = sys.argv[1:]
    try:
        interpreter, answer = runner.open_model(model, 1)
        (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
        found = []
        for values in np.load(inputs):
            interpreter.set_tensor(source["index"], values[None])
            interpreter.invoke()
            found.append(interpreter.get_tensor(sink["index"])[0])
    except (RuntimeError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(_REFUSED)
    np.save(outputs, np.array(found))
    print(json.dumps({"delegated": delegated(interpreter), "runtime": answer["runtime"], "version": answer["runtime_version"]}))


if __name__ == "__main__":
    main()
