"""Makes the latency table of a device: times every block of a space, then some whole subnets that show what adding misses.

    table = profile(connect("host"), space, targets.get("litert_cpu").storage, MeasurementStore("latencies.sqlite"))

Whatever was timed stays in the store, so that the same call goes on where it was cut off. All files are timed several times, in
another random order each time, so that drift hits all alike and shows.
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

_CHUNK = 24  # Files between two writes to the store.
_POOL = 3000  # Random subnets from which those to time are taken.
_NO_CORRECTION = Correction(0.0, 1.0, 0.0)
OnProgress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is measured.

    Attributes:
        repeats: Times that every file is timed.
        min_runs: Calls each time, at least.
        min_seconds: Seconds of them, at least.
        max_warmup_seconds: As of `Device.measure`.
        unsteady: A file whose times differ by more than this share is timed again, as is one whose times are doubtful.
        most_repeats: Times that such a file is timed, at most.
        calibration: Whole subnets that the correction is fitted to.
        validation: Others, from which the table's error comes.
        seed: Of the orders and of the choice of subnets.

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
        """The arguments of `Device.measure`."""
        return {name: getattr(self, name) for name in ("min_runs", "min_seconds", "max_warmup_seconds")}


def profile(
    device: Device,
    space: SearchSpace,
    storage: Storage,
    store: MeasurementStore,
    settings: Settings = Settings(),
    on_progress: OnProgress = lambda what, done, total: None,
) -> LatencyTable:
    """Makes a table.

    Args:
        device: That times the files.
        space: Whose blocks are timed.
        storage: How files are stored.
        store: Where measurements are kept.
        settings: How they are made.
        on_progress: Called with what is timed, and how many of how many times it has been.

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
        genomes: Shape (n, genes).

    Returns:
        Microseconds of each turn, shape (n, repeats). The other arguments, and errors, are those of `profile`.
    """
    with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
        return _Bench(device, store, settings, pathlib.Path(folder), on_progress).time_subnets(space, storage, genomes)


def _finished(
    table: LatencyTable, space: SearchSpace, genomes: np.ndarray, turns_us: np.ndarray, settings: Settings, evidence: dict
) -> LatencyTable:
    """The table with its correction, and with its error on subnets that this was not fitted to."""
    sums, counts = table.sums(space, genomes)
    fit = np.zeros(len(genomes), bool)
    fit[np.random.default_rng(settings.seed).permutation(len(genomes))[: settings.calibration]] = True
    correction = Correction.fitted(sums[fit], counts[fit], np.median(turns_us, axis=1)[fit])
    error = compared(correction.apply(sums[~fit], counts[~fit]), turns_us[~fit])
    seen = [space.from_genome(genome).to_json() for genome in genomes]
    return dataclasses.replace(table, correction=correction, evidence={**evidence, "validation": error, "subnets": seen})


def compared(predicted_us: np.ndarray, turns_us: np.ndarray) -> dict[str, Any]:
    """How well latencies are predicted, and beside it a control: how well the first turn predicts the others.

    Args:
        predicted_us: Shape (n,).
        turns_us: Measured, turn by turn, shape (n, turns of at least 2).
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
    """Genomes (count, genes), as many in each equal step of the logarithm of the latency as there are.

    Each gene is drawn uniformly, so that shallow networks are as frequent as deep ones; a third of them have the highest
    weight bits throughout, and a third the lowest.

    Raises:
        DaquError: The space has too few.
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
    # The nearest ones to evenly spaced latencies, each of which is taken once.
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
        self.names: dict[str, str] = {}  # By hash: what messages call the file.

    def place(self, graphs: Iterable[tuple[str, Graph]]) -> list[str]:
        """Writes the files of graphs with their names; returns the hashes."""
        hashes = []
        for name, graph in graphs:
            data = tflite.write(graph)
            hashes.append(hashlib.sha256(data).hexdigest())
            self.names[hashes[-1]] = name
            (self.folder / f"{hashes[-1]}.tflite").write_bytes(data)
        return hashes

    def time_subnets(self, space: SearchSpace, storage: Storage, genomes: np.ndarray) -> np.ndarray:
        """Microseconds (n, repeats) of genomes (n, genes)."""
        subnets = map(space.from_genome, genomes)
        hashes = self.place((f"the subnet {subnet}", block_graph.of_subnet(space, subnet, storage)) for subnet in subnets)
        times = self.time("subnets", hashes)
        return np.array([times[sha256][: self.settings.repeats] for sha256 in hashes])

    def time(self, what: str, hashes: Sequence[str]) -> Mapping[str, list[float]]:
        """The times of the files in microseconds, by their hashes: of each at least `repeats`."""
        for turn in range(1, max(self.settings.repeats, self.settings.most_repeats) + 1):
            missing = self._missing(sorted(set(hashes)), turn)
            self._time_once(f"{what}, turn {turn}", [missing[index] for index in self.rng.permutation(len(missing))])
        return {sha256: self._usable(turns) for sha256, turns in self._turns().items()}

    def _missing(self, hashes: Sequence[str], turn: int) -> list[str]:
        """The files that take part in a turn, counted from 1: that have had fewer, and after the usual ones need another."""
        turns, repeats = self._turns(), self.settings.repeats
        missing = [sha256 for sha256 in hashes if len(turns.get(sha256, ())) < turn]
        return [sha256 for sha256 in missing if turn <= repeats or self._wants_another(turns[sha256])]

    def _wants_another(self, turns: Sequence[Turn]) -> bool:
        good = [turn.median_us for turn in turns if not turn.is_doubtful]
        return len(good) < self.settings.repeats or self._is_unsteady(good)

    def _usable(self, turns: Sequence[Turn]) -> list[float]:
        """The times that are not doubtful, or all if there are too few of them."""
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
        # Twice the median deviation, which of two times is their difference, and of more does not mind a lone one.
        deviation = np.median(np.abs(np.asarray(times_us) - np.median(times_us)))
        return bool(2 * deviation > self.settings.unsteady * np.median(times_us))

    def evidence(self, hashes: Sequence[str], began: float) -> dict:
        """What is to be known of how the blocks were measured."""
        turns = self._turns()
        taken = [turns[sha256] for sha256 in hashes]
        times = [self._usable(each) for each in taken]
        first = np.array([each[: self.settings.repeats] for each in times])
        return {
            "settings": dataclasses.asdict(self.settings),
            "date": datetime.date.today().isoformat(),
            "minutes": round((time.monotonic() - began) / 60, 2),
            "timed": self.timed,  # In these minutes; what else there is was in the store.
            "blocks": len(hashes),
            # Of each turn, against the first: how the device drifted.
            "drift": np.round(np.median(first / first[:, :1], axis=0) - 1, 4).tolist(),
            "median_spread": float(np.median(np.ptp(first, axis=1) / np.median(first, axis=1))),
            "doubtful_blocks": sum(map(self._wants_another, taken)),
        }
