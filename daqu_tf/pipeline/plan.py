"""What a job is going to do: its settings, and everything that they stand for."""

import dataclasses
import decimal
import functools
import hashlib
import importlib.metadata
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import daqu_tf
from daqu_tf import data, files, targets
from daqu_tf.data import Dataset
from daqu_tf.errors import DaquError
from daqu_tf.latency.table import LatencyTable
from daqu_tf.pipeline import adopted, budget, forecast, initial, limits, suiting
from daqu_tf.pipeline.budget import SUPERNET_SHARE
from daqu_tf.pipeline.forecast import Forecast
from daqu_tf.pipeline.narrowing import held, least_minutes, narrowed, supernet_pays, widest
from daqu_tf.pipeline.speed import USUAL, Speed
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import FORMAT, RunFolder
from daqu_tf.spaces import SearchSpace, Subnet
from daqu_tf.spaces.fitting import fitted
from daqu_tf.spaces.hand_scaled import finely_scaled, reduced
from daqu_tf.targets import Target, costs
from daqu_tf.tflite import Metadata
from daqu_tf.training.schedule import Schedule, check_batch_size, make_schedule

if TYPE_CHECKING:
    from daqu_tf.stock_models.transfer import Start

FLOAT_SHARE = 0.7  # Of a training from random weights, as practitioners do it, and of one from a network that was trained in float.
START_RATE = 0.1  # The learning rate of networks that begin as a trained one, as a share of that of others.
BATCH_PIXELS, LEAST_BATCH = 64 * 96 * 96, 8  # More pixels in a batch, twice that in fine-tuning, take gigabytes of activations.
LEAST_STEPS_AN_EPOCH = 40  # With fewer images than that takes, steps of fine-tuning are not made larger.
_PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "keras-tuner", "ai-edge-litert", "numpy")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What a job is going to do.

    Attributes:
        config: The settings.
        dataset: The images and labels that they name.
        space: The part of the search space that matters to the target, for the images and classes of the data set.
        target: What the networks are for.
        schedule: How the supernet is trained.
        speed: What a training step takes on the machine on which the run was begun.
        begun_with: The forecast that the run was begun with; None where it has not begun.
        start: The trained network from which a new run begins; None where there is none, or the run has begun.
    """

    config: RunConfig
    dataset: Dataset
    space: SearchSpace
    target: Target
    schedule: Schedule
    speed: Speed
    begun_with: Forecast | None = None
    start: "Start | None" = None

    @classmethod
    def of(
        cls,
        config: RunConfig,
        known: Mapping[str, Any] | None = None,
        space_for: Callable[[Dataset, Target], str] = lambda dataset, target: suiting.USUAL,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "Plan":
        """The plan that settings stand for.

        Args:
            config: The settings.
            known: The content of `config.json` of the run that goes on, if one does. The space and the schedule that it was begun
                with are its own, whatever the same names stand for by now.
            space_for: Names the space for images and a target, where the settings leave it open and no run goes on.
            on_progress: Is called, while photos are decoded, with how many are done, and with the number of all.

        Raises:
            DaquError: A file of the settings cannot be read, or things do not go together (which ones is said).
        """
        asked = config.given  # A copy of the settings counts all of them as given.
        trained = initial.network_of(config) if config.init_from and not known else None
        config = initial.sized(config, trained) if trained else config
        dataset = data.load(config.dataset, config.seed, how=config.reading, on_progress=on_progress)
        config = config if known or "batch_size" in asked else _with_batch_for(dataset.image_shape, config)
        target = targets.get(config.target)
        start = initial.start(trained, dataset, target, config.seed) if trained else None
        if not known:
            known = adopted.settings_of(config, dataset) if config.supernet_from else {}
        speed = Speed.from_json(known["speed"]) if "speed" in known else USUAL
        if "search_space" in known and not config.space.endswith(".json"):
            space = SearchSpace.from_json(known["search_space"])
        else:
            name = space_for(dataset, target) if config.space == "auto" and not start else config.space
            nominal = start.space if start else target.restrict(_nominal(name, dataset))
            space = narrowed(nominal, config, len(dataset.x_train), speed)
        if "schedule" in known and not config.schedule:
            schedule = Schedule.from_json(known["schedule"])
        else:
            schedule = _schedule(config, space)
        begun_with = Forecast.from_json(known["forecast"]) if "forecast" in known else None
        return cls(config, dataset, space, target, schedule, speed, begun_with, start)

    def at(self, speed: Speed) -> "Plan":
        """The plan of the same settings on a machine of this speed, where it is decided whether architectures are searched."""
        config, count, nominal = self.config, len(self.dataset.x_train), self.target.restrict(self._nominal)
        if config.may_do_without_supernet:
            pays = supernet_pays(nominal, config, count, speed)
            config = dataclasses.replace(config, architectures="search" if pays else "hand_scaled")
        space = narrowed(nominal, config, count, speed)
        return dataclasses.replace(self, config=config, space=space, schedule=_schedule(config, space), speed=speed)

    @classmethod
    def in_folder(cls, path: pathlib.Path) -> "Plan":
        """The plan of the run in a folder, wherever that was when the run began.

        Raises:
            DaquError: There is no run, or its data cannot be read any more.
        """
        folder = RunFolder(path)
        return cls.of(dataclasses.replace(folder.run_config(), output_dir=str(path)), folder.settings())

    @property
    def folder(self) -> RunFolder:
        """Where the job writes."""
        return RunFolder(self.config.folder)

    @functools.cached_property
    def forecast(self) -> Forecast:
        """What the job will do in its minutes; of a run that goes on, what it was begun with."""
        return self.begun_with or forecast.of(self.config, self.space, len(self.dataset.x_train), self.speed)

    @property
    def text(self) -> str:
        """The forecast as lines for people."""
        config, count = self.config, len(self.dataset.x_train)
        images = self.dataset.x_train.nbytes + self.dataset.x_search.nbytes + self.dataset.x_test.nbytes
        weights = 4 * costs.parameters(self.space, self.space.largest())
        return forecast.text(self.forecast, count, config.max_trials, budget.workers(config), images, weights)

    @property
    def notes(self) -> list[str]:
        """What the minutes are too few for, a sentence each."""
        notes = []
        least = least_minutes(self.space, self.config, len(self.dataset.x_train), self.speed)
        if self.config.budget_minutes < least:
            notes.append(
                f"The budget is too short for networks that can be compared: their accuracies will mean little. From {least} "
                "minutes on, even the smallest sees the images that it needs."
            )
        if channels := widest(self.space, self._nominal):
            notes.append(f"The minutes are too few to train more than {channels} channels: wider networks are left out.")
        if not self.config.searches_architectures:
            which = f"networks of {self.space.name} that people scale by hand, each from random weights"
            if self.forecast.has_teacher:
                which = f"a network of {self.space.name}, and to smaller forms of it, which begin with its weights"
            if self.config.init_from:
                which = f"{self.space.name} and smaller forms of it, from its weights"
            notes.append(
                f"The minutes are too few for a supernet to pay: all go to {which}. To search all the same, give "
                "--architectures=search."
            )
        elif kinds := held(self.space, self._nominal):
            notes.append(f"The minutes are too few to learn {kinds}: these stay as in the network that people scale by hand.")
        return notes

    @property
    def _nominal(self) -> SearchSpace:
        """All of the space, for the images and classes of the data set."""
        config = self.config
        if config.init_from:
            return self.space
        return _nominal(self.space.name if config.space == "auto" else config.space, self.dataset)

    @property
    def searched(self) -> SearchSpace:
        """The part of the space from which the search takes trials: all of it, or its highest bits."""
        if self.config.searches_bits:
            return self.space
        highest = {name: getattr(self.space, name)[-1:] for name in ("weight_bits", "activation_bits")}
        return self.space.restrict(**highest)

    @property
    def search_objectives(self) -> tuple[tuple[str, str], ...]:
        """The objectives of the search: the target's, or accuracy and latency where bytes are left to siblings."""
        return self.target.objectives if self.config.searches_bits else self.target.objectives[:2]

    @property
    def how_to_fine_tune(self) -> dict[str, Any]:
        """The settings of a fine-tuning by name, but for its length.

        At the highest bits alone, steps of twice as many images at twice the rate see more images in the same time, and ended half
        a point higher (ours, one seed); few bits do not bear the rate, and few images need the steps. From random weights, most of
        the training is in float.
        """
        settings = self.config.how_to_fine_tune
        if not self.config.searches_architectures:
            settings |= {"float_share": FLOAT_SHARE}
        if self.config.init_from:
            return settings | {"learning_rate": START_RATE * self.config.learning_rate}
        twice = 2 * settings["batch_size"]
        if self.config.searches_bits or len(self.dataset.x_train) < LEAST_STEPS_AN_EPOCH * twice:
            return settings
        return settings | {"batch_size": twice, "learning_rate": min(1.0, 2 * settings["learning_rate"])}

    @functools.cached_property
    def given_table(self) -> LatencyTable | None:
        """The latency table that the settings name, or the copy in the folder if that is all that is left of it.

        Raises:
            DaquError: The file holds no table, one of another space, or one that is of no use to the target.
        """
        config, target = self.config, self.target
        if (config.latency_table or config.latency == "table") and "latency_us" not in dict(target.objectives):
            raise DaquError(f"A latency table has no effect on target {target.name}, which does not count latency: leave it out.")
        if not config.latency_table:
            return None
        given, copy = pathlib.Path(config.latency_table), self.folder.table
        table = LatencyTable.load(copy if copy.exists() and not given.exists() else given)
        table.check(self.space, target.storage)
        return table

    def check(self) -> None:
        """Refuses what does not go together.

        Raises:
            DaquError: The schedule or the batch does not fit the images, the latency table does not fit the space, or no network
                can meet a constraint.
        """
        images = len(self.dataset.x_train)
        self.schedule.check(self.space, images)
        check_batch_size(self.config.batch_size, images)  # The batch of fine-tuning, where a file says how the supernet is trained.
        _ = self.given_table
        limits.check(self.config.constraints, self.space, self._extremes(), self.target)

    def _extremes(self) -> Sequence[Subnet]:
        """Networks of the job, among which are those that cost the least and the most."""
        if self.config.searches_architectures:
            return [self.searched.smallest(), self.searched.largest()]
        return (reduced if self.config.init_from else finely_scaled)(self.searched)

    def metadata(self, name: str) -> Metadata:
        """What the file of a network of this name tells applications."""
        dataset = self.dataset
        return Metadata(
            name=name,
            description=f"Tells the {dataset.num_classes} classes of {dataset.name} apart. Made by daqu_tf.",
            labels=dataset.class_names,
            version=daqu_tf.__version__,
            input_offset=dataset.input_offset,
            input_scale=dataset.input_scale,
        )

    def to_json(self) -> dict[str, Any]:
        """The content of `config.json`."""
        config, table = self.config, self.given_table
        sizes = {"nominal": self._nominal.cardinality, "effective": self.space.cardinality}
        return {
            "version": FORMAT,
            "flags": config.to_json(),
            "schedule": self.schedule.to_json(),
            "search_space": self.space.to_json(),
            "speed": self.speed.to_json(),
            "forecast": self.forecast.to_json(),
            "latency_table": hashlib.sha256(files.encode_json(table.to_json())).hexdigest() if table else None,
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES} | {"daqu_tf": daqu_tf.__version__},
            "seed": config.seed,
            "target": config.target,
            "space": self.space.name if config.space == "auto" else config.space,
            "dataset": self.dataset.describe(),
            "cardinality": {name: f"{decimal.Decimal(size):.2e}" for name, size in sizes.items()},  # A float ends at 1e308.
        }


