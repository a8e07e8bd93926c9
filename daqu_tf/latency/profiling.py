"""The making of a device's latency table: every block of a space is timed, and some whole subnets, which show what sums miss.

    table = profile(connect("host"), space, targets.get("litert_cpu").storage, MeasurementStore("latencies.sqlite"))

Whatever was timed stays in the store, so that the same call goes on where it was cut off. All files are timed several times, in
another random order each time, so that drift affects all alike and shows.
"""

import dataclasses
import datetime
import hashlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf import tflite
from daqu_tf.devices import Device, ModelError
from daqu_tf.errors import DaquError
from daqu_tf.latency import block_graph
from daqu_tf.latency.blocks import every_block
from daqu_tf.latency.store import MeasurementStore, Turn
from daqu_tf.latency.table import Correction, LatencyTable
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import Graph

_CHUNK = 24  # The number of files between two writes to the store.
_POOL = 3000  # The number of random subnets from which those to time are taken.
_NO_CORRECTION = Correction(0.0, 1.0, 0.0)
OnProgress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is measured.

    Attributes:
        repeats: The number of times that every file is timed.
        min_runs: The least number of calls each time.
        min_seconds: The shortest time for these calls, in seconds.
        max_warmup_seconds: The time after which the calls begin even if they are not steady yet, in seconds.
        unsteady: The share by which the times of a file may differ. A file whose times differ by more, or are doubtful, is timed
            again.
        most_repeats: The most times that such a file is timed.
        calibration: The number of whole subnets to which the correction is fitted.
        validation: The number of other subnets, on which the error of the table is measured.
        seed: The seed of the orders and of the choice of subnets.

    Raises:
        DaquError: A number is out of range.
    """

    repeats: int = 2
    min_runs: int = 50
    min_seconds: float = 0.03
    max_warmup_seconds: float = 0.2
    unsteady: float = 0.05
    most_repeats: int = 5
    calibration: int = 24
    validation: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"repeats": 2, "min_runs": 1, "calibration": 8, "validation": 8, "seed": 0}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise DaquError(f"`{name}` must be at least {limit}, but received {getattr(self, name)}.")

    @property
    def timing(self) -> dict[str, float]:
        """The arguments of `Device.measure` by name."""
        return {name: getattr(self, name) for name in ("min_runs", "min_seconds", "max_warmup_seconds")}


def profile(
    device: Device,
    space: SearchSpace,
    storage: Storage,
    store: MeasurementStore,
    settings: Settings = Settings(),
    on_progress: OnProgress = lambda what, done, total: None,
) -> LatencyTable:
    """Makes the latency table of a device.

    Args:
        device: The device that times the files.
        space: The space whose blocks are timed.
        storage: The storage of the files.
        store: The store that keeps the measurements.
        settings: How the table is measured.
        on_progress: Is called with a text that says what is timed, the number of measurements that are done, and that of all.

    Raises:
        DaquError: The device does not answer or cannot run a block, or the store cannot be used.
    """
    needed = settings.calibration + settings.validation
    if space.cardinality < needed:
        raise DaquError(f"A space needs {needed} subnets for a latency table, but {space.name!r} has {space.cardinality}.")
    began, runtime = time.monotonic(), {"container": storage.container, "runtime": storage.runtime}
    with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
        bench = _Bench(device, store, settings, pathlib.Path(folder), on_progress)
        blocks = every_block(space, storage)
        named = ((f"the block `{key}`", block_graph.of_block(space, block, storage)) for key, block in blocks.items())
        hashes = bench.place(named)
        times = bench.time("blocks", hashes)
        blocks_us = {key: float(np.median(times[sha256])) for key, sha256 in zip(blocks, hashes)}
        table = LatencyTable(space.name, runtime, bench.identity, blocks_us, _NO_CORRECTION)
        genomes = stratified(table, space, needed, np.random.default_rng(settings.seed))
        turns_us = bench.time_subnets(space, storage, genomes)
    return _finished(table, space, genomes, turns_us, settings, bench.evidence(hashes, began))


def time_subnets(
    device: Device,
    space: SearchSpace,
    storage: Storage,
    store: MeasurementStore,
    settings: Settings,
    genomes: np.ndarray,
    on_progress: OnProgress = lambda what, done, total: None,
) -> np.ndarray:
    """Times whole subnets with random weights.

    Args:
        device: The device that times the files.
        space: The space that the genomes belong to.
        storage: The storage of the files.
        store: The store that keeps the measurements.
        settings: How the files are timed.
        genomes: The genomes (n, genes) of the subnets.
        on_progress: Is called with a text that says what is timed, the number of measurements that are done, and that of all.

    Returns:
        The latency in each turn (n, repeats), in microseconds.

    Raises:
        DaquError: The device does not answer or cannot run a subnet, or the store cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
        return _Bench(device, store, settings, pathlib.Path(folder), on_progress).time_subnets(space, storage, genomes)


