"""Enumerates a restricted space and really scores every subnet of it with a trained supernet: the ground of `search_quality.py`.

    python benchmarks/search_tables.py --dataset=fashion_mnist.npz --supernet=supernet.npz

Accuracies are of inherited weights, recalibrated for each subnet, on part of the search split. They go line by line into a file, so
that the command goes on where it was cut off. Bytes are computed, and latencies come from a latency table of this machine.
"""

import gzip
import itertools
import json
import os
import pathlib

import numpy as np
import records
from absl import app, flags

from daqu_tf import data, files, latency, spaces, targets
from daqu_tf.devices import HostDevice
from daqu_tf.files import read_arrays
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import costs

IMAGES, SEED = 4000, 0
BASE = {"stem.width": (8,), "stage1.width": (8,), "stage1.depth": (1,), "stage2.width": (16,), "stage2.depth": (1,)}
BASE |= {"stage3.width": (24,), "stage3.depth": (1,), "stage4.width": (40,), "stage4.depth": (1,), "head.width": (128,)}
BASE |= {"kernel": (3,), "expansion": (4,)}  # Where there is that choice.
BITS = 4  # Of what is not chosen.
FREE = {  # Architecture and bits by layer; the bits of a last block are there only where the depth is.
    "fashion_mnist": {
        "stage2.block1.expansion": (3, 6),
        "stage3.width": (16, 40),
        "stage4.width": (24, 64),
        "stage4.depth": (1, 2),
        "stage2.block1.depthwise.weight_bits": (2, 4, 8),
        "stage3.block1.expand.weight_bits": (2, 4, 8),
        "stage3.block1.depthwise.weight_bits": (2, 4, 8),
        "stage4.block1.expand.weight_bits": (2, 4, 8),
        "stage4.block2.expand.weight_bits": (2, 4, 8),
    },
    "cifar10": {
        "stage2.block1.expansion": (3, 6),
        "stage3.depth": (1, 2),
        "stage4.width": (24, 64),
        "stage3.block1.expand.weight_bits": (2, 4),
        "stage3.block2.expand.weight_bits": (2, 4, 8),
        "stage4.block1.expand.weight_bits": (2, 4, 8),
        "stage4.block1.project.weight_bits": (2, 4, 8),
        "head.weight_bits": (2, 4, 8),
    },
}

_DATASET = flags.DEFINE_string("dataset", None, "A .npz with x_train, y_train, x_test, y_test; its name is the table's.")
_SUPERNET = flags.DEFINE_string("supernet", None, "supernet.npz of mobilenet_v2_28, trained on it.")
_FOLDER = flags.DEFINE_string("folder", "runs/search_quality", "Where the lines lie.")


def restricted(full: SearchSpace, name: str) -> SearchSpace:
    """The space that is enumerated: resolution, and what `FREE` names.

    Args:
        full: That of the supernet; its alphabets stay, so that its weights fit.
        name: Of the data set.
    """
    heights = full.genes[0].values
    choices = {"resolution": (heights[0], heights[-1]), **BASE, **FREE[name]}
    narrowed = {}
    for gene in full.genes:
        last = gene.name.rpartition(".")[2]
        bits = {"weight_bits": (BITS,), "activation_bits": (8,)}
        wanted = choices.get(gene.name) or choices.get(last) or bits[last]
        narrowed[gene.name] = tuple(value for value in wanted if value in gene.values) or gene.values
    return full.restrict(**narrowed)


def enumerate_subnets(space: SearchSpace) -> list[Subnet]:
    """Every subnet, in an order that is random but always the same."""
    every = itertools.product(*(gene.values for gene in space.genes))
    names = [gene.name for gene in space.genes]
    subnets = list(dict.fromkeys(space.subnet(dict(zip(names, values))) for values in every))
    return [subnets[index] for index in np.random.default_rng(SEED).permutation(len(subnets))]


def lines_of(path: pathlib.Path) -> list[float]:
    """The accuracies so far; a last line that was cut off is not there."""
    if not path.exists():
        return []
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    path.write_bytes(whole)
    return [json.loads(line)["accuracy"] for line in whole.splitlines()]


def score_all(path: pathlib.Path, dataset: data.Dataset, full: SearchSpace, subnets: list[Subnet]) -> None:
    """Appends the accuracy of every subnet that has none yet."""
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import Supernet

    supernet = Supernet(full)
    supernet.load_arrays(read_arrays(pathlib.Path(_SUPERNET.value)))
    scorer = Scorer(supernet, dataset.x_train)
    done = len(lines_of(path))
    with open(path, "a", buffering=1) as file:
        for subnet in subnets[done:]:
            supernet.activate(subnet)
            scorer.recalibrate()
            accuracy = scorer.accuracy(dataset.x_search[:IMAGES], dataset.y_search[:IMAGES])
            file.write(json.dumps({"accuracy": round(accuracy, 6)}) + "\n")


def latency_table(path: pathlib.Path, space: SearchSpace) -> latency.LatencyTable:
    """Of this machine: as it was measured once."""
    if not path.exists():
        store = latency.MeasurementStore(path.with_suffix(".sqlite"))
        latency.profile(HostDevice(), space, targets.get("litert_cpu").storage, store).save(path)
    return latency.LatencyTable.load(path)


def write_table(
    name: str, space: SearchSpace, subnets: list[Subnet], accuracies: list[float], table: latency.LatencyTable
) -> pathlib.Path:
    """Choices, subnets, accuracies and costs in one compressed file, from which `search_quality.py` works."""
    genomes = np.array([space.genome(subnet) for subnet in subnets])
    known = costs.of_many(space, genomes, targets.get("litert_cpu"))
    free = [gene for gene in space.genes if len(gene.values) > 1]
    depths = {gene.name: gene.values for gene in space.genes}
    content = {
        "choices": {gene.name: gene.values for gene in free},
        "conditions": {
            gene.name: [[gene.depth_gene, [value for value in depths[gene.depth_gene] if value >= gene.block]]]
            for gene in free
            if gene.depth_gene and len(depths[gene.depth_gene]) > 1
        },
        "genomes": [[gene.values.index(s[gene.name]) if gene.name in s.values else -1 for gene in free] for s in subnets],
        "metrics": {
            "accuracy": accuracies,
            "latency_us": np.round(table.predict_many(space, genomes), 3).tolist(),
            "file_bytes": known["file_bytes"].astype(int).tolist(),
            "deflated_bytes": known["deflated_bytes"].astype(int).tolist(),
        },
        "images": IMAGES,
        "latency": {"device": dict(table.device), "evidence": dict(table.evidence)},
        "base": str(subnets[0]),
    }
    path = records.RESULTS / f"search_quality_{name}.json.gz"
    files.write_bytes(path, gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))
    return path


def main(argv):
    """Scores what is left to score."""
    del argv
    os.environ["OMP_NUM_THREADS"] = "1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    name = pathlib.Path(_DATASET.value).stem
    dataset = data.load(_DATASET.value, seed=0)
    full = spaces.get("mobilenet_v2_28").for_images(dataset.image_shape, dataset.num_classes)
    subnets = enumerate_subnets(restricted(full, name))
    print(f"{name}: {len(subnets)} subnets", flush=True)
    folder = pathlib.Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    score_all(folder / f"{name}.jsonl", dataset, full, subnets)
    space, accuracies = restricted(full, name), lines_of(folder / f"{name}.jsonl")
    print(write_table(name, space, subnets, accuracies, latency_table(folder / f"{name}_latency.json", space)))


if __name__ == "__main__":
    flags.mark_flags_as_required(["dataset", "supernet"])
    app.run(main)
