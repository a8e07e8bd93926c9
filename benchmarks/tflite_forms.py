"""The layers of a `.tflite` file in other forms than the exporter's, for `export_speed.py`; some of them no runtime takes."""

import dataclasses
from collections.abc import Iterator

import interpreters  # The tests'.
import numpy as np
import tflite_networks
from ai_edge_litert import schema_py_generated as schema

from daqu_tf import tflite
from daqu_tf.tflite.graph import Graph

# The lowest version of an operator that stands for a container; INT2 has none of its own but in FULLY_CONNECTED.
_VERSIONS = {
    "CONV_2D": {"INT8": 3, "INT4": 7, "INT2": 8},
    "DEPTHWISE_CONV_2D": {"INT8": 3, "INT4": 7, "INT2": 7},
    "FULLY_CONNECTED": {"INT8": 5, "INT4": 10, "INT2": 14},
}
_BITS = {"INT8": 8, "INT4": 4, "INT2": 2}


@dataclasses.dataclass(frozen=True)
class Form:
    """How some of a file's kernels are stored and computed.

    Attributes:
        name: For tables.
        container: Of the kernels of `kinds`.
        kinds: `pointwise`, `depthwise` or `conv`.
        dense: Whether pointwise ones become a FULLY_CONNECTED.
        reshaped: Whether that is between two RESHAPEs, to two axes and back.
        one_scale: Whether all its channels have one scale.
        block: Weights that share a scale, along the input channels; 0 for one scale a channel.
    """

    name: str
    container: str
    kinds: tuple[str, ...] = ("pointwise",)
    dense: bool = True
    reshaped: bool = False
    one_scale: bool = False
    block: int = 0


FORMS = (
    Form("INT8 FULLY_CONNECTED", "INT8"),
    Form("INT4 FULLY_CONNECTED", "INT4"),
    Form("INT4 FULLY_CONNECTED between RESHAPEs to two axes", "INT4", reshaped=True),
    Form("INT4 FULLY_CONNECTED, one scale a tensor", "INT4", one_scale=True),
    Form("INT4 FULLY_CONNECTED, a scale for 8 weights", "INT4", block=8),
    Form("INT4 CONV_2D", "INT4", dense=False),
    Form("INT4 DEPTHWISE_CONV_2D, the others in INT8", "INT4", ("depthwise",)),
)
TWO_BITS = (
    Form("INT4 FULLY_CONNECTED", "INT4"),
    Form("INT2 FULLY_CONNECTED", "INT2"),
    Form("INT2 CONV_2D", "INT2", dense=False),
)


def rewritten(file: bytes, form: Form) -> bytes:
    """A file of the same codes in another form.

    Args:
        file: One of the exporter's, all in INT8.
        form: What becomes of its kernels.
    """
    model = schema.ModelT.InitFromPackedBuf(file)
    graph = model.subgraphs[0]
    graph.operators = [part for operator in graph.operators for part in _in_form(model, operator, form)]
    return interpreters.pack(model)


def _in_form(model: schema.ModelT, operator: schema.OperatorT, form: Form) -> Iterator[schema.OperatorT]:
    """What computes the operator in that form: itself, changed, or with others around it."""
    name = _name(schema.BuiltinOperator, model.operatorCodes[operator.opcodeIndex].builtinCode)
    if name not in _VERSIONS or _kind(model, operator, name) not in form.kinds:
        yield operator
        return
    weights = model.subgraphs[0].tensors[operator.inputs[1]]
    _store(model, weights, form)
    if form.dense and form.kinds == ("pointwise",):
        name = "FULLY_CONNECTED"
        weights.shape = weights.shape[[0, 3]]
        relu = operator.builtinOptions.fusedActivationFunction
        operator.builtinOptions = schema.FullyConnectedOptionsT(relu, keepNumDims=not form.reshaped)
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.opcodeIndex = _code(model, name, _VERSIONS[name][form.container])
    yield from _between_reshapes(model, operator) if form.reshaped else [operator]


def _kind(model: schema.ModelT, operator: schema.OperatorT, name: str) -> str:
    shape = model.subgraphs[0].tensors[operator.inputs[1]].shape
    if name != "CONV_2D":
        return {"DEPTHWISE_CONV_2D": "depthwise", "FULLY_CONNECTED": "dense"}[name]
    return "pointwise" if tuple(shape[1:3]) == (1, 1) else "conv"


