"""What can be done with the trained supernet of a run, beside the search: fine-tune subnets by name, and export them."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf import files, machine
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import ENDING, Manifest
from daqu_tf.files import read_arrays, read_json, write_arrays
from daqu_tf.pipeline.plan import Plan
from daqu_tf.runs.commands import export_command, fine_tuning_command, from_here, run_command
from daqu_tf.runs.folder import RunFolder
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets.storage import Storage
from daqu_tf.training.strategies import make_deterministic

if TYPE_CHECKING:
    from daqu_tf.supernet.supernet import StaticNetwork
    from daqu_tf.training.fine_tuning import FineTuning

OnProgress = Callable[[str, float], None]  # Of a subnet's name, and the share that is done.
FRONT = "front"
FINE_TUNING_MINUTES = 2.0


class TrainedRun:
    """A folder that daqu-train or daqu-run has left.

    Args:
        path: The folder of the run.

    Raises:
        DaquError: The folder has no trained supernet, nor networks that were trained without one, or its data has changed.
    """

    def __init__(self, path: pathlib.Path):
        self.folder, self._files = path, RunFolder(path)
        config = self._files.run_config()
        if config.searches_architectures and not self._files.supernet.exists():
            raise DaquError(f"{path} holds no trained supernet yet: run daqu-train with its settings first.")
        self.plan = Plan.in_folder(path)
        self.config, self.dataset, self.space = self.plan.config, self.plan.dataset, self.plan.space
        content = {"dataset": self.dataset.describe(), "search_space": self.space.to_json()}
        if changed := self._files.difference(config, content):
            raise DaquError(f"The supernet in {path} was trained on something else ({changed}): restore that.")

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The trained supernet's weights, statistics and steps, as `Supernet.arrays()` gives them.

        Raises:
            DaquError: The run has none, since its networks were trained each from random weights.
        """
        if not self.config.searches_architectures:
            raise DaquError(
                f"{self.folder} has no supernet, since its networks were trained each from random weights: take one of them "
                "(--subnet=m00), or give daqu-run --architectures=search and another --output_dir."
            )
        return read_arrays(self._files.supernet)

    def subnets(self, name: str) -> dict[str, Subnet]:
        """Subnets by a name for files.

        Args:
            name: `largest`, `smallest`, a finalist of the run, `front` for all of them, or a JSON file: gene names and values, or a
                manifest.

        Raises:
            DaquError: There is no such subnet.
        """
        finalists = {key: self.space.subnet(value["values"]) for key, value in self._finalists().items()}
        ends = {"largest": self.space.largest(), "smallest": self.space.smallest()} if self.config.searches_architectures else {}
        known = ends | finalists
        if name == FRONT and finalists:
            return finalists
        if name in known:
            return {name: known[name]}
        path = pathlib.Path(name)
        if not path.is_file():
            names = ", ".join([*([FRONT] if finalists else []), *known])
            raise DaquError(f"`subnet` must be one of {names} or a JSON file, but received {name!r}.")
        content = read_json(path, remedy="give a subnet in JSON")
        values = content.get("subnet", content) if isinstance(content, dict) else None
        if not isinstance(values, dict):
            raise DaquError(f"{name} must hold a JSON object of gene names and values, or be a model's manifest.")
        return {path.name.removesuffix(".json").removesuffix(".manifest"): self.space.subnet(values)}

    def _finalists(self) -> dict[str, dict]:
        return read_json(self._files.finalists, {})

    def fine_tune(
        self,
        name: str,
        on_progress: OnProgress = lambda name, done: None,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        distillation: float = 0.0,
        overwrite: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Fine-tunes subnets, one after the other; writes `fine_tuned/NAME.npz` and `NAME.json`.

        A result that is there already, from the same supernet and with the same settings, is not trained again. In a run that is
        `deterministic`, as many `steps` twice leave the same weights, bit for bit.

        Args:
            name: `largest`, `smallest`, a finalist, `front` for all finalists, or a JSON file of a subnet.
            on_progress: Called with a subnet's name and the share of its training that is done.
            minutes: Minutes of training for each subnet; `FINE_TUNING_MINUTES` if neither minutes nor steps are given.
            steps: Steps of the optimizer for each subnet, instead of minutes.
            distillation: The share, in [0, 1], that the largest subnet's opinion has in what is taught.
            overwrite: Whether results that are there with other settings may be replaced.

        Returns:
            The content of each JSON file, as soon as a subnet is done: subnet, settings, steps, accuracies on the search split.

        Raises:
            DaquError: There is no such subnet, a number is out of range, a result with other settings is there, the run is
                deterministic and TensorFlow has begun to work already, or this is Windows.
        """
        from daqu_tf.training.fine_tuning import FineTuning

        machine.check_training()
        if not 0 <= distillation <= 1:
            raise DaquError(f"`fine_tuning_distillation` must be in [0, 1], but received {distillation:g}.")
        seconds, updates = _length(minutes, steps)
        how = FineTuning(seconds, updates, **self.plan.how_to_fine_tune, distillation=distillation)
        supernet = hashlib.sha256(self._files.supernet.read_bytes()).hexdigest()
        asked = {
            stem: {"name": stem, "subnet": subnet.to_json(), "how": dataclasses.asdict(how), "supernet": supernet}
            for stem, subnet in self.subnets(name).items()
        }
        for stem, settings in asked.items():
            found = read_json(self._path(stem), {})
            if found and not overwrite and not found.items() >= settings.items():
                raise DaquError(f"{self._path(stem)} was made with other settings: give --overwrite to replace it.")
        return self._fine_tune(asked, how, on_progress)

    def _path(self, stem: str) -> pathlib.Path:
        return self._files.fine_tuned / f"{stem}.json"

    def _fine_tune(self, asked: dict[str, dict], how: "FineTuning", on_progress: OnProgress) -> Iterator[dict[str, Any]]:
        from daqu_tf.training.fine_tuning import FineTuner

        self._begin()
        with self._files.lock():
            self._files.fine_tuned.mkdir(exist_ok=True)
            tuner = FineTuner(self.space, self.arrays, self.dataset, how)
            for stem, settings in asked.items():
                path = self._path(stem)
                found = read_json(path, {})
                if not (found.items() >= settings.items() and path.with_suffix(".npz").exists()):
                    subnet = self.space.subnet(settings["subnet"])
                    network, steps = tuner.tune(subnet, functools.partial(on_progress, stem))
                    write_arrays(path.with_suffix(".npz"), network.arrays())
                    accuracies = {"inherited": self._accuracy(self.inherited(subnet)), "fine_tuned": self._accuracy(network)}
                    files.write_json(path, found := settings | {"steps": steps, "search_accuracy": accuracies})
                yield found

    def _begin(self) -> None:
        """What must come before the first computation."""
        if self.config.deterministic:
            make_deterministic()

    def inherited(self, subnet: Subnet) -> "StaticNetwork":
        """The static network of `subnet` with the supernet's weights, recalibrated."""
        from daqu_tf.supernet.scoring import Scorer
        from daqu_tf.supernet.supernet import extract

        network = extract(self.space, subnet, self.arrays)
        Scorer(network, self.dataset.x_train).recalibrate()
        return network

    def _accuracy(self, network: "StaticNetwork") -> float:
        from daqu_tf.supernet.scoring import Scorer

        return Scorer(network, self.dataset.x_train).accuracy(self.dataset.x_search, self.dataset.y_search)

    def export(
        self,
        name: str,
        fine_tuned: bool | None,
        path: pathlib.Path,
        storage: Storage | None = None,
        overwrite: bool = False,
    ) -> Manifest:
        """Exports one subnet with its metadata, and writes a manifest beside it.

        Args:
            name: `largest`, `smallest`, a finalist, or a JSON file with a subnet, as `subnets` takes it.
            fine_tuned: With which weights. None takes the best that there are: those of the finalist in the report, or those that
                `fine_tune` left, or, of a subnet that was never fine-tuned, those inherited from the supernet, recalibrated. True
                takes what `fine_tune` left before the finalist's own, and no inherited ones; False takes the inherited ones.
            path: The `.tflite` file to write.
            storage: How the file stores the network; by default as the run's target does.
            overwrite: Whether a file of another network may be replaced.

        Returns:
            The manifest.

        Raises:
            DaquError: There is no such subnet, or it has not been fine-tuned; the file has another ending, holds another network,
                or cannot be written; or the run is deterministic and TensorFlow has begun to work already.
        """
        from daqu_tf.export.description import describe
        from daqu_tf.export.encoding import write
        from daqu_tf.export.export import check_path, export_tflite
        from daqu_tf.export.proof import PROOF_IMAGES

        if name == FRONT:
            raise DaquError("`subnet` must be one subnet, but received 'front': name one of its members, as m00.")
        storage = storage or self.plan.target.storage
        ((stem, subnet),) = self.subnets(name).items()
        weights = self._weights(stem, subnet, fine_tuned)
        check_path(path)
        if not overwrite:
            _check_replaced(path, subnet)
        self._begin()
        network = self._network(subnet, weights) if weights else self.inherited(subnet)
        metadata, images = self.plan.metadata(stem), self.dataset.x_search[:PROOF_IMAGES]
        written = export_tflite(network, path, **dataclasses.asdict(storage), metadata=metadata, images=images)
        state, commands = "fine_tuned" if weights else "inherited", self._commands(name, weights, path, storage)
        more = {"seed": self.config.seed, "commands": commands, **written.stated()}
        manifest = describe(path, stem, network, self.dataset, storage, state, **more)
        write(files.encode_json(manifest.to_json()), path.with_suffix(ENDING))
        return manifest

    def note(self, manifest: Manifest) -> str:
        """What a user should know of an exported file; empty if there is nothing.

        Args:
            manifest: The manifest of the file, as `export` gives it.
        """
        if not self._files.skipped_pixels or manifest.input["height"] >= self.space.input_shape[0]:
            return ""
        return (
            "This run was begun when images were made smaller without antialiasing, and with it "
            f"{manifest.name} may be less accurate than it was: daqu-train with --subnet={manifest.name} trains it on."
        )

    def _commands(self, name: str, weights: pathlib.Path | None, path: pathlib.Path, storage: Storage) -> tuple[str, ...]:
        """What makes a file from nothing, in order; arguments as for `export`, and where its weights are."""
        searched = name in self._finalists() or (weights and weights.parent == self._files.finished)
        settings = self.config.to_json() | {"output_dir": str(self.folder)}
        lines = [run_command("run" if searched else "train", settings, from_here)]
        if weights and weights.parent == self._files.fine_tuned:
            lines.append(fine_tuning_command(self.folder, name, read_json(self._path(weights.stem))["how"]))
        usual = self.plan.target.storage
        ((stem, subnet),) = self.subnets(name).items()
        if weights is None:
            said = None if self._weights(stem, subnet, None) is None else False
        else:
            said = True if self._weights(stem, subnet, True) == weights else None
        return (*lines, export_command(self.folder, name, said, path, storage, usual))

    def _weights(self, stem: str, subnet: Subnet, fine_tuned: bool | None) -> pathlib.Path | None:
        """The file of the weights that `export` takes; None stands for inherited ones."""
        own, finalist = self._files.finished / f"{stem}.npz", self._finalists().get(stem)
        # A JSON file may have the name of a finalist, and hold another subnet.
        of_run = own if finalist and self.space.subnet(finalist["values"]) == subnet and own.exists() else None
        by_name = read_json(self._path(stem), {}).get("subnet") == subnet.to_json()
        further = self._path(stem).with_suffix(".npz") if by_name else None
        if fine_tuned is None:
            return of_run or further
        if fine_tuned and not (further or of_run):
            raise DaquError(f"{stem} has not been fine-tuned by daqu-train: run that with --subnet={stem} first.")
        return (further or of_run) if fine_tuned else None

    def _network(self, subnet: Subnet, weights: pathlib.Path) -> "StaticNetwork":
        """The static network of `subnet` with the weights in a file."""
        from daqu_tf.supernet.supernet import StaticNetwork

        network = StaticNetwork(self.space, subnet)
        network.load_arrays(read_arrays(weights))
        return network


def _check_replaced(path: pathlib.Path, subnet: Subnet) -> None:
    """Refuses to replace a file of another network.

    Raises:
        DaquError: The file is there, and its manifest, if it has one, is of another subnet.
    """
    if not path.exists():
        return
    beside = path.with_suffix(ENDING)
    before = Manifest.read(beside) if beside.exists() else None
    if before is None or before.subnet != subnet.to_json():
        what = f"another network ({before.name})" if before else "something that has no manifest"
        raise DaquError(f"{path} holds {what}: choose another --output, or give --overwrite.")


def _length(minutes: float | None, steps: int | None) -> tuple[float, int]:
    """Seconds and steps of a fine-tuning, as `FineTuning` has them."""
    if steps is None:
        minutes = FINE_TUNING_MINUTES if minutes is None else minutes
        if not 0 < minutes < float("inf"):
            raise DaquError(f"`fine_tuning_minutes` must be above 0, but received {minutes:g}.")
        return 60 * minutes, 0
    if minutes is not None:
        raise DaquError("`fine_tuning_steps` takes the place of `fine_tuning_minutes`: give one of them.")
    if steps < 1:
        raise DaquError(f"`fine_tuning_steps` must be at least 1, but received {steps}.")
    return 0.0, steps
