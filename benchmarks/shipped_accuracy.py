"""Whether what was trained is what ships: the accuracy of fine-tuned networks, as a trial would score them, and as files.

    python benchmarks/shipped_accuracy.py --fashion_mnist=fashion_mnist.npz

A supernet is trained for some minutes. Of each precision some subnets are fine-tuned, as in a job. Each is then scored on the
test split three times: as trained, with the biases that a file holds (which is what a trial of the search scores), and as the file,
run by LiteRT. The same images are used for all three, so that the differences are paired.
"""

import os
import pathlib

import numpy as np
import records
from absl import app, flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
PRECISIONS = {"w2a2": (2, 2), "w2a8": (2, 8), "w4a4": (4, 4), "mixed": None}

_DATA = flags.DEFINE_string("fashion_mnist", None, "The data set: a .npz file.")
_MINUTES = flags.DEFINE_float("minutes", 3.0, "The minutes of the supernet's training.")
_SECONDS = flags.DEFINE_float("seconds", 40.0, "The seconds of each fine-tuning.")
_SUBNETS = flags.DEFINE_integer("subnets", 3, "The subnets of each precision.")
_FOLDER = flags.DEFINE_string("folder", "runs/shipped_accuracy", "What has been done so far.")
_SEED = flags.DEFINE_integer("seed", 0, "The seed of supernet and subnets.")
_QUICK = flags.DEFINE_bool("quick", False, "One subnet a precision of a small space on digits, about two minutes.")


def trained_supernet(space, dataset, folder):
    """The weights of a supernet that was trained here or in an earlier call."""
    from daqu_tf.files import read_arrays, write_arrays
    from daqu_tf.keras import keras
    from daqu_tf.supernet import Scorer, Supernet
    from daqu_tf.training import SupernetTraining, make_schedule

    path = folder / "supernet.npz"
    if not path.exists():
        keras.utils.set_random_seed(_SEED.value)
        supernet, minutes = Supernet(space), 0.5 if _QUICK.value else _MINUTES.value
        schedule = make_schedule(space, "sandwich", "progressive", minutes, "minutes", seed=_SEED.value)
        training = SupernetTraining(supernet, dataset, Scorer(supernet, dataset.x_train), schedule, folder)
        training.restore()
        training.run(lambda phase, done, figures: None)
        write_arrays(path, supernet.arrays())
    return read_arrays(path)


def scored(space, subnet, arrays, dataset, path):
    """For each image of the test split, whether each of the three forms is right."""
    from daqu_tf import targets
    from daqu_tf.devices import HostDevice
    from daqu_tf.export.export import export_tflite, round_biases
    from daqu_tf.export.proof import at_size
    from daqu_tf.supernet import Scorer
    from daqu_tf.training import FineTuner, FineTuning

    how = FineTuning(seconds=5.0 if _QUICK.value else _SECONDS.value, seed=_SEED.value)
    network, _ = FineTuner(space, arrays, dataset, how).tune(subnet)
    logits = {"trained": Scorer(network, dataset.x_train).logits(dataset.x_test)}
    export_tflite(network, path, images=dataset.x_search[:16])
    logits["file"] = HostDevice().predict(path, at_size(network, np.asarray(dataset.x_test)))
    round_biases(network, targets.Storage())
    logits["trial"] = Scorer(network, dataset.x_train).logits(dataset.x_test)
    return {name: each.argmax(1) == dataset.y_test for name, each in logits.items()}


def main(_) -> None:
    """Measures, and writes the result."""
    from daqu_tf import data, files, spaces

    folder = pathlib.Path(_FOLDER.value + ("_quick" if _QUICK.value else ""))
    folder.mkdir(parents=True, exist_ok=True)
    dataset = data.load("digits" if _QUICK.value else _DATA.value, 0)
    space = spaces.get("digits" if _QUICK.value else "mobilenet_v2_28").for_images(dataset.image_shape, dataset.num_classes)
    arrays, rng = trained_supernet(space, dataset, folder), np.random.default_rng(_SEED.value)
    rows, differences = [], {}
    for precision, bits in PRECISIONS.items():
        for number in range(1 if _QUICK.value else _SUBNETS.value):
            subnet = space.sample_by_gene(rng)
            subnet = subnet.with_bits(*bits) if bits else subnet
            path = folder / f"{precision}_{number}.json"
            if not path.exists():
                right = scored(space, subnet, arrays, dataset, folder / "model.tflite")
                files.write_json(path, {name: each.astype(int).tolist() for name, each in right.items()})
            right = {name: np.array(each) for name, each in files.read_json(path).items()}
            rows.append(
                {"precision": precision, "subnet": str(subnet)} | {name: float(each.mean()) for name, each in right.items()}
            )
            print(rows[-1], flush=True)
            for form in ("file", "trial"):
                differences.setdefault((precision, form), []).append(right["trained"] - right[form])
    bars = []
    for (precision, form), each in differences.items():
        paired = np.concatenate(each)
        points, error = 100 * paired.mean(), 100 * paired.std() / np.sqrt(len(paired))
        limit = (1.0 if precision == "w2a2" else 0.3) + 2 * error
        bars.append(records.bar(f"{precision}: the network as trained over its {form}, mean", points, limit, "at_most", "points"))
    records.write("shipped_accuracy" + ("_quick" if _QUICK.value else ""), [_SEED.value], rows, bars)


if __name__ == "__main__":
    app.run(main)