def _with_batch_for(image_shape: tuple[int, int, int], config: RunConfig) -> RunConfig:
    """The settings with batches of large images that fit into memory, where nobody asked for others."""
    height, width, _ = image_shape
    most = max(LEAST_BATCH, BATCH_PIXELS // (height * width))
    return dataclasses.replace(config, batch_size=most) if most < config.batch_size else config


def _nominal(name: str, dataset: Dataset) -> SearchSpace:
    """The space of a name, for the images and classes of the data set."""
    return fitted(name, dataset.image_shape, dataset.num_classes)


def _schedule(config: RunConfig, space: SearchSpace) -> Schedule:
    """How the supernet is trained: what the settings mean, or what their JSON file says."""
    if config.schedule:
        return Schedule.from_json(files.read_json(pathlib.Path(config.schedule), remedy="give the path of a schedule in JSON"))
    length, unit = (config.epochs, "epochs") if config.epochs else (config.budget_minutes * SUPERNET_SHARE, "minutes")
    transfer = config.precision_transfer
    if transfer == "auto":
        transfer = "progressive" if config.searches_bits else "none"
    how = config.how_to_train | ({"learning_rate": START_RATE * config.learning_rate} if config.init_from else {})
    return make_schedule(space, config.warmup, transfer, length, unit, **how)
