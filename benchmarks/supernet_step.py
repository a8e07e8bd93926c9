"""A training step of the supernet beside one of a static TFMOT 8-bit QAT model of the same subnet.

  python benchmarks/supernet_step.py --spaces=mobilenet_v2_28,mobilenet_v3_cifar --subnets=100

Both are timed in turn, in one process, with all cores: forward, backward and update of one subnet at batch 128. The supernet's is
the very step of `training.py`; the other is what a practitioner writes: `quantize_model`, or, where TFMOT refuses a layer,
as in MobileNetV3, `quantize_apply` on the layers that it takes, and Keras's AdamW in a `tf.function`. Also: traces, peak memory
of either in a process of its own, and subnets scored a minute on 6,000 images, each recalibrated first. Images are random: time
does not depend on them. Cut off, it goes on where it was.

What the profile showed, and what came of it (AMD EPYC with AVX-512, oneDNN on, a subnet of mobilenet_v2_28):
- LSQ's gradient of activation steps as elementwise operators took 53 ms where all matrix products took 30. Inside blocks it now
  comes from batch normalization's own gradients and the next kernel's, and costs nothing (`layers.py`, `as_codes`).
- Batch normalization, ReLU and LSQ in one function compiled by XLA: 5.9 ms for 2.4 million values, forward and backward. The four
  kernels that are used now, oneDNN's normalization and TensorFlow's `QuantizeAndDequantize`: 2.8. So nothing is compiled.
- Pointwise layers as matrix products: 12 ms, TFMOT's convolutions 28. TFMOT's `FakeQuant` and the ranges it follows: 21 ms, ours 9.
- What is left beyond a static network of the same subnet, about an eighth: branches for depth and float, and kernels that are
  quantized whole before they are sliced.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import records
from absl import app, flags

import daqu_tf
from daqu_tf import spaces
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BATCH = 128
LIMIT, AIM = 1.2, 0.9
SCORED_IMAGES, SCORED_SUBNETS = 6000, 30

_SPACES = flags.DEFINE_list("spaces", ["mobilenet_v2_28", "mobilenet_v3_cifar"], "Search spaces.")
_SUBNETS = flags.DEFINE_integer("subnets", 100, "Random subnets of each, uniform over subnets.")
_STEPS = flags.DEFINE_integer("steps", 9, "Timed steps of each of the two, after three that are not.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the subnets.")
_STATE = flags.DEFINE_string("state", "runs/supernet_step.jsonl", "What has been measured so far; the command goes on from there.")
_MINUTES = flags.DEFINE_float("minutes", None, "Measure no further subnet after this time, and sum up what there is.")
_QUICK = flags.DEFINE_bool("quick", False, "Three subnets of the first space and no memory: the same figures, coarsely.")
_MEMORY_OF = flags.DEFINE_string("memory_of", None, "Only print the peak memory of training `supernet` or `tfmot` (internal).")


def images_of(space: SearchSpace, count: int = BATCH) -> np.ndarray:
    """Random images (count, height, width, channels)."""
    return np.random.default_rng(0).integers(0, 256, (count, *space.input_shape)).astype(np.float32) / 255


class SupernetStep:
    """A step of `training.py` on one subnet."""

    def __init__(self, space: SearchSpace):
        import tensorflow as tf

        from daqu_tf.supernet.supernet import Supernet
        from daqu_tf.training.optimizer import Optimizer

        self.supernet = Supernet(space)
        self.optimizer = Optimizer(self.supernet, 1e-4)
        self._images, self._labels = images_of(space), np.random.default_rng(1).integers(0, space.num_classes, BATCH)
        self.supernet.initialise_steps(self._images, space.weight_bits)
        self._batch = tf.constant(self._images), tf.one_hot(self._labels, space.num_classes)

    def prepare(self, subnet: Subnet) -> None:
        """Makes it the active one."""
        self.supernet.activate(subnet)

    def traces(self) -> int:
        """Of both functions, beyond the first of each."""
        functions = (self.optimizer.accumulate, self.optimizer._apply)
        return sum(function.experimental_get_tracing_count() - 1 for function in functions)

    def compilations(self) -> int:
        """Functions in the step that XLA compiles, for every shape that it meets."""
        graph = self.optimizer.accumulate.get_concrete_function().graph.as_graph_def()
        return sum(function.attr["_XlaMustCompile"].b for function in graph.library.function)

    def __call__(self) -> float:
        """Returns the loss."""
        loss, _ = self.optimizer.accumulate(*self._batch)
        self.optimizer.apply(0.5)
        return float(loss)


class TfmotStep:
    """A step of a TFMOT model of one subnet, as `practitioner.py` takes it."""

    def __init__(self, space: SearchSpace):
        self._space = space

    def prepare(self, subnet: Subnet) -> None:
        """Builds and traces the subnet's model."""
        import tensorflow as tf

        from daqu_tf.keras import keras
        from daqu_tf.spaces.architecture import image_size
        from daqu_tf.supernet.layers import resize

        space = self._space
        images = resize(tf.constant(images_of(space)), image_size(space.input_shape, subnet["resolution"]))
        self._batch = images, tf.constant(np.random.default_rng(1).integers(0, space.num_classes, BATCH))
        model, loss = self.model(subnet), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.AdamW(1e-4)

        @tf.function
        def step(images, labels):
            with tf.GradientTape() as tape:
                value = loss(labels, model(images, training=True))
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))
            return value

        self._step = step

    def model(self, subnet: Subnet):
        """The network that is trained."""
        return tfmot_model(self._space, subnet)

    def __call__(self) -> float:
        """Returns the loss."""
        return float(self._step(*self._batch))


