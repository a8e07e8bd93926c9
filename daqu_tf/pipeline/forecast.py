"""What a job's minutes are worth on this machine: the plan that is made once, before anything is trained."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from daqu_tf import machine, targets
from daqu_tf.pipeline import budget, siblings
from daqu_tf.pipeline.speed import Speed
from daqu_tf.runs.config import RunConfig
from daqu_tf.spaces import SearchSpace
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs
from daqu_tf.training.samplers import Sandwich

# Of what the cores do on networks of one thread each, a supernet's step gets so much: its parts are small (ours).
SUPERNET_EFFICIENCY = 0.45
# From so many epochs of each finalist on, a trained network teaches its smaller forms; a step takes as long as so many opinions.
TAUGHT_EPOCHS, STEP_PASSES = 20, 3.0
TEACHER_EFFICIENCY, USEFUL_CORES = (
    0.3,
    4,
)  # What a further core adds to the training of one network, and of how many (ours, of two).
# What a process takes beside its images, and what a folder takes beside weights, of which it holds the supernet's and two
# checkpoints with the optimizer's state (ours).
PROCESS_BYTES, FOLDER_BYTES, COPIES_OF_WEIGHTS = 7e8, 5e6, 10


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a job will do in its minutes.

    Attributes:
        minutes: The minutes of each stage, by its name.
        supernet_images: How many images go through the supernet's steps, once for each subnet.
        finalists: How many networks are fine-tuned, at most.
        images: How many images the smallest and the largest of them see.
        has_teacher: Whether the largest of them is trained before the others, which then begin with its weights and are taught by
            it.
    """

    minutes: dict[str, float]
    supernet_images: float
    finalists: int
    images: tuple[float, ...]
    has_teacher: bool = False

    def to_json(self) -> dict[str, Any]:
        """The forecast as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Forecast":
        """The inverse of `to_json`."""
        return cls(**dict(content) | {"images": tuple(content["images"])})


def supernet_images(config: RunConfig, count: int, seconds_an_image: float) -> float:
    """About how many images the supernet's steps go through, once for each subnet.

    Args:
        config: The settings, whose minutes or epochs decide.
        count: The number of training images.
        seconds_an_image: What a step of the mean subnet takes for each image on one core.
    """
    if not config.searches_architectures:
        return 0.0
    if config.epochs:
        return config.epochs * count * Sandwich.SUBNETS
    return budget.stage_seconds(config)[0] * _networks_at_once() / seconds_an_image


def _networks_at_once() -> float:
    """How many networks of a core or a GPU each would be trained as fast as the supernet is."""
    return float(len(machine.gpus())) or machine.cores() * SUPERNET_EFFICIENCY


def of(config: RunConfig, space: SearchSpace, count: int, speed: Speed) -> Forecast:
    """The forecast of a job.

    Args:
        config: The settings.
        space: The part of the space that is searched.
        count: The number of training images.
        speed: What a training step takes on this machine.
    """
    macs = [costs.macs(space, one) for one in (hand_scaled(space)[0], space.largest())]
    mean = speed.seconds_an_image(sum(macs) / 2)
    workers, images = budget.workers(config), supernet_images(config, count, mean)
    supernet, search, left = budget.stage_seconds(config)
    rest = 60 * config.budget_minutes - supernet - search - left
    if config.epochs and not config.supernet_from:
        supernet = images * mean / _networks_at_once()
    finalists = budget.affordable(config, left, count, mean + speed.opinion)
    each = {str(index): int(macs[0] + (macs[1] - macs[0]) * index / max(finalists - 1, 1)) for index in range(finalists)}
    if config.finetune_epochs:
        seen = (config.finetune_epochs * count,) * 2
        left = sum(seen[0] * speed.seconds_an_image(size) + budget.overhead(count) for size in each.values()) / workers
    else:
        family = () if config.searches_bits else siblings.smaller(space, targets.get(config.target), space.largest())
        own = 1 / (1 + budget.SIBLING_SHARE * len(family))
        seen = _images(each, own * left, own * budget.overhead(count), min(workers, finalists), speed)
    may_teach = bool(config.init_from) or config.begin_with == "larger"
    may_teach = may_teach and not (config.searches_architectures or config.teacher)
    has_teacher = may_teach and finalists > 1 and min(seen) >= TAUGHT_EPOCHS * count
    if has_teacher and not config.finetune_epochs:
        *others, largest = each.values()
        share = budget.teacher_share(config)
        smallest, _ = _images(
            dict(zip(each, others)),
            (1 - share) * own * left,
            own * budget.overhead(count),
            min(workers, len(others)),
            speed,
            taught_by=largest,
        )
        seen = smallest, share * own * left * _speed_up() / speed.seconds_an_image(largest)
    stages = {"supernet": supernet, "search": search, "finalists": left, "timing and report": rest}
    minutes = {name: round(some / 60, 2) for name, some in stages.items()}
    return Forecast(minutes, round(images), finalists, tuple(map(round, seen)), has_teacher)


def _images(
    macs: Mapping[str, int], seconds: float, overhead: float, workers: int, speed: Speed, taught_by: int = 0
) -> tuple[float, float]:
    """How many images the first and the last of some networks see, which share the seconds of some workers.

    Args:
        macs: Multiplications of each network, by its name.
        seconds: The time for all of them, at once.
        overhead: The seconds that each needs beside its training.
        workers: How many are trained at once.
        speed: What a training step takes on this machine.
        taught_by: The multiplications of the network that teaches them; 0 where none does.
    """
    shares = budget.share_out(macs, seconds * workers, overhead)
    opinion = speed.seconds_an_image(taught_by) / STEP_PASSES if taught_by else speed.opinion
    times = {name: max(share, budget.LEAST_FINE_TUNING_SECONDS) for name, share in shares.items()}
    seen = [times[name] / (speed.seconds_an_image(count) + opinion) for name, count in macs.items()]
    return seen[0], seen[-1]


def _speed_up() -> float:
    """How many times as fast as on one core a network is trained on all of them."""
    return 1.0 if machine.gpus() else 1.0 + TEACHER_EFFICIENCY * (min(machine.cores(), USEFUL_CORES) - 1)


def text(forecast: Forecast, count: int, trials: int, workers: int, images_bytes: int, weights_bytes: int) -> str:
    """A forecast as lines for people, a stage a line.

    Args:
        forecast: The forecast.
        count: The number of training images.
        trials: The most subnets that the search scores.
        workers: How many processes fine-tune at once.
        images_bytes: What all images take in memory; nothing where they are mapped from a file.
        weights_bytes: What the weights of the supernet take.
    """
    small, large = forecast.images
    trained = f"{_count(forecast.supernet_images)} images through its subnets"
    skipped = () if forecast.minutes["search"] else ("supernet", "search")  # Networks that people scale by hand need neither.
    teaches = ", and teaches the others" if forecast.has_teacher else ""
    done = {
        "supernet": trained if forecast.minutes["supernet"] else "that of another run",
        "search": f"{trials} subnets at most",
        "finalists": f"{forecast.finalists} networks at most; the smallest sees {_seen(small, count)}, the largest "
        f"{_seen(large, count)}{teaches}",
    }
    lines = [f"plan: {sum(forecast.minutes.values()):.1f} minutes"]
    for stage, minutes in forecast.minutes.items():
        if stage in skipped:
            continue
        lines.append("  ".join([f"  {stage:18}{minutes:7.1f} min", *filter(None, [done.get(stage)])]))
    processes = 1 + min(workers, forecast.finalists)
    memory = processes * (PROCESS_BYTES + images_bytes)
    disk = FOLDER_BYTES + weights_bytes * (COPIES_OF_WEIGHTS + 2 * forecast.finalists)
    lines.append(f"  about {memory / 1e9:.1f} GB of memory in {processes} processes, and {disk / 1e6:.0f} MB in the output folder")
    return "\n".join(lines)


def _seen(images: float, count: int) -> str:
    return f"{_count(images)} images ({images / count:.0f} epochs)"


def _count(images: float) -> str:
    return f"{images / 1e6:.1f} million" if images >= 1e6 else f"{1000 * round(images / 1000):,}"
