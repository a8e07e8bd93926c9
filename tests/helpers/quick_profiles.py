"""A part of the space `digits` with few blocks, and settings with which a profile of it takes seconds."""

from daqu_tf.latency.profiling import Settings

FEW = {"resolution": (8,), "stem.width": (4,), "kernel": (3,), "expansion": (1, 2), "stage1.width": (4,), "stage2.width": (8, 16)}
QUICK = Settings(min_runs=3, min_seconds=0.001, max_warmup_seconds=0.001, calibration=8, validation=8, most_repeats=2)
