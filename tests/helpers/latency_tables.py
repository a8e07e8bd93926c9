"""A latency table that was made up: its predictions can be worked out by hand."""

from daqu_tf import spaces, targets
from daqu_tf.latency import blocks
from daqu_tf.latency.table import Correction, LatencyTable

TARGET = targets.get("litert_cpu")
SPACE = TARGET.restrict(spaces.get("digits"))
CORRECTION = Correction(2.0, 1.0, -0.5)
DEVICE = {"kind": "host", "cpu": "a cpu", "runtime": "ai-edge-litert", "runtime_version": "2.3.0", "threads": 1}


def table_of(space=SPACE, storage=TARGET.storage, correction=CORRECTION):
    """A table in which a block takes a microsecond a layer, and half of that if all of it is narrow."""
    prices = {key: len(block.layers) * (0.5 if "INT4" in key else 1.0) for key, block in blocks.every_block(space, storage).items()}
    names = {"container": storage.container, "runtime": storage.runtime}
    return LatencyTable(space.name, names, DEVICE, prices, correction)
