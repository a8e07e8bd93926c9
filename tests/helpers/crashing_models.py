"""`.tflite` files that no runtime refuses and that end its process: what a search has to survive."""

import numpy as np

from daqu_tf.tflite import encoder
from daqu_tf.tflite.file import _model


def crashing(file: bytes, signal_name: str) -> bytes:
    """Spoils a file so that LiteRT dies of a signal, on x86 and ARM alike.

    Args:
        file: Of an int8 network, whose first operator with two inputs is an ADD.
        signal_name: `SIGSEGV`: weights are said to be missing, which XNNPACK reads all the same. `SIGABRT`: the sum has so small a
            scale that the rescaling to it overflows, which the runtime asserts against.
    """
    model = _model(file)
    graph = model.subgraphs[0]
    if signal_name == "SIGSEGV":
        operator = next(each for each in graph.operators if len(each.inputs) == 3)
        operator.inputs = np.int32([operator.inputs[0], -1, operator.inputs[2]])
    else:
        operator = next(each for each in graph.operators if len(each.inputs) == 2)
        graph.tensors[operator.outputs[0]].quantization.scale = np.float32([1e-45])
    builder = encoder._SharingBuilder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