def _finished(
    table: LatencyTable, space: SearchSpace, genomes: np.ndarray, turns_us: np.ndarray, settings: Settings, evidence: dict
) -> LatencyTable:
    """The table with its correction, and with its error on subnets to which the correction was not fitted."""
    sums, counts = table.sums(space, genomes)
    fit = np.zeros(len(genomes), bool)
    fit[np.random.default_rng(settings.seed).permutation(len(genomes))[: settings.calibration]] = True
    correction = Correction.fitted(sums[fit], counts[fit], np.median(turns_us, axis=1)[fit])
    error = compared(correction.apply(sums[~fit], counts[~fit]), turns_us[~fit])
    seen = [space.from_genome(genome).to_json() for genome in genomes]
    return dataclasses.replace(table, correction=correction, evidence={**evidence, "validation": error, "subnets": seen})


def compared(predicted_us: np.ndarray, turns_us: np.ndarray) -> dict[str, Any]:
    """The errors of predicted latencies, and as a control those of the first measured turn as a prediction of the others.

    Args:
        predicted_us: The predicted latency of each subnet (n,), in microseconds.
        turns_us: The measured latency of each subnet in each of at least two turns (n, turns), in microseconds.

    Returns:
        Figures by name: relative errors and Kendall's tau, those of the control with the prefix `control_`, the number of
        `subnets`, and the `range_us` of what was measured.
    """
    from scipy.stats import kendalltau

    found: dict[str, Any] = {"subnets": len(turns_us), "range_us": [float(turns_us.min()), float(turns_us.max())]}
    pairs = (("", predicted_us, turns_us), ("control_", turns_us[:, 0], turns_us[:, 1:]))
    for name, guess, truth in pairs:
        measured = np.median(truth, axis=1)
        errors = np.abs(guess / measured - 1)
        found |= {f"{name}median_error": float(np.median(errors)), f"{name}p90_error": float(np.percentile(errors, 90))}
        found |= {f"{name}max_error": float(errors.max()), f"{name}kendall_tau": float(kendalltau(guess, measured).statistic)}
    return found


def stratified(table: LatencyTable, space: SearchSpace, count: int, rng: np.random.Generator) -> np.ndarray:
    """Chooses random subnets whose latencies are spread evenly over their logarithm.

    Each gene is drawn uniformly, so that shallow networks are as frequent as deep ones. A third of them have the highest weight
    bits throughout, and a third the lowest.

    Args:
        table: The table that predicts the latencies, without a correction.
        space: The space of the subnets.
        count: The number of subnets.
        rng: The source of all random numbers.

    Returns:
        The genomes (count, genes) of the subnets.

    Raises:
        DaquError: The space has too few subnets.
    """
    genomes = rng.integers(0, [len(gene.values) for gene in space.genes], (_POOL, len(space.genes)))
    for column, gene in enumerate(space.genes):
        if gene.name.endswith(".weight_bits"):
            genomes[0::3, column], genomes[1::3, column] = len(gene.values) - 1, 0
    genomes[0], genomes[1] = (space.genome(end) for end in (space.smallest(), space.largest()))
    genomes = np.array([space.genome(subnet) for subnet in dict.fromkeys(map(space.from_genome, genomes))])
    if len(genomes) < count:
        raise DaquError(
            f"{count} different subnets are needed, but {_POOL} draws from {space.name!r} gave {len(genomes)}: ask for fewer."
        )
    sums, _ = table.sums(space, genomes)
    order = np.argsort(sums)
    logs = np.log(sums[order])
    # Those nearest to evenly spaced logarithms are taken, each of them once.
    chosen: list[int] = []
    free = np.ones(len(order), bool)
    for wanted in np.linspace(logs[0], logs[-1], count):
        nearest = int(np.argmin(np.where(free, np.abs(logs - wanted), np.inf)))
        chosen.append(nearest)
        free[nearest] = False
    return genomes[order[chosen]]


