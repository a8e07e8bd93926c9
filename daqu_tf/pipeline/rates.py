"""The learning rate of networks that begin as a trained one, which is tried out: it depends on how much that one has learned.

A network of rich features may lose them at the rate at which random weights are trained. One that has learned little needs that
rate. A MobileNetV2 that was trained on Imagenette, in smaller form, came to 79.6% of flower photos in 300 seconds of one core at a
rate of 4e-3, and to 74.4% at 1e-3; in 60 seconds, smaller still, to 72.4%, 71.2% (1.3e-3) and 68.3% (4e-4): a short training tells
which rate is better (ours, one seed).

The choice starts `python -m daqu_tf.pipeline.rates FOLDER SUBNET RATE LENGTH PARENT` for each rate.
"""

import json
import math
import pathlib
import sys
from typing import Any

from daqu_tf import files, machine
from daqu_tf.pipeline import budget, processes
from daqu_tf.pipeline.job import Job
from daqu_tf.pipeline.plan import Plan
from daqu_tf.runs.config import RunConfig
from daqu_tf.spaces import Subnet

TRIED = (0.1, 1.0)  # Shares of the learning rate of networks from random weights.


def best_rate(job: Job, subnet: Subnet) -> float:
    """The learning rate with which a network is the more accurate on the search split after a short training.

    Where the settings name a rate, it is not tried.

    Args:
        job: The job, in whose folder the weights are with which the network begins.
        subnet: The network, the fastest of those that will be trained.

    Raises:
        DaquError: A process failed (how is said).
    """
    config = job.plan.config
    usual = config.how_to_fine_tune["learning_rate"]
    if config.learning_rate != RunConfig.learning_rate:
        return usual
    rates = [share * usual for share in TRIED]
    job.progress.update(f"learning rates {', '.join(f'{rate:g}' for rate in rates)} are tried", None)
    at_once = 1 if machine.gpus() else budget.workers(config)  # A process takes all of a GPU's memory.
    accuracies: dict[float, float] = {}
    for first in range(0, len(rates), at_once):
        accuracies |= _accuracies(job, subnet, rates[first : first + at_once])
    return max(rates, key=accuracies.__getitem__)


def _accuracies(job: Job, subnet: Subnet, rates: list[float]) -> dict[float, float]:
    """The accuracy on the search split after a short training, by the learning rate; all are trained at once."""
    folder, length = job.folder.path.resolve(), json.dumps(_length(job.plan))
    logs = {rate: folder / f"rate_{rate:g}.log" for rate in rates}
    with processes.Processes() as children:
        for rate, log in logs.items():
            arguments = [str(folder), json.dumps(subnet.to_json()), str(rate), length]
            children.running[str(rate)] = processes.start("pipeline.rates", arguments, folder, log)
        found = {float(rate): float(line) for rate, line in children.last_lines("tries a learning rate").items()}
    for log in logs.values():
        log.unlink(missing_ok=True)
    return found


def _length(plan: Plan) -> dict[str, Any]:
    """The length of a training, as arguments of `FineTuning`."""
    config, images = plan.config, len(plan.dataset.x_train)
    if config.finetune_epochs:
        return {"steps": math.ceil(budget.RATE_SHARE * config.finetune_epochs * images / config.batch_size)}
    return {"seconds": budget.rate_seconds(config)}


def accuracy(path: pathlib.Path, values: dict[str, int], rate: float, length: dict[str, Any]) -> float:
    """The accuracy on the search split of a network of a run that was trained with a learning rate for so long."""
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.training.fine_tuning import FineTuner, FineTuning

    plan = Plan.in_folder(path)
    how = FineTuning(**plan.how_to_fine_tune | {"learning_rate": rate, "seed": plan.config.seed} | length)
    tuner = FineTuner(plan.space, files.read_arrays(plan.folder.initial), plan.dataset, how)
    network, _ = tuner.tune(plan.space.subnet(values))
    return Scorer(network, plan.dataset.x_train).accuracy(plan.dataset.x_search, plan.dataset.y_search)


def main(arguments: list[str]) -> None:
    """A process that `best_rate` has started."""
    path, values, rate, length, parent = arguments
    processes.die_with(int(parent))
    processes.compute_on_one_thread()
    found = processes.in_sentences(lambda: accuracy(pathlib.Path(path), json.loads(values), float(rate), json.loads(length)))
    print(found, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
