"""Runs a file, or one operator of it, with XNNPACK or with the built-in kernels, in this process."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from daqu_tf.tflite import encoder
from daqu_tf.tflite.graph import Graph

XNNPACK = OpResolverType.BUILTIN
BUILTIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def loaded(data: bytes, kernels: OpResolverType) -> Interpreter:
    """An interpreter that is ready to run the file on one thread."""
    preserves = kernels == BUILTIN
    options = {"experimental_op_resolver_type": kernels, "experimental_preserve_all_tensors": preserves, "num_threads": 1}
    interpreter = Interpreter(model_content=data, **options)
    interpreter.allocate_tensors()
    return interpreter


def run_file(data: bytes, values: dict[str, np.ndarray], kernels: OpResolverType) -> tuple[np.ndarray, Interpreter]:
    """The output for inputs by name, and the interpreter, which with the built-in kernels holds every tensor."""
    interpreter = loaded(data, kernels)
    for source in interpreter.get_input_details():
        interpreter.set_tensor(source["index"], values[source["name"]])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), interpreter


def only_operator(data: bytes, index: int) -> bytes:
    """The file of which one operator runs, between the file's ends."""
    model = schema.ModelT.InitFromPackedBuf(data)
    subgraph = model.subgraphs[0]
    node = subgraph.operators[index]
    is_activation = [model.buffers[subgraph.tensors[tensor].buffer].data is None for tensor in node.inputs]
    subgraph.operators, subgraph.inputs, subgraph.outputs = [node], node.inputs[is_activation], node.outputs
    model.signatureDefs = None
    return pack(model)


def pack(model: schema.ModelT) -> bytes:
    """The file of changed tables."""
    builder = encoder._SharingBuilder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def steps_apart(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two arrays of integers."""
    return int(np.abs(a.astype(int) - b).max())


def is_wholly_delegated(interpreter: Interpreter, graph: Graph) -> bool:
    """Whether one delegate node yields the output and reads, of all activations, the inputs alone."""
    delegates = [node for node in interpreter._get_ops_details() if node["op_name"] == "DELEGATE"]
    activations = {*range(len(graph.tensors))} - {source["index"] for source in interpreter.get_input_details()}
    ends = [output["index"] for output in interpreter.get_output_details()]
    return len(delegates) == 1 and [*delegates[0]["outputs"]] == ends and not activations & {*delegates[0]["inputs"]}
