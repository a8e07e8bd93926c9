"""Whether exported files compute what was trained: random subnets of every family, of supernets trained on real images.

    python benchmarks/export_exactness.py --fashion_mnist=fashion_mnist.npz --cifar10=cifar10.npz

Widths of weights and activations are drawn over the whole alphabet, mixed. Of each file, as LiteRT reads it:
- the stored integers, scales and zero points against the trained ones;
- every operator, given its own integer inputs of a real image, against float64 arithmetic (`integer_reference`, of the tests), with
  XNNPACK and with the built-in kernels;
- top-1 on test images against the fake-quantized network, with both;
- operators that are not integer, and partitions of the delegate;
- with --arm_root=FOLDER, which `tests/devices/arm_root.py` makes, top-1 of some subnets on ARM kernels too: those of LiteRT, and
  those of tflite-runtime in the file for it. qemu runs them, so the images are few.
Supernets and subnets are written down as they are done; cut off, the command goes on.
"""

import collections
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
import records
from absl import app, flags

import daqu_tf
from daqu_tf import data, files, spaces, targets, tflite
from daqu_tf.files import read_arrays, write_arrays
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.tflite.graph import Graph
from daqu_tf.tflite.weighted import Weighted

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests" / "helpers"))  # The reference is the tests'.
FAMILIES = {"mobilenet_v2_28": "fashion_mnist", "mobilenet_v3_cifar": "cifar10", "resnet_cifar": "cifar10"}
# Gammas so small that a channel is a constant occur in longer trainings; here they are set, in a part of every layer.
DEAD_CHANNELS = 0.05
ARM_SUBNETS, ARM_IMAGES = 3, 200
ARM_TARGETS = {"ai-edge-litert": "litert_cpu", "tflite-runtime": "tflite_runtime"}  # By runtime.

_PATHS = {name: flags.DEFINE_string(name, None, "The data set: a .npz file.") for name in sorted(set(FAMILIES.values()))}
_SUBNETS = flags.DEFINE_integer("subnets", 40, "Of each family.")
_EPOCHS = flags.DEFINE_float("epochs", 2.0, "Of each supernet; with --quick, 20 on digits.")
_IMAGES = flags.DEFINE_integer("images", 2000, "Of the test split.")
_FOLDER = flags.DEFINE_string("folder", "runs/export_exactness", "What has been done so far.")
_ARM_ROOT = flags.DEFINE_string("arm_root", None, "Pythons for ARM, to run some files there too.")
_SEED = flags.DEFINE_integer("seed", 0, "Of supernets and subnets.")
_QUICK = flags.DEFINE_bool("quick", False, "Four subnets of a small space on digits, about two minutes.")