class _Bench:
    """Times files that are not in the store yet."""

    def __init__(self, device: Device, store: MeasurementStore, settings: Settings, folder: pathlib.Path, on_progress: OnProgress):
        self.device, self.store, self.settings, self.folder, self.on_progress = device, store, settings, folder, on_progress
        self.identity, self.rng, self.timed = device.identity(), np.random.default_rng(settings.seed), 0
        self.names: dict[str, str] = {}  # The name of each file in messages, by its hash.

    def place(self, graphs: Iterable[tuple[str, Graph]]) -> list[str]:
        """Writes the files of graphs, given with their names in messages, and gives their hashes."""
        hashes = []
        for name, graph in graphs:
            data = tflite.write(graph)
            hashes.append(hashlib.sha256(data).hexdigest())
            self.names[hashes[-1]] = name
            (self.folder / f"{hashes[-1]}.tflite").write_bytes(data)
        return hashes

    def time_subnets(self, space: SearchSpace, storage: Storage, genomes: np.ndarray) -> np.ndarray:
        """The latencies (n, repeats) in microseconds of whole subnets with genomes (n, genes)."""
        subnets = map(space.from_genome, genomes)
        hashes = self.place((f"the subnet {subnet}", block_graph.of_subnet(space, subnet, storage)) for subnet in subnets)
        times = self.time("subnets", hashes)
        return np.array([times[sha256][: self.settings.repeats] for sha256 in hashes])

    def time(self, what: str, hashes: Sequence[str]) -> Mapping[str, list[float]]:
        """The times in microseconds, at least `repeats`, of each file by its hash.

        Args:
            what: What the files are, for the progress.
            hashes: The hashes of the files.
        """
        for turn in range(1, max(self.settings.repeats, self.settings.most_repeats) + 1):
            missing = self._missing(sorted(set(hashes)), turn)
            self._time_once(f"{what}, turn {turn}", [missing[index] for index in self.rng.permutation(len(missing))])
        return {sha256: self._usable(turns) for sha256, turns in self._turns().items()}

    def _missing(self, hashes: Sequence[str], turn: int) -> list[str]:
        """The files that take part in a turn, from 1: those that had fewer, and after the usual turns need another."""
        turns, repeats = self._turns(), self.settings.repeats
        missing = [sha256 for sha256 in hashes if len(turns.get(sha256, ())) < turn]
        return [sha256 for sha256 in missing if turn <= repeats or self._wants_another(turns[sha256])]

    def _wants_another(self, turns: Sequence[Turn]) -> bool:
        good = [turn.median_us for turn in turns if not turn.is_doubtful]
        return len(good) < self.settings.repeats or self._is_unsteady(good)

    def _usable(self, turns: Sequence[Turn]) -> list[float]:
        """The times without a flag, or all times if there are too few without."""
        good = [turn.median_us for turn in turns if not turn.is_doubtful]
        return good if len(good) >= self.settings.repeats else [turn.median_us for turn in turns]

    def _time_once(self, what: str, hashes: Sequence[str]) -> None:
        for start in range(0, len(hashes), _CHUNK):
            paths = [self.folder / f"{sha256}.tflite" for sha256 in hashes[start : start + _CHUNK]]
            try:
                self.store.add(self.device.measure_batch(paths, **self.settings.timing), self.identity, self.settings.timing)
            except ModelError as error:
                found = next((name for sha256, name in self.names.items() if sha256 in str(error)), "a file")
                raise DaquError(f"{self.device.name} does not run {found} ({error}): take another target.") from error
            self.timed += len(paths)
            self.on_progress(what, start + len(paths), len(hashes))

    def _turns(self) -> dict[str, list[Turn]]:
        return self.store.turns(self.identity, self.settings.timing)

    def _is_unsteady(self, times_us: Sequence[float]) -> bool:
        # The measure is twice the median deviation. Of two times, that is their difference; of more, a single outlier does not
        # change it.
        deviation = np.median(np.abs(np.asarray(times_us) - np.median(times_us)))
        return bool(2 * deviation > self.settings.unsteady * np.median(times_us))

    def evidence(self, hashes: Sequence[str], began: float) -> dict:
        """How the blocks were measured, as a JSON object.

        Args:
            hashes: The hashes of the blocks' files.
            began: The time when the measuring began, by the monotonic clock.
        """
        turns = self._turns()
        taken = [turns[sha256] for sha256 in hashes]
        times = [self._usable(each) for each in taken]
        first = np.array([each[: self.settings.repeats] for each in times])
        return {
            "settings": dataclasses.asdict(self.settings),
            "date": datetime.date.today().isoformat(),
            "minutes": round((time.monotonic() - began) / 60, 2),
            "timed": self.timed,  # This is the number in these minutes; other times were in the store.
            "blocks": len(hashes),
            # The drift of the device: how each turn differs from the first.
            "drift": np.round(np.median(first / first[:, :1], axis=0) - 1, 4).tolist(),
            "median_spread": float(np.median(np.ptp(first, axis=1) / np.median(first, axis=1))),
            "doubtful_blocks": sum(map(self._wants_another, taken)),
        }
