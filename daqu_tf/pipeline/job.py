"""What the stages of a job share: the plan, the folder, the device, and networks that take long to make."""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from daqu_tf import files, targets
from daqu_tf.devices import Device, Patience, connect_with
from daqu_tf.latency.table import LatencyTable
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.progress import Progress
from daqu_tf.runs.clock import Clock
from daqu_tf.runs.config import RunConfig

if TYPE_CHECKING:
    import tensorflow as tf

    from daqu_tf.search.candidates import Candidates
    from daqu_tf.supernet import Scorer, Supernet

SEARCH_IMAGES = 3000  # The most on which a subnet is scored in the search; finalists are chosen by all of the split.


class Job:
    """One call of the job, or of a worker of its search.

    Args:
        plan: What is to be done.
        strategy: On which devices the supernet is trained; None where it is trained already.
        device: What times files; None where nothing is left to be timed.
        progress: What shows a person how far the job is.
        began: When this part of the job began, by the monotonic clock; None takes now.
    """

    def __init__(
        self,
        plan: Plan,
        strategy: "tf.distribute.Strategy | None",
        device: Device | None,
        progress: Progress,
        began: float | None = None,
    ):
        self.plan, self.folder, self.strategy, self.progress = plan, plan.folder, strategy, progress
        self._device = device
        self.clock = Clock(self.folder.clock, 60 * (plan.config.budget_minutes + self.folder.added_minutes), began)
        self._timeline = files.read_json(self.folder.timeline, [])

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Names the stage in the progress line and writes its seconds down, even if it is cut off by an error."""
        self.progress.begin(name)
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self.progress.abandon()
            raise
        finally:
            self._timeline.append({"stage": name, "seconds": round(time.monotonic() - began, 1)})
            files.write_json(self.folder.timeline, self._timeline)
            self.clock.tick(now=True)

    @property
    def device(self) -> Device:
        """What times files."""
        assert self._device, "a stage that times files runs where a device is connected"
        return self._device

    @property
    def times_files(self) -> bool:
        """Whether a device is connected."""
        return self._device is not None

    @functools.cached_property
    def supernet(self) -> "Supernet":
        """One for training and search, since a trace takes many seconds; its initial weights are given, or drawn from the seed."""
        from daqu_tf.keras import keras
        from daqu_tf.supernet.supernet import Supernet

        keras.utils.set_random_seed(self.plan.config.seed)
        with self.strategy.scope() if self.strategy else contextlib.nullcontext():
            supernet = Supernet(self.plan.space, self.plan.config.half_type)
            if self.plan.config.init_from:
                supernet.load_arrays(files.read_arrays(self.folder.initial))
            return supernet

    @functools.cached_property
    def scorer(self) -> "Scorer":
        """What recalibrates and scores the supernet's active subnet."""
        from daqu_tf.supernet.scoring import Scorer

        return Scorer(self.supernet, self.plan.dataset.x_train)

    @property
    def has_table(self) -> bool:
        """Whether the latencies of the search come from a table."""
        return self.plan.config.latency == "table" or bool(self.plan.config.latency_table)

    @functools.cached_property
    def table(self) -> LatencyTable | None:
        """What prices the subnets of the search, if a table does."""
        return LatencyTable.load(self.folder.table) if self.has_table else None

    def candidates(self, latency: Device | LatencyTable, name: str = "trial") -> "Candidates":
        """The trained supernet's subnets, as a trial measures them.

        Args:
            latency: What times their files, or the table that prices them.
            name: The name of the file of the trial in flight, and of the worker where there are several.
        """
        from daqu_tf.search.candidates import Candidates

        plan = self.plan
        self.supernet.load_arrays(files.read_arrays(self.folder.supernet))
        return Candidates(
            self.supernet,
            self.scorer,
            plan.dataset,
            plan.target,
            self.folder.search,
            SEARCH_IMAGES,
            latency,
            plan.config.constraints,
            name,
            plan.searched,
            plan.search_objectives,
        )


def connect_device(config: RunConfig, progress: Progress) -> Device:
    """What times files; one that is lost is waited for.

    Args:
        config: The settings, which name the device and say how it times.
        progress: Where it is said that the device is waited for.

    Raises:
        DaquError: The device does not answer, or its runtime does not run the target's files.
    """
    device = connect_with(**config.how_to_time, patience=Patience(notify=progress.warn))
    targets.for_device(device.identity(), config.target)
    return device
