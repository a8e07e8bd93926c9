"""How a job's minutes are shared out."""

OVERHEAD_SECONDS = 15.0  # Start and traces of one finalist; loading and scoring take their time by image.
OVERHEAD_SECONDS_AN_IMAGE = 4e-4


# Training gets a share of the budget (`preparation`), the search a share of what is left then: tracing takes its time in between.
# The rest is for fine-tuning, which gives more than a longer search would, but for a reserve, and the time that timing needs.
SEARCH_SHARE, RESERVE_SHARE = 0.15, 0.04


TIMING_SECONDS_A_MODEL, REPORT_SECONDS = 2.0, 5.0


LEAST_FINE_TUNING_SECONDS = 3.0


def share_out(macs: dict[str, int], total_seconds: float, overhead_seconds: float) -> dict[str, float]:
    """Seconds of fine-tuning for each finalist: a larger network needs more of them for as many steps.

    Args:
        macs: By finalist.
        total_seconds: For all of them on one core.
        overhead_seconds: What each needs beside its training.
    """
    roots = {name: count ** (1 / 3) for name, count in macs.items()}
    free = max(total_seconds - overhead_seconds * len(macs), 0.0)
    return {name: free * root / sum(roots.values()) for name, root in roots.items()}
