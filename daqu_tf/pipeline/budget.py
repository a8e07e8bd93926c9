"""How a job's minutes are shared out among its stages and finalists."""

from collections.abc import Mapping

from daqu_tf import machine
from daqu_tf.runs.clock import Clock
from daqu_tf.runs.config import RunConfig

# Training gets a share of the budget, the search a share of what is left then: tracing takes its time in between. The rest is for
# fine-tuning, which gives more than a longer search would, but for a reserve, and the time that timing needs.
SUPERNET_SHARE, SEARCH_SHARE, RESERVE_SHARE = 0.2, 0.1, 0.03
TIMING_SECONDS_A_MODEL, REPORT_SECONDS = 2.0, 5.0
LEAST_FINE_TUNING_SECONDS = 3.0  # Of a finalist in a job that has used its minutes up: an end beats a kept budget.
# A finalist is worth its overhead if it sees so many images, more of them from random weights, or trains for so long.
WORTHWHILE_EPOCHS, EPOCHS_FROM_NOTHING, WORTHWHILE_SECONDS, LEAST_FINALISTS = 40.0, 120.0, 480.0, 3
RATE_SHARE = 0.05  # Of the budget, in which learning rates are tried with which a trained network may go on.
# Of the time for all finalists, in which the one that teaches the others has all cores: less where all have a trained start.
TEACHER_SHARE, STARTED_TEACHER_SHARE = 0.5, 0.3
SIBLING_SHARE = 0.15  # The length of the training of a sibling at fewer bits, as a share of its parent's.
OVERHEAD_SECONDS = 20.0  # Start, traces and proof of one finalist; loading and scoring take their time by image.
OVERHEAD_SECONDS_AN_IMAGE = 5e-4


def free_seconds(budget_seconds: float, models: int) -> float:
    """Seconds of a budget for all that comes before as many models are timed."""
    return (1 - RESERVE_SHARE) * budget_seconds - REPORT_SECONDS - TIMING_SECONDS_A_MODEL * models


def stage_seconds(config: RunConfig) -> tuple[float, float, float]:
    """Seconds for the supernet's training, for the search and for all finalists, of a job whose lengths no epochs give.

    Without a supernet, what is timed instead of a search takes no time to speak of, but a trained network's learning rate does.
    """
    free = free_seconds(60 * config.budget_minutes, config.finalists)
    if not config.searches_architectures:
        return 0.0, 0.0, free - (rate_seconds(config) if config.init_from else 0.0)
    supernet = 0.0 if config.supernet_from else SUPERNET_SHARE * 60 * config.budget_minutes
    search = SEARCH_SHARE * max(free - supernet, 0.0)
    return supernet, search, max(free - supernet - search, 0.0)


def rate_seconds(config: RunConfig) -> float:
    """Seconds in which learning rates are tried, all at once."""
    return RATE_SHARE * 60 * config.budget_minutes


def left(clock: Clock, models: int) -> float:
    """Seconds until as many models must be timed."""
    return free_seconds(clock.budget_seconds, models) - clock.elapsed()


def workers(config: RunConfig) -> int:
    """How many processes fine-tune at once: where there are GPUs, one on each, and otherwise one on each core."""
    return config.workers or len(machine.gpus()) or machine.cores()


def overhead(images: int) -> float:
    """Seconds that a finalist takes beside its fine-tuning, where there are so many training images."""
    return OVERHEAD_SECONDS + images * OVERHEAD_SECONDS_AN_IMAGE


def affordable(config: RunConfig, seconds: float, images: int, seconds_an_image: float) -> int:
    """How many finalists some time allows: at least three, since fewer are no front, and at most those asked for.

    Args:
        config: The settings. Where they give fine-tuning its epochs, all that are asked for are allowed, and may take longer.
        seconds: The time for all of them.
        images: The number of training images.
        seconds_an_image: The seconds that a training step takes for each image.
    """
    wanted = config.finalists
    if config.finetune_epochs:
        return wanted
    from_nothing = not (config.searches_architectures or config.init_from)
    epochs = EPOCHS_FROM_NOTHING if from_nothing else WORTHWHILE_EPOCHS
    worthwhile = min(WORTHWHILE_SECONDS, epochs * images * seconds_an_image)
    rounds = seconds / (overhead(images) + worthwhile)
    return min(wanted, max(LEAST_FINALISTS, int(rounds * workers(config))))


def teacher_share(config: RunConfig) -> float:
    """The share of the time for all finalists in which the one that teaches the others is trained."""
    return STARTED_TEACHER_SHARE if config.init_from else TEACHER_SHARE


def share_out(macs: Mapping[str, int], total_seconds: float, overhead_seconds: float) -> dict[str, float]:
    """Seconds of fine-tuning for each finalist: a larger network needs more of them for as many steps.

    Args:
        macs: Multiplications of each finalist, by its name.
        total_seconds: The seconds for all of them, one after another.
        overhead_seconds: What each needs beside its training.
    """
    shares = weights(macs)
    free = max(total_seconds - overhead_seconds * len(macs), 0.0)
    return {name: free * share / sum(shares.values()) for name, share in shares.items()}


def weights(macs: Mapping[str, int]) -> dict[str, float]:
    """How much of the time each finalist gets, in proportion to the others; by name, as the multiplications are."""
    return {name: count ** (1 / 3) for name, count in macs.items()}
