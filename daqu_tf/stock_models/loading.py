"""Trained networks from files that strangers made: only stock layers are built, and nothing that a file brings is run."""

import json
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any, NoReturn

import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.stock_models.operations import KNOWN, Operation, as_layer, separated
from daqu_tf.stock_models.placement import functional
from daqu_tf.stock_models.quantizers import refused

APPLICATIONS = {"mobilenet_v1_imagenet": "MobileNet", "mobilenet_v2_imagenet": "MobileNetV2"}
_CONTAINERS = {"Functional", "Sequential", "Model", "Node", "KerasTensor", "__tuple__", "TensorShape", "DTypePolicy", "Policy"}
_LAYERS = {
    "InputLayer", "Conv2D", "DepthwiseConv2D", "Dense", "BatchNormalization", "ReLU", "Activation", "Softmax", "Add", "Rescaling",
    "Normalization", "ZeroPadding2D", "GlobalAveragePooling2D", "Dropout", "SpatialDropout2D", "Reshape", "Flatten", "Multiply",
    "Subtract", "Average", "Maximum", "Concatenate", "AveragePooling2D", "MaxPooling2D", "GlobalMaxPooling2D", "SeparableConv2D",
    "LeakyReLU", "PReLU", "ELU", "LayerNormalization", "Resizing", "Cropping2D", "UpSampling2D", "GaussianNoise", "GaussianDropout",
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness", "RandomCrop",
}  # fmt: skip
# Of Keras; what they have is no code of a file. The last three are in a compiled model within a model.
_FURTHER = ("initializers", "regularizers", "constraints", "optimizers", "losses", "metrics")
_MOST_CONFIG_BYTES = 2**24


def load_trained(name: str | os.PathLike) -> keras.Model:
    """The functional model in a file, or of a name.

    Args:
        name: The path of a `.keras` or `.h5` file or of a SavedModel's folder, all of tf_keras, or one of `APPLICATIONS`, which
            Keras downloads.

    Raises:
        DaquError: There is no such file, it is no whole model of stock layers, or the download fails.
    """
    if name in APPLICATIONS:
        return flattened(_application(str(name)))
    path = pathlib.Path(name)
    if not path.exists():
        known = ", ".join(APPLICATIONS)
        raise DaquError(f"`init_from` {path} does not exist: give a .keras or .h5 file, the folder of a SavedModel, or {known}.")
    try:
        model = _saved_model(path) if path.is_dir() else _file(path)
    except DaquError:
        raise
    except Exception as error:  # Bytes that are no such file can raise anything in their readers.
        reason = (str(error).splitlines() or [""])[0]
        raise DaquError(
            f"`init_from` {path} cannot be read as a model of tf_keras ({type(error).__name__}: {reason[:200]}): save it anew with "
            "model.save."
        ) from error
    return flattened(model)


def flattened(model: keras.Model) -> keras.Model:
    """A functional model of stock layers alone, which are clones with the weights of the model's.

    Models within it give way to their layers, separable convolutions to the two that they are made of, and operations such as
    `x + 3.0` to the layers that do the same, where there are any.

    Raises:
        DaquError: A layer with weights is called more than once, which clones would train apart.
    """
    names: set[str] = set()
    cloned: list[keras.layers.Layer] = []

    def called(layer: keras.layers.Layer, args: Any, kwargs: Any) -> Any:
        if layer.weights and any(layer is other for other in cloned):
            raise refused(layer, "it is called more than once: give each call a layer of its own")
        cloned.append(layer)
        name, number = layer.name, 1
        while name in names:
            name, number = f"{layer.name}_{number}", number + 1
        names.add(name)
        if isinstance(layer, Operation) and (found := as_layer(layer, args, kwargs)):
            (layer, read), kwargs = found, {}
            args = (read,)
        if type(layer) is keras.layers.SeparableConv2D:
            return separated(layer, name, *args)
        copy = type(layer).from_config(layer.get_config() | {"name": name})
        outputs = copy(*args, **kwargs)
        copy.set_weights(layer.get_weights())
        return outputs

    def run(part: keras.Model, inputs: list[Any]) -> list[Any]:
        values = {id(tensor): given for tensor, given in zip(part.inputs, inputs)}
        for _, nodes in sorted(part._nodes_by_depth.items(), reverse=True):
            for node in nodes:
                if node.is_input:
                    continue
                read = {str(id(tensor)): [values[id(tensor)]] * len(node.keras_inputs) for tensor in node.keras_inputs}
                args, kwargs = node.map_arguments(read)
                is_model = isinstance(node.layer, keras.Model)
                outputs = run(functional(node.layer), tf.nest.flatten(args)) if is_model else called(node.layer, args, kwargs)
                values |= {id(old): new for old, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs))}
        return [values[id(tensor)] for tensor in part.outputs]

    whole = functional(model)
    inputs = [
        keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=layer.name)
        for tensor, layer in zip(whole.inputs, whole._input_layers)
    ]
    return keras.Model(inputs, run(whole, inputs), name=whole.name)


