"""Latency and bytes of exported files, and of other forms in which their layers could be stored.

    python benchmarks/export_speed.py

A MobileNetV2 1.0 at 96x96 and two architectures of `mobilenet_v3_cifar`, untrained, as time does not depend on it: weights and
normalization are random, steps and statistics come from images. Each is exported at several precisions, and by TensorFlow's
converter as float32 and with its own 8 bits. All files of a network are timed in turns on one thread, each turn in a new random
order, and compared within a turn.

`forms`: the same codes as a FULLY_CONNECTED, between RESHAPEs, in INT4 or INT2, as the convolutions and depthwise convolutions that
the exporter leaves in INT8; and single layers of several sizes, ten one behind another. From it comes `Storage.packs`.

What else was looked at to make files smaller, of which nothing is done:
- Scales of inner tensors set to 1, so that the scales of biases are those of weights and stored once: 1 to 3% of a file, deflated
  too, but these are then no longer the scales that were trained.
- One zero point for a whole vector of scales, or no scales for biases: the runtime refuses the file, or leaves the delegate. They
  are zeros, stored once for each length, and deflate to nothing.
- Tensors without names: 0.05 to 0.4%; they are what manifests and error messages name.
What is left beside constants and scales (`rest`) is some 200 bytes an operator.
"""

import hashlib
import json
import os
import pathlib
import sys
import time
import zlib

import numpy as np
import records
from absl import app, flags, logging

import daqu_tf
from daqu_tf import spaces, targets, tflite
from daqu_tf.devices import HostDevice
from daqu_tf.files import read_arrays, write_arrays, write_bytes, write_json
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.spaces.subnet import Subnet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(
    str(pathlib.Path(__file__).parent.parent / "tests" / "helpers")
)  # Of the tests: images, random networks, interpreters.
LATENCY_LIMIT, BYTES_LIMIT, SECONDS_LIMIT = 1.05, 0.51, 3.0
IMAGES, EXPORTS = 64, 20
BASE, PACKED, UNPACKED = "w8a8", "w4a8, INT4 auto", "w4a8 in INT8"
# Pixels a side (none: a dense layer), channels, kernel.
LAYERS = [(24, (8, 8), 1), (24, (16, 96), 1), (24, (64, 64), 1), (24, (128, 128), 1), (8, (32, 32), 1), (4, (128, 128), 1)]
LAYERS += [(1, (128, 128), 1), (1, (320, 1280), 1), (0, (16, 64), 1), (0, (240, 960), 1)]
LAYERS += [(8, (15, 15), 1), (8, (16, 16), 1), (8, (63, 63), 1), (8, (64, 64), 1), (0, (63, 63), 1), (0, (64, 64), 1)]
LAYERS += [(8, (16, 16), 3), (8, (64, 64), 3)]

_NETWORKS = flags.DEFINE_list("networks", ["mobilenet_v2_96", "cifar_largest", "cifar_middle"], "Which of these.")
_TURNS = flags.DEFINE_integer("turns", 9, "Times that each file is timed, in a fresh process.")
_FOLDER = flags.DEFINE_string("folder", "runs/export_speed", "Weights, files and timings so far; the command goes on from there.")
_SEED = flags.DEFINE_integer("seed", 0, "Of weights, images, mixed bits and turns.")
_QUICK = flags.DEFINE_bool("quick", False, "`cifar_middle` in three turns: the same figures, coarsely, in less than a minute.")


def mobilenet_v2_96() -> SearchSpace:
    """MobileNetV2 1.0 (Sandler et al., CVPR 2018) at 96x96; the bits are all that is to choose."""
    rows = [(16, 1, 1, 1), (24, 2, 2, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6)]
    stages = tuple(Stage((width,), (depth,), (3,), (expansion,), stride) for width, depth, stride, expansion in rows)
    return SearchSpace("mobilenet_v2_96", (96, 96, 3), 1000, (32,), 2, stages, (1280,), activation_bits=(8,))