def _store(model: schema.ModelT, weights: schema.TensorT, form: Form) -> None:
    """Puts the codes into another container, and their scales into another form."""
    buffer, bits = model.buffers[weights.buffer], _BITS[form.container]
    buffer.data = packed(buffer.data.view(np.int8), bits)
    weights.type = getattr(schema.TensorType, form.container)
    scales = weights.quantization.scale
    if form.one_scale:
        weights.quantization = schema.QuantizationParametersT(scale=scales[:1], zeroPoint=np.zeros(1, np.int64))
    if form.block:
        blocks = np.repeat(scales, weights.shape[3] // form.block).astype(np.float16)
        number = _constant(model, blocks.reshape(weights.shape[0], -1), "FLOAT16")
        details = schema.BlockwiseQuantizationT(number, -1, form.block)
        kind = schema.QuantizationDetails.BlockwiseQuantization
        weights.quantization = schema.QuantizationParametersT(detailsType=kind, details=details)


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes side by side in bytes, the earlier ones in the lower bits; returns uint8."""
    count = 8 // bits
    fields = codes.view(np.uint8) & (2**bits - 1)
    fields = np.append(fields, np.zeros(-fields.size % count, np.uint8)).reshape(-1, count)
    return np.bitwise_or.reduce(fields << (bits * np.arange(count, dtype=np.uint8)), axis=1).astype(np.uint8)


def _between_reshapes(model: schema.ModelT, operator: schema.OperatorT) -> list[schema.OperatorT]:
    """The operator on tensors of two axes: (pixels, channels)."""
    ends = operator.inputs[0], operator.outputs[0]
    flat = [_flattened(model, end) for end in ends]
    operator.inputs, operator.outputs = np.array([flat[0], *operator.inputs[1:]], "<i4"), np.array([flat[1]], "<i4")
    return [_reshape(model, ends[0], flat[0]), operator, _reshape(model, flat[1], ends[1])]


def _flattened(model: schema.ModelT, number: int) -> int:
    tensors = model.subgraphs[0].tensors
    source = tensors[number]
    shape = np.array([np.prod(source.shape[:3]), source.shape[3]], "<i4")
    tensors.append(schema.TensorT(shape, source.type, 0, source.name + b".flat", source.quantization))
    return len(tensors) - 1


def _reshape(model: schema.ModelT, source: int, output: int) -> schema.OperatorT:
    shape = np.array(model.subgraphs[0].tensors[output].shape, "<i4")
    return schema.OperatorT(
        opcodeIndex=_code(model, "RESHAPE", 1),
        inputs=np.array([source, _constant(model, shape, "INT32")], "<i4"),
        outputs=np.array([output], "<i4"),
        builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
        builtinOptions=schema.ReshapeOptionsT(shape),
    )


def _constant(model: schema.ModelT, values: np.ndarray, container: str) -> int:
    model.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
    tensor = schema.TensorT(np.array(values.shape, "<i4"), getattr(schema.TensorType, container), len(model.buffers) - 1)
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _code(model: schema.ModelT, name: str, version: int) -> int:
    """Index of an operator's code, which is added if the file has none."""
    number = getattr(schema.BuiltinOperator, name)
    codes = [(code.builtinCode, code.version) for code in model.operatorCodes]
    if (number, version) not in codes:
        model.operatorCodes.append(schema.OperatorCodeT(number, None, version, number))
        return len(codes)
    return codes.index((number, version))


def _name(kinds: type, number: int) -> str:
    return next(name for name, value in vars(kinds).items() if value == number)


def chain(shape: tuple[int, ...], channels: tuple[int, int], kernel: int = 1, layers: int = 10) -> dict[str, bytes]:
    """Files of layers one behind another, which go from the first number of channels to the second and back, by container.

    Args:
        shape: Of a tensor, without channels.
        channels: The two numbers.
        kernel: 1 for FULLY_CONNECTED layers; others for convolutions.
        layers: How many.
    """
    network = tflite_networks.RandomNetwork(0, (*shape, channels[0]), weight_bits=4)
    add, source = (network.dense if kernel == 1 else network.conv), "input"
    for layer in range(layers):
        source = add(source, channels[(layer + 1) % 2], relu=True)
    graph = network.graph(source)
    if kernel > 1:
        file = tflite.write(graph)
        return {"INT8": file, "INT4": rewritten(file, Form("", "INT4", ("conv",)))}
    return {container: tflite.write(_contained(graph, container)) for container in ("INT8", "INT4")}


def _contained(graph: Graph, container: str) -> Graph:
    operators = tuple(dataclasses.replace(operator, container=container) for operator in graph.operators)
    return dataclasses.replace(graph, operators=operators)


def tried(file: bytes, reference: bytes) -> dict:
    """Whether the runtime runs a file, in how many partitions of the delegate, and how far its output is from another file's."""
    try:
        output, partitions = _run(file)
    except (RuntimeError, ValueError) as error:
        return {"refused": " ".join(str(error).split())[:200]}
    return {"partitions": partitions, "steps_apart": interpreters.steps_apart(output, _run(reference)[0])}


def _run(file: bytes) -> tuple[np.ndarray, int]:
    interpreter = interpreters.loaded(file, interpreters.XNNPACK)
    (source,) = interpreter.get_input_details()
    codes = np.random.default_rng(0).integers(-128, 128, source["shape"]).astype(np.int8)
    output, interpreter = interpreters.run_file(file, {source["name"]: codes}, interpreters.XNNPACK)
    return output, [operator["op_name"] for operator in interpreter._get_ops_details()].count("DELEGATE")


def parts(file: bytes) -> dict[str, int]:
    """Bytes of any `.tflite` file: `constants` are weights, biases and shapes; `channels` scales and zero points, each vector
    that several tensors share counted once; `rest` is everything else."""
    model = schema.Model.GetRootAs(file, 0)
    buffers = (model.Buffers(number) for number in range(model.BuffersLength()))
    tables = [buffer._tab for buffer in buffers]
    graph = model.Subgraphs(0)
    quantizations = (graph.Tensors(number).Quantization() for number in range(graph.TensorsLength()))
    scales = [quantization._tab for quantization in quantizations if quantization]
    constants = _vector_bytes(tables, 4, 1)
    channels = _vector_bytes(scales, 8, 4) + _vector_bytes(scales, 10, 8)  # The scales, float32; the zero points, int64.
    return {"constants": constants, "channels": channels, "rest": len(file) - constants - channels}


def _vector_bytes(tables: list, field: int, width: int) -> int:
    """Of the vectors in one field of several tables, by where they lie in the file."""
    sizes = {}
    for table in tables:
        if offset := table.Offset(field):
            sizes[table.Vector(offset)] = width * table.VectorLen(offset)
    return sum(sizes.values())