def _application(name: str) -> keras.Model:
    try:
        return getattr(keras.applications, APPLICATIONS[name])(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when the download fails.
        reason = (str(error).splitlines() or [""])[0]
        raise DaquError(
            f"The weights of {name} could not be downloaded ({reason[:200]}): connect this machine to the internet, or give the "
            "path of a model that you have."
        ) from error


def _file(path: pathlib.Path) -> keras.Model:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _MOST_CONFIG_BYTES:
                _refuse(path, "a description of that size")
            config = json.loads(archive.read("config.json"))
            config.pop("compile_config", None)  # How it was trained, which Keras leaves unread here.
            _check(path, config)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    if path.suffix not in (".h5", ".hdf5"):
        raise DaquError(f"`init_from` must be a .keras or .h5 file or the folder of a SavedModel, but received {path}.")
    import h5py  # type: ignore[import-untyped]

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise DaquError(f"`init_from` {path} has weights alone: save the whole model with model.save.")
        _check(path, json.loads(file.attrs["model_config"]))
    return keras.models.load_model(path, compile=False, safe_mode=True)


def _saved_model(path: pathlib.Path) -> keras.Model:
    """The model that a SavedModel's metadata describe, with its weights; its graphs, which may hold anything, are not loaded."""
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    metadata = SavedMetadata()
    if not (path / "keras_metadata.pb").is_file():
        raise DaquError(f"`init_from` {path} is no SavedModel of tf_keras: save the model with model.save of tf_keras.")
    metadata.ParseFromString((path / "keras_metadata.pb").read_bytes())
    root = json.loads(next(node.metadata for node in metadata.nodes if node.node_path == "root"))
    described = {"class_name": root["class_name"], "config": root["config"]}
    _check(path, described)
    model = keras.layers.deserialize(_with_tuples(described))
    model.load_weights(path / "variables" / "variables").assert_existing_objects_matched().expect_partial()
    return model


def _with_tuples(config: Any) -> Any:
    """A description of a SavedModel, whose tuples are marked, as one that holds them."""
    if isinstance(config, dict):
        if config.get("class_name") in ("__tuple__", "TensorShape"):
            return tuple(map(_with_tuples, config["items"]))
        return {name: _with_tuples(value) for name, value in config.items()}
    return [_with_tuples(value) for value in config] if isinstance(config, list) else config


def _check(path: pathlib.Path, config: Any) -> None:
    """Refuses a description that names anything but stock layers and what these need."""
    known = _CONTAINERS | _LAYERS | {name for part in _FURTHER for name in vars(getattr(keras, part)) if not name.startswith("_")}
    for found in _described(config):
        computes = found["class_name"] == Operation.__name__ and found["config"].get("function") in KNOWN  # And does nothing else.
        if not (computes or found["class_name"] in known) or found.get("registered_name") not in (None, found["class_name"]):
            _refuse(path, f"{found['class_name']!r}, which is none of the layers that can be taken, or code of its own")
        if str(found.get("module") or "keras").split(".")[0] not in ("keras", "tf_keras", "builtins"):
            _refuse(path, f"code of the module {found['module']!r}")


def _described(config: Any) -> Iterator[dict[str, Any]]:
    """All objects that a description names."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config
        for value in config.values():
            yield from _described(value)
    elif isinstance(config, list):
        for value in config:
            yield from _described(value)


def _refuse(path: pathlib.Path, what: str) -> NoReturn:
    raise DaquError(f"`init_from` {path} holds {what}: nothing of it was run. Give a network of stock layers.")
