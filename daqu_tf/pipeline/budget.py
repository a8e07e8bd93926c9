"""How a job's minutes are shared out among its stages and finalists."""

from collections.abc import Mapping

from daqu_tf import machine
from daqu_tf.runs.clock import Clock
from daqu_tf.runs.config import RunConfig

# Training gets a share of the budget, the search a share of what is left then: tracing takes its time in between. The rest is for
# fine-tuning, which gives more than a longer search would, but for a reserve, and the time that timing needs.
SUPERNET_SHARE, SEARCH_SHARE, RESERVE_SHARE = 0.25, 0.15, 0.04
TIMING_SECONDS_A_MODEL, REPORT_SECONDS = 2.0, 5.0
LEAST_FINE_TUNING_SECONDS = 3.0  # Of a finalist in a job that has used its minutes up: an end beats a kept budget.
OVERHEAD_SECONDS = 15.0  # Start and traces of one finalist; loading and scoring take their time by image.
OVERHEAD_SECONDS_AN_IMAGE = 4e-4


def left(clock: Clock, models: int) -> float:
    """Seconds until as many models must be timed."""
    after = REPORT_SECONDS + TIMING_SECONDS_A_MODEL * models + RESERVE_SHARE * clock.budget_seconds
    return clock.budget_seconds - after - clock.elapsed()


def workers(config: RunConfig) -> int:
    """How many processes work at once."""
    return config.workers or machine.cores()


def overhead(images: int) -> float:
    """Seconds that a finalist takes beside its fine-tuning, where there are so many training images."""
    return OVERHEAD_SECONDS + images * OVERHEAD_SECONDS_AN_IMAGE


def affordable(config: RunConfig, clock: Clock, images: int) -> int:
    """How many finalists the time left allows: at least one, and at most those asked for.

    Args:
        config: The settings. Where they give fine-tuning its epochs, all that are asked for are allowed, and may take longer.
        clock: The time that the job has used.
        images: How many images there are to train on.
    """
    wanted = config.finalists
    if config.finetune_epochs:
        return wanted
    rounds = left(clock, wanted) / (overhead(images) + LEAST_FINE_TUNING_SECONDS)
    return max(1, min(wanted, int(rounds * workers(config))))


def share_out(macs: Mapping[str, int], total_seconds: float, overhead_seconds: float) -> dict[str, float]:
    """Seconds of fine-tuning for each finalist: a larger network needs more of them for as many steps.

    Args:
        macs: Multiplications of each finalist, by its name.
        total_seconds: The seconds for all of them on one core.
        overhead_seconds: What each needs beside its training.
    """
    roots = {name: count ** (1 / 3) for name, count in macs.items()}
    free = max(total_seconds - overhead_seconds * len(macs), 0.0)
    return {name: free * root / sum(roots.values()) for name, root in roots.items()}