def network(name: str) -> tuple[SearchSpace, Subnet]:
    """The space and the architecture of one of the flag's names."""
    if name == "mobilenet_v2_96":
        return (space := mobilenet_v2_96()), space.largest()
    space = spaces.get("mobilenet_v3_cifar")
    middle = {gene.name: gene.values[len(gene.values) // 2] for gene in space.genes}
    return space, space.largest() if name == "cifar_largest" else space.subnet(middle)


def images_of(space: SearchSpace) -> np.ndarray:
    """Images (count, height, width, channels) with neighbours alike."""
    from families import smooth_images

    return smooth_images(space, IMAGES, _SEED.value)


def weights_of(space: SearchSpace, subnet: Subnet, path: pathlib.Path) -> dict[str, np.ndarray]:
    """Random weights with steps for all bits and statistics from images, made here or in an earlier call."""
    from daqu_tf.keras import keras
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import StaticNetwork

    if not path.exists():
        keras.utils.set_random_seed(_SEED.value)
        static, images = StaticNetwork(space, subnet.with_bits(8, 8)), images_of(space)
        static.load_arrays(shaken(static.arrays()))
        static.initialise_steps(images, space.weight_bits)
        Scorer(static, images).recalibrate()
        write_arrays(path, static.arrays())
    return read_arrays(path)


def shaken(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Other scales and offsets of batch normalization than 1 and 0, as in a trained network: else many biases would be 0."""
    rng, drawn = np.random.default_rng(_SEED.value), dict(arrays)
    for name, array in arrays.items():
        if name.endswith("/gamma"):
            drawn[name] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        if name.endswith("/beta"):
            drawn[name] = rng.normal(0, 0.3, array.shape).astype(np.float32)
    return drawn


def converted(space: SearchSpace, subnet: Subnet, arrays: dict[str, np.ndarray], quantized: bool) -> bytes:
    """What TensorFlow's converter makes of the float network: float32, or int8 throughout by its own calibration."""
    import tensorflow as tf

    from daqu_tf.supernet.baked import bake
    from daqu_tf.supernet.supernet import extract

    logging.set_verbosity(logging.WARNING)  # The converter tells much.
    converter = tf.lite.TFLiteConverter.from_keras_model(bake(extract(space, subnet.with_bits(FLOAT_BITS, FLOAT_BITS), arrays)))
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in resized(space, subnet))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def resized(space: SearchSpace, subnet: Subnet) -> np.ndarray:
    """The images at the subnet's resolution."""
    from daqu_tf.spaces.architecture import image_size
    from daqu_tf.supernet.layers import resize

    return np.asarray(resize(images_of(space), image_size(space.input_shape, subnet["resolution"])))


def mixed(space: SearchSpace, subnet: Subnet, rng: np.random.Generator) -> Subnet:
    """The architecture with weight bits drawn anew, layer by layer."""
    bits = {name: int(rng.choice(space.weight_bits)) for name in subnet.values if name.endswith("weight_bits")}
    return space.subnet(subnet.with_bits(8, 8).values | bits)


def exported(space: SearchSpace, subnet: Subnet, arrays: dict[str, np.ndarray], folder: pathlib.Path) -> dict[str, bytes]:
    """The files of one network by precision; the converter's are kept for the next call."""
    from daqu_tf.export.subnet_graph import to_graph

    files = {}
    for name, quantized in (("float32, converter", False), ("int8, converter", True)):
        path = folder / f"{name.replace(', ', '_')}.tflite"
        if not path.exists():
            write_bytes(path, converted(space, subnet, arrays, quantized))
        files[name] = path.read_bytes()
    auto, int8 = targets.Storage("auto"), targets.Storage("int8")
    chosen = {
        container: (subnet.with_bits(bits, bits), targets.Storage(container))
        for container, bits in (("float32", 32), ("float16", 32), ("dynamic", 8))
    }
    chosen |= {
        BASE: (subnet.with_bits(8, 8), auto),
        UNPACKED: (subnet.with_bits(4, 8), int8),
        PACKED: (subnet.with_bits(4, 8), auto),
        "w2a8 in INT8": (subnet.with_bits(2, 8), int8),
        "w2a8, INT4 auto": (subnet.with_bits(2, 8), auto),
        "mixed bits, INT4 auto": (mixed(space, subnet, np.random.default_rng(_SEED.value)), auto),
    }
    graphs = {name: to_graph(space, choice, arrays, storage) for name, (choice, storage) in chosen.items()}
    return files | {name: tflite.write(graph) for name, graph in graphs.items()}


def timed(files: dict[str, bytes], folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Microseconds of every file, turn by turn; those of an earlier call if its files were the same."""
    folder.mkdir(exist_ok=True, parents=True)
    turns, settings = 3 if _QUICK.value else _TURNS.value, {"min_seconds": 0.1 if _QUICK.value else 0.2, "max_warmup_seconds": 0.3}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    key, state = [hashes, turns, _SEED.value, settings], folder / "timings.json"
    found = json.loads(state.read_text()) if state.exists() else {}
    if found.get("key") != key:
        paths = [folder / f"{number}.tflite" for number in range(len(files))]
        for path, data in zip(paths, files.values()):
            write_bytes(path, data)
        latencies = HostDevice().measure_many(paths, turns, _SEED.value, **settings)
        found = {"key": key, "us": {name: latency.run_medians_us for name, latency in zip(files, latencies)}}
        write_json(state, found)
    return {name: np.array(samples) for name, samples in found["us"].items()}


def compared(us: np.ndarray, reference: np.ndarray) -> dict[str, object]:
    """The median latency, and its ratio to another file's of the same turn: median, least and most of all turns."""
    ratios = us / reference
    return {"us": float(np.median(us)), "ratio": float(np.median(ratios)), "range": [float(ratios.min()), float(ratios.max())]}


def sizes(data: bytes) -> dict[str, int]:
    """Bytes of a file, of what an app store sends, and of its parts."""
    import tflite_forms

    return {"file_bytes": len(data), "deflated_bytes": len(zlib.compress(data, 9))} | tflite_forms.parts(data)


def packed_bytes(files: dict[str, bytes]) -> dict[str, int]:
    """Bytes of the weights of the layers that INT4 holds, there and in INT8."""
    int4 = {op.output: op for op in tflite.read(files[PACKED]).operators if getattr(op, "container", "") == "INT4"}
    int8 = [op for op in tflite.read(files[UNPACKED]).operators if op.output in int4]
    return {"INT4": sum(-(-op.weights.size // 2) for op in int4.values()), "INT8": sum(op.weights.size for op in int8)}


def export_seconds(space: SearchSpace, subnet: Subnet, arrays: dict[str, np.ndarray], path: pathlib.Path) -> list[float]:
    """Of exports with mixed bits: biases rounded, the file written, read back, run on images and compared."""
    from daqu_tf.export.export import export_tflite, round_biases
    from daqu_tf.supernet.supernet import extract

    rng, seconds = np.random.default_rng(_SEED.value), []
    for _ in range(EXPORTS):
        network = extract(space, mixed(space, subnet, rng), arrays)
        began = time.perf_counter()
        round_biases(network)
        export_tflite(network, path)
        seconds.append(time.perf_counter() - began)
    return seconds


def forms_of(files: dict[str, bytes], folder: pathlib.Path) -> list[dict]:
    """Rows of one network's forms at 4 and at 2 bits, against INT8 CONV_2D with the same codes."""
    import tflite_forms

    rows = []
    for bits, forms in ((4, tflite_forms.FORMS), (2, tflite_forms.TWO_BITS)):
        reference = files[f"w{bits}a8 in INT8"]
        written = {"INT8 CONV_2D": reference} | {form.name: tflite_forms.rewritten(reference, form) for form in forms}
        found = {name: tflite_forms.tried(data, reference) for name, data in written.items()}
        us = timed({name: written[name] for name in found if "refused" not in found[name]}, folder / f"forms_{bits}")
        for name, row in found.items():
            row |= {"form": name, "bits": bits, "file_bytes": len(written[name])}
            row |= {"deflated_bytes": len(zlib.compress(written[name], 9))}
            rows.append(row | (compared(us[name], us["INT8 CONV_2D"]) if name in us else {}))
    return rows


def layers_of(folder: pathlib.Path) -> list[dict]:
    """Rows of single layers in INT4 against INT8."""
    import tflite_forms

    rows, files = [], {}
    for side, channels, kernel in LAYERS[:: 6 if _QUICK.value else 1]:
        shape = (1, side, side) if side else (1,)
        row = {"shape": shape, "channels": channels, "kernel": kernel}
        chains = tflite_forms.chain(shape, channels, kernel)
        files |= {f"{len(rows)} {container}": data for container, data in chains.items()}
        rows.append(row | tflite_forms.tried(chains["INT4"], chains["INT8"]))
    us = timed(files, folder)
    for number, row in enumerate(rows):
        int4, int8 = us[f"{number} INT4"], us[f"{number} INT8"]
        row |= {"int8_us": float(np.median(int8))} | compared(int4, int8)
    return rows


def measure(name: str, folder: pathlib.Path) -> tuple[dict, dict[str, bytes]]:
    """The figures of one network, and its files."""
    folder.mkdir(parents=True, exist_ok=True)
    space, subnet = network(name)
    arrays = weights_of(space, subnet, folder / "weights.npz")
    files = exported(space, subnet, arrays, folder)
    us = timed(files, folder / "precisions")
    seconds = export_seconds(space, subnet, arrays, folder / "exported.tflite")
    return {
        "subnet": str(subnet),
        "precisions": {variant: compared(us[variant], us[BASE]) | sizes(data) for variant, data in files.items()},
        "turns_us": {variant: samples.tolist() for variant, samples in us.items()},
        "int4_layers_weight_bytes": packed_bytes(files),
        "export_seconds": {"median": float(np.median(seconds)), "max": max(seconds), "count": len(seconds)},
    }, files


def bars_of(name: str, figures: dict) -> list[dict]:
    """What one network must show."""
    weights = figures["int4_layers_weight_bytes"]
    packed, every = figures["precisions"][PACKED]["ratio"], figures["precisions"]["mixed bits, INT4 auto"]["ratio"]
    share, seconds = weights["INT4"] / weights["INT8"], figures["export_seconds"]["median"]
    return [
        records.bar(f"{name}: INT4 auto over w8a8, latency", packed, LATENCY_LIMIT, "at_most", "ratio"),
        records.bar(f"{name}: mixed bits over w8a8, latency", every, LATENCY_LIMIT, "at_most", "ratio"),
        records.bar(f"{name}: weights of INT4 layers over INT8's, bytes", share, BYTES_LIMIT, "at_most", "ratio"),
        records.bar(f"{name}: export, median", seconds, SECONDS_LIMIT, "at_most", "s"),
    ]


def times(row: dict) -> str:
    """A ratio with its range over the turns."""
    return "{:.3f} ({:.3f} to {:.3f})".format(row["ratio"], *row["range"]) if "ratio" in row else "refused"


def precision_table(found: dict[str, dict]) -> dict:
    """Latency and bytes of every network and precision."""
    rows = []
    for name, figures in found.items():
        base = figures["precisions"][BASE]
        for variant, row in figures["precisions"].items():
            of_base = [f"{kilo(row[key])} ({row[key] / base[key]:.3f})" for key in ("file_bytes", "deflated_bytes")]
            parts = [kilo(row[key]) for key in ("constants", "channels", "rest")]
            rows.append([name, variant, f"{row['us']:.1f}", times(row), *of_base, *parts])
    columns = ["network", "precision", "us", f"over {BASE}", f"file, kB (over {BASE})", f"deflated, kB (over {BASE})"]
    caption = (
        "One thread; latencies are compared turn by turn: the median, and in brackets the least and the most of the turns.\n"
        "`converter` is TensorFlow's, for the same weights. Of the file: weights and biases, scales and zero points, and the rest."
    )
    return {"caption": caption, "columns": [*columns, "constants, kB", "scales, kB", "rest, kB"], "rows": rows}


def form_table(forms: dict[str, list[dict]]) -> dict:
    """The forms that were tried."""
    rows = []
    for name, found in forms.items():
        for row in found:
            seen = [str(row.get(key, "")) for key in ("partitions", "steps_apart")]
            sizes_of = [kilo(row["file_bytes"]), kilo(row["deflated_bytes"])]
            rows.append([name, str(row["bits"]), row["form"], times(row), *seen, *sizes_of])
    columns = ["network", "weight bits", "pointwise layers as", "over INT8 CONV_2D", "partitions", "steps apart"]
    caption = (
        "Forms of the same codes: latency over that of INT8 CONV_2D, partitions of the delegate (one is all of it), and by how\n"
        "many steps the logits of a random image differ. `refused`: the runtime does not load the file."
    )
    return {"caption": caption, "columns": [*columns, "file, kB", "deflated, kB"], "rows": rows}


def layer_table(layers: list[dict]) -> dict:
    """Single layers in INT4."""
    rows = []
    for row in layers:
        pixels = "x".join(map(str, row["shape"][1:])) or "dense"
        kernel, channels = f"{row['kernel']}x{row['kernel']}", " and ".join(map(str, row["channels"]))
        rows.append([pixels, channels, kernel, f"{row['int8_us']:.1f}", times(row), "yes" if row["partitions"] == 1 else "no"])
    columns = ["pixels", "channels", "kernel", "INT8, us", "INT4 over INT8", "delegated"]
    return {"caption": "Ten equal layers one behind another, in INT4 and in INT8.", "columns": columns, "rows": rows}


def kilo(size: float) -> str:
    """Bytes in kB."""
    return f"{size / 1000:.1f}"


def main(argv: list[str]) -> None:
    """Measures what is left and writes `results/export_speed.json`."""
    del argv
    daqu_tf.check_keras()
    folder = pathlib.Path(_FOLDER.value) / ("quick" if _QUICK.value else "full")
    found, forms = {}, {}
    for name in ["cifar_middle"] if _QUICK.value else _NETWORKS.value:
        found[name], files = measure(name, folder / name)
        if _QUICK.value or name != "cifar_middle":
            forms[name] = forms_of(files, folder / name)
        packed, seconds = found[name]["precisions"][PACKED], found[name]["export_seconds"]["median"]
        print(f"{name}: INT4 auto {times(packed)} of {BASE}, an export {seconds:.3f} s", flush=True)
    layers = layers_of(folder / "layers")
    bars = [bar for name, figures in found.items() for bar in bars_of(name, figures)]
    tables = [precision_table(found), form_table(forms), layer_table(layers)]
    results = {"networks": found, "forms": {"networks": forms, "layers": layers}, "tables": tables}
    print(f"Wrote {records.write('export_speed_quick' if _QUICK.value else 'export_speed', [_SEED.value], results, bars)}")


if __name__ == "__main__":
    app.run(main)