def tfmot_model(space: SearchSpace, subnet: Subnet):
    """The subnet's architecture in stock layers, for 8-bit quantization-aware training by TFMOT."""
    import tensorflow_model_optimization as tfmot

    from daqu_tf.keras import keras
    from daqu_tf.supernet.baked import bake
    from daqu_tf.supernet.supernet import StaticNetwork

    model = bake(StaticNetwork(space, subnet.with_bits(FLOAT_BITS, FLOAT_BITS)))
    refused = (keras.layers.Multiply, keras.layers.Reshape, keras.layers.InputLayer)

    def annotate(layer):
        taken = type(layer).__module__.startswith("tf_keras.src.layers") and not isinstance(layer, refused)
        taken = taken and "TFOpLambda" not in type(layer).__name__
        return tfmot.quantization.keras.quantize_annotate_layer(layer) if taken else layer

    if not any(isinstance(layer, keras.layers.Multiply) for layer in model.layers):
        return tfmot.quantization.keras.quantize_model(model)
    return tfmot.quantization.keras.quantize_apply(keras.models.clone_model(model, clone_function=annotate))


def in_turn(ours, theirs, steps: int) -> tuple[list[float], list[float]]:
    """Milliseconds of every step of either, one after the other."""
    samples = [], []
    for count in range(-3, steps):
        for step, taken in zip((ours, theirs), samples):
            began = time.perf_counter()
            step()
            if count >= 0:
                taken.append(1e3 * (time.perf_counter() - began))
    return samples


def measure(space: SearchSpace, count: int, state: pathlib.Path) -> list[dict]:
    """One row a subnet."""
    import tensorflow as tf

    rows = [json.loads(line) for line in state.read_text().splitlines()] if state.exists() else []
    setting = {"space": space.name, "seed": _SEED.value, "steps": _STEPS.value}
    rows = [row for row in rows if row.items() >= setting.items()][:count]
    genomes = space.sample_genomes(np.random.default_rng(_SEED.value), count)
    ours, theirs = SupernetStep(space), TfmotStep(space)
    began = time.monotonic()
    for genome in genomes[len(rows) :]:
        if _MINUTES.value is not None and time.monotonic() - began > 60 * _MINUTES.value and rows:
            break
        subnet = space.from_genome(genome)
        ours.prepare(subnet)
        theirs.prepare(subnet)
        samples = in_turn(ours, theirs, _STEPS.value)
        medians = [float(np.median(taken)) for taken in samples]
        row = {"subnet": str(subnet), "ms": medians, "ratio": medians[0] / medians[1], "traces": ours.traces()}
        rows.append(setting | row)
        with state.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(f"{space.name} {len(rows)}/{count}: {medians[0]:.1f} ms, TFMOT {medians[1]:.1f} ms, ratio {rows[-1]['ratio']:.2f}")
        theirs = TfmotStep(space)
        tf.keras.backend.clear_session()
    return rows