def train(space: SearchSpace, dataset: data.Dataset, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights of a supernet that was trained for some epochs, here or in an earlier call."""
    from daqu_tf.keras import keras
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import Supernet
    from daqu_tf.training.schedule import make_schedule
    from daqu_tf.training.training import SupernetTraining

    path = folder / "supernet.npz"
    if not path.exists():
        keras.utils.set_random_seed(_SEED.value)
        supernet, epochs = Supernet(space), 20.0 if _QUICK.value else _EPOCHS.value
        schedule = make_schedule(space, "gap_aware", "progressive", epochs, "epochs", seed=_SEED.value)
        training = SupernetTraining(supernet, dataset, Scorer(supernet, dataset.x_train), schedule, folder)
        training.restore()
        training.run(lambda phase, done, figures: None)
        write_arrays(path, supernet.arrays())
    return read_arrays(path)


def check(space: SearchSpace, subnet: Subnet, arrays: dict[str, np.ndarray], dataset: data.Dataset, rng, on_arm: bool) -> dict:
    """All figures of one subnet."""
    from daqu_tf.export.export import round_biases, to_graph
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import extract

    network = extract(space, subnet, arrays)
    kill_channels(network, rng)
    scorer = Scorer(network, dataset.x_train)
    scorer.recalibrate()
    round_biases(network)
    began = time.perf_counter()
    graph = to_graph(network, targets.Storage())
    file = tflite.write(graph)
    written = tflite.read(file)
    seconds = time.perf_counter() - began
    images, labels = dataset.x_test[: _IMAGES.value], dataset.y_test[: _IMAGES.value]
    codes = input_codes(written, images)
    row = {"subnet": str(subnet), "bytes": len(file), "export_seconds": seconds, "reads_back": written == graph}
    row |= stored(space, subnet, network.arrays(), written) | operators(file)
    simulated = scorer.logits(images).argmax(1)
    row["simulated_accuracy"] = float(np.mean(simulated == labels))
    for name, kernels in kernel_sets().items():
        classes = top1(file, codes, kernels)
        row[name] = {
            "top1_agreement": float(np.mean(classes == simulated)),
            "accuracy": float(np.mean(classes == labels)),
            "most_steps_of_an_operator": most_steps(file, written, codes[0], kernels),
        }
    if on_arm:
        graphs = {runtime: to_graph(network, targets.get(name).storage) for runtime, name in ARM_TARGETS.items()}
        row["arm"] = {runtime: arm(runtime, graph, codes, simulated, labels) for runtime, graph in graphs.items()}
    return row


def arm(runtime: str, graph: Graph, codes: np.ndarray, simulated: np.ndarray, labels: np.ndarray) -> dict:
    """The figures of one file on ARM kernels, on the first images."""
    from daqu_tf.devices import HostDevice
    from daqu_tf.export.encoding import encode, write

    codes, simulated, labels = codes[:ARM_IMAGES], simulated[:ARM_IMAGES], labels[:ARM_IMAGES]
    device = HostDevice(python=pathlib.Path(_ARM_ROOT.value, runtime, "python"), timeout_seconds=3600)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        write(encode(graph, targets.Storage()), path)
        classes = device.predict(path, (codes.astype(np.float32) + 128) / 255).argmax(1)
    return {
        "top1_agreement": float(np.mean(classes == simulated)),
        "accuracy_difference": float(np.mean(classes == labels) - np.mean(simulated == labels)),
    }


def kernel_sets() -> dict:
    """By name, what the runtime computes with."""
    import interpreters

    return {"xnnpack": interpreters.XNNPACK, "builtin": interpreters.BUILTIN}


def kill_channels(network, rng: np.random.Generator) -> None:
    """Gives some channels of every normalization a gamma of almost nothing, of either sign or 0."""
    arrays = network.arrays()
    for name, gamma in arrays.items():
        if name.endswith("/gamma"):
            dead = rng.random(gamma.shape) < DEAD_CHANNELS
            arrays[name] = np.where(dead, rng.choice([0.0, 1e-12, -1e-7, 1e-30], gamma.shape), gamma).astype(np.float32)
    network.load_arrays(arrays)


def stored(space: SearchSpace, subnet: Subnet, arrays: dict[str, np.ndarray], graph: Graph) -> dict:
    """How many of the file's integers and scales are the trained ones, computed from the weights without the exporter."""
    counts = collections.Counter()
    by_output = {operator.output: operator for operator in graph.operators if isinstance(operator, Weighted)}
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    for layer in space.layers(subnet):
        operator = by_output[layer.name]
        row = space.weight_bits.index(layer.weight_bits) if layer.weight_bits in space.weight_bits else 0
        steps = arrays[f"{layer.name}/kernel_log_step"]
        step = np.exp(steps[row if len(steps) > 1 else 0])
        kernel = arrays[f"{layer.name}/kernel"]
        kernel = kernel[..., 0] if layer.kind == "depthwise" else kernel
        limit = 2 ** (layer.weight_bits - 1) - 1
        trained = np.clip(np.round(kernel / step), -limit, limit)
        trained = np.moveaxis(trained, -1, 0).reshape(trained.shape[-1], -1)
        held = np.moveaxis(operator.weights, operator.channels_axis, 0).reshape(trained.shape)
        gamma = np.ones(len(held)) if layer.kind == "dense" else arrays[f"{layer.name}.normalize/gamma"].astype(np.float64)
        is_constant = ~held.any(axis=1)
        expected = trained * np.where(gamma < 0, -1, 1)[:, None]
        counts["integers"] += held[~is_constant].size
        counts["equal integers"] += int((held == expected)[~is_constant].sum())
        counts["constant channels"] += int(is_constant.sum())
        counts["constants with large gammas"] += int((np.abs(gamma) > 1e-3)[is_constant & trained.any(axis=1)].sum())
        counts["channels"] += len(held)
        if layer.kind != "dense":
            sigma = np.sqrt(arrays[f"{layer.name}.normalize/moving_variance"].astype(np.float64) + 1e-3)
            factor = np.abs(gamma) / sigma / (6 if layer.gates else np.sqrt(6) if layer.activation == "hard_swish" else 1)
        else:
            factor = np.full(len(held), 1 / 6 if layer.gates else np.sqrt(1 / 6) if layer.activation == "hard_swish" else 1.0)
        scale_limit = 255.5 * tensors[operator.output].scale / tensors[operator.input].scale
        scales = np.minimum((step * factor).astype(np.float32), np.float32(scale_limit))
        counts["scales"] += int((~is_constant).sum())
        counts["equal scales"] += int(np.isclose(operator.weight_scales, scales, rtol=3e-7, atol=0)[~is_constant].sum())
    return {name.replace(" ", "_"): count for name, count in counts.items()}


def operators(file: bytes) -> dict:
    """Operators by kind, those that touch floats, and the delegate's partitions."""
    import interpreters

    interpreter = interpreters.loaded(file, interpreters.XNNPACK)
    delegated = [operator["op_name"] for operator in interpreter._get_ops_details()]
    floats = [tensor["name"] for tensor in interpreter.get_tensor_details() if np.issubdtype(tensor["dtype"], np.floating)]
    plain = interpreters.loaded(file, interpreters.BUILTIN)._get_ops_details()
    kinds = collections.Counter(operator["op_name"] for operator in plain)
    return {"operators": dict(kinds), "float_tensors": len(floats), "partitions": delegated.count("DELEGATE")}


def input_codes(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Images at the file's resolution, as the integers that it reads."""
    from daqu_tf.supernet.layers import resize

    shape = graph.tensor(graph.input).shape
    resized = np.asarray(resize(images, shape[1:3]))
    # Divided, as devices do it and the simulation: halves, of which resized pixels are many, may fall otherwise if multiplied.
    return (np.clip(np.round(resized / np.float32(1 / 255)), 0, 255) - 128).astype(np.int8)


def top1(file: bytes, codes: np.ndarray, kernels) -> np.ndarray:
    """The class of every image."""
    import interpreters

    interpreter = interpreters.loaded(file, kernels)
    source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    classes = np.empty(len(codes), int)
    for number, image in enumerate(codes):
        interpreter.set_tensor(source, image[np.newaxis])
        interpreter.invoke()
        classes[number] = interpreter.get_tensor(sink).argmax()
    return classes


def most_steps(file: bytes, graph: Graph, image: np.ndarray, kernels) -> int:
    """How far any operator is from float64 arithmetic at most, in steps of its output, given its own integer inputs."""
    import integer_reference
    import interpreters

    values = integer_reference.run(graph, image[np.newaxis])
    most = 0
    for index, operator in enumerate(graph.operators):
        computed, _ = interpreters.run_file(interpreters.only_operator(file, index), values, kernels)
        most = max(most, interpreters.steps_apart(computed, values[operator.output]))
    return most


def measure(name: str, dataset: data.Dataset, space: SearchSpace, count: int) -> list[dict]:
    """The rows of one family."""
    folder = pathlib.Path(_FOLDER.value) / name
    folder.mkdir(parents=True, exist_ok=True)
    arrays = train(space, dataset, folder)
    path = folder / "subnets.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for number in range(count):
        on_arm = bool(_ARM_ROOT.value) and number < ARM_SUBNETS
        if number < len(rows) and (not on_arm or "arm" in rows[number]):
            continue
        rng = np.random.default_rng([_SEED.value, number])
        rows[number : number + 1] = [check(space, space.sample_by_gene(rng), arrays, dataset, rng, on_arm)]
        files.write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        agreement = rows[number]["xnnpack"]["top1_agreement"]
        print(f"{name}: {number + 1} of {count}, top-1 agreement {agreement:.4f}", flush=True)
    return rows[:count]


def summary(rows: list[dict]) -> dict:
    """The figures of one family."""
    total = {name: sum(row[name] for row in rows) for name in rows[0] if isinstance(rows[0][name], int)}
    figures = {
        "subnets": len(rows),
        "integers": total["integers"],
        "equal_integers": total["equal_integers"] / total["integers"],
        "equal_scales": total["equal_scales"] / total["scales"],
        "constant_channels": total["constant_channels"] / total["channels"],
        "constants_with_large_gammas": total["constants_with_large_gammas"],
        "read_back": sum(row["reads_back"] for row in rows),
        "float_tensors": total["float_tensors"],
        "most_partitions": max(row["partitions"] for row in rows),
        "median_export_seconds": float(np.median([row["export_seconds"] for row in rows])),
        "simulated_accuracy": float(np.mean([row["simulated_accuracy"] for row in rows])),
    }
    for kernels in ("xnnpack", "builtin"):
        found = [row[kernels] for row in rows]
        differences = [f["accuracy"] - row["simulated_accuracy"] for f, row in zip(found, rows)]
        figures[kernels] = agreement_of(found, differences)
        figures[kernels]["most_steps_of_an_operator"] = max(row["most_steps_of_an_operator"] for row in found)
    if on_arm := [row["arm"] for row in rows if "arm" in row]:
        by_runtime = {runtime: [row[runtime] for row in on_arm] for runtime in ARM_TARGETS}
        figures["arm"] = {
            name: agreement_of(found, [f["accuracy_difference"] for f in found]) for name, found in by_runtime.items()
        }
    return figures


def agreement_of(found: list[dict], differences: list[float]) -> dict:
    """How far some files agree with the simulation."""
    shares = [figures["top1_agreement"] for figures in found]
    return {
        "subnets": len(found),
        "mean_top1_agreement": float(np.mean(shares)),
        "worst_top1_agreement": min(shares),
        "accuracy_difference": float(np.mean(differences)),
    }


def bars_of(name: str, figures: dict) -> list[dict]:
    """What one family must show."""
    xnnpack, builtin = figures["xnnpack"], figures["builtin"]
    return [
        records.bar(f"{name}: stored integers that are the trained ones", figures["equal_integers"], 1.0, "at_least", "share"),
        records.bar(f"{name}: scales that are the trained ones", figures["equal_scales"], 1.0, "at_least", "share"),
        records.bar(f"{name}: an operator from float64, XNNPACK", xnnpack["most_steps_of_an_operator"], 1, "at_most", "steps"),
        records.bar(f"{name}: an operator from float64, built-in", builtin["most_steps_of_an_operator"], 1, "at_most", "steps"),
        records.bar(f"{name}: top-1 agreement, mean", xnnpack["mean_top1_agreement"], 0.995, "at_least", "share"),
        records.bar(f"{name}: top-1 agreement, worst", xnnpack["worst_top1_agreement"], 0.98, "at_least", "share"),
        records.bar(f"{name}: accuracy from the simulation", 100 * abs(xnnpack["accuracy_difference"]), 0.2, "at_most", "points"),
        records.bar(f"{name}: float tensors", figures["float_tensors"], 0, "at_most", "tensors"),
        records.bar(f"{name}: partitions of the delegate", figures["most_partitions"], 1, "at_most", "partitions"),
        records.bar(f"{name}: export, median", figures["median_export_seconds"], 3.0, "at_most", "s"),
    ]


def table(families: dict[str, dict]) -> dict:
    """For the page of benchmarks."""
    rows = []
    for name, figures in families.items():
        on_arm = {f"{runtime} on ARM": found for runtime, found in figures.get("arm", {}).items()}
        for kernels, found in {"xnnpack": figures["xnnpack"], "builtin": figures["builtin"], **on_arm}.items():
            shares = [found["mean_top1_agreement"], found["worst_top1_agreement"]]
            row = [*(f"{100 * share:.2f}%" for share in shares), f"{100 * found['accuracy_difference']:+.3f}"]
            rows.append([name, kernels, str(found["subnets"]), *row, str(found.get("most_steps_of_an_operator", ""))])
    columns = ["space", "kernels", "subnets", "top-1 agreement", "worst", "accuracy, points", "steps of an operator"]
    caption = "Files against the simulation, on test images; the last column against float64 arithmetic, operator by operator."
    return {"caption": caption, "columns": columns, "rows": rows}


def main(argv: list[str]) -> None:
    """Measures what is left and writes `results/export_exactness.json`."""
    del argv
    daqu_tf.check_keras()
    families = {"digits": "digits"} if _QUICK.value else FAMILIES
    given = {"digits": "digits"} | {name: flag.value for name, flag in _PATHS.items()}
    if missing := sorted({name for name in families.values() if not given[name]}):
        sys.exit(f"Give {', '.join(f'--{name}=FILE.npz' for name in missing)}, or --quick.")
    found = {}
    for name, source in families.items():
        dataset = data.load(given[source], seed=0)
        space = spaces.get(name).for_images(dataset.image_shape, dataset.num_classes)
        found[name] = summary(measure(name, dataset, space, 4 if _QUICK.value else _SUBNETS.value))
        print(json.dumps({name: found[name]}, indent=1), flush=True)
    bars = [bar for name, figures in found.items() for bar in bars_of(name, figures)]
    results = {"families": found, "tables": [table(found)]}
    name = "export_exactness_quick" if _QUICK.value else "export_exactness"
    print(f"Wrote {records.write(name, [_SEED.value], results, bars)}")


if __name__ == "__main__":
    app.run(main)