def scored_a_minute(space: SearchSpace) -> float:
    """Subnets recalibrated and scored on 6,000 images."""
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import Supernet

    images = images_of(space, SCORED_IMAGES)
    labels = np.zeros(SCORED_IMAGES, int)
    supernet = Supernet(space)
    supernet.initialise_steps(images[:BATCH], space.weight_bits)
    scorer = Scorer(supernet, images)
    subnets = [space.from_genome(genome) for genome in space.sample_genomes(np.random.default_rng(2), SCORED_SUBNETS + 2)]
    scorer.evaluate(subnets[:2], images, labels)  # Traces.
    began = time.perf_counter()
    scorer.evaluate(subnets[2:], images, labels)
    return 60 * SCORED_SUBNETS / (time.perf_counter() - began)


def peak_bytes(space: SearchSpace, kind: str) -> int:
    """Of a process that trains the largest subnet, by the supernet or by TFMOT."""
    command = [sys.executable, __file__, f"--spaces={space.name}", f"--memory_of={kind}"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(space: SearchSpace, kind: str) -> None:
    """The process that `peak_bytes` starts."""
    step = (SupernetStep if kind == "supernet" else TfmotStep)(space)
    step.prepare(space.largest())
    for _ in range(5):
        step()
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def summary(space: SearchSpace, rows: list[dict]) -> dict:
    """The figures of one space."""
    ratios = np.array([row["ratio"] for row in rows])
    quantiles = dict(zip(("p10", "median", "p90"), np.quantile(ratios, (0.1, 0.5, 0.9)).tolist()))
    figures = {"ratio": quantiles | {"max": ratios.max()}, "traces_after_the_first": max(row["traces"] for row in rows)}
    figures |= {"subnets": len(rows), "xla_compilations": SupernetStep(space).compilations()}
    figures["scored_a_minute"] = scored_a_minute(space)
    if not _QUICK.value:
        figures["peak_bytes"] = {kind: peak_bytes(space, kind) for kind in ("supernet", "tfmot")}
    return figures | {"rows": rows}


def main(argv: list[str]) -> None:
    """Measures and writes `results/supernet_step.json`."""
    del argv
    daqu_tf.check_keras()
    named = [spaces.get(name) for name in _SPACES.value]
    if _MEMORY_OF.value:
        print_peak(named[0], _MEMORY_OF.value)
        return
    named, count = (named[:1], 3) if _QUICK.value else (named, _SUBNETS.value)
    state = pathlib.Path(_STATE.value).with_suffix(".quick.jsonl" if _QUICK.value else ".jsonl")
    state.parent.mkdir(parents=True, exist_ok=True)
    results, bars = {}, []
    for space in named:
        results[space.name] = found = summary(space, measure(space, count, state))
        ratio, traces = found["ratio"]["median"], found["traces_after_the_first"]
        bars.append(records.bar(f"{space.name}: median step over TFMOT's", ratio, LIMIT, "at_most", "ratio"))
        bars.append(records.bar(f"{space.name}: traces after the first call", traces, 0, "at_most", "traces"))
    print(f"Wrote {records.write('supernet_step_quick' if _QUICK.value else 'supernet_step', [_SEED.value], results, bars)}")


if __name__ == "__main__":
    app.run(main)
