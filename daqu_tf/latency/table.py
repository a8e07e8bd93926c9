"""The latency table of one device: what each block of a search space takes there, and from it the latency of any subnet.

    table = LatencyTable.load("pi4.json")
    table.check(space, target.storage, device.identity())
    table.predict(space, subnet)  # Microseconds.

`profiling.py` makes tables. Nothing here imports TensorFlow.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from daqu_tf import fields, files
from daqu_tf.errors import DaquError
from daqu_tf.latency.blocks import TimedBlock, blocks_of, every_block
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets.storage import Storage

FORMAT = 1
_LEAST_US = 0.01  # No correction makes a subnet faster than that.
_MAKE_ONE = "make one with daqu-profile"


@dataclasses.dataclass(frozen=True)
class Correction:
    """What adding blocks misses: `fixed_us + scale * sum + block_us * number of blocks`.

    Each call of a file costs something, which every block of the table has in it once, and a whole subnet only once.

    Attributes:
        fixed_us: Microseconds of every subnet.
        scale: Of the sum of its blocks.
        block_us: Microseconds of every block, mostly negative.
    """

    fixed_us: float
    scale: float
    block_us: float

    @classmethod
    def fitted(cls, sums_us: np.ndarray, counts: np.ndarray, measured_us: np.ndarray) -> "Correction":
        """The one of least squared relative error.

        Args:
            sums_us: Of the blocks of each subnet, shape (n,).
            counts: Of its blocks, shape (n,).
            measured_us: Of whole subnets, shape (n,).

        Raises:
            DaquError: There are too few subnets.
        """
        if len(measured_us) < 3:
            raise DaquError(f"A correction needs at least 3 measured subnets, but received {len(measured_us)}: measure more.")
        features = np.stack([np.ones(len(sums_us)), sums_us, counts], axis=1)
        weights = np.linalg.lstsq(features / measured_us[:, None], np.ones(len(sums_us)), rcond=None)[0]
        return cls(*map(float, weights))

    def apply(self, sums_us: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Latencies (n,) in microseconds of the sums (n,) and numbers (n,) of blocks."""
        return np.maximum(self.fixed_us + self.scale * sums_us + self.block_us * counts, _LEAST_US)


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Latencies of all blocks of a space on one device, and how well they predict whole subnets.

    Attributes:
        space: Name of the space that it was made for; any other whose blocks are all in it will do.
        storage: Of the files: `container` and `runtime`.
        device: The device's `identity`, with runtime, threads and delegate.
        blocks_us: By `TimedBlock.key`, the median latency in microseconds.
        correction: For what adding misses.
        evidence: How it was measured, and its error on subnets that it was not fitted to: see `profiling.py`.
    """

    space: str
    storage: Mapping[str, str]
    device: Mapping[str, Any]
    blocks_us: Mapping[str, float]
    correction: Correction
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def predict(self, space: SearchSpace, subnet: Subnet) -> float:
        """The latency of a subnet in microseconds.

        Raises:
            DaquError: The table lacks one of its blocks.
        """
        return float(self.predict_many(space, np.array([space.genome(subnet)]))[0])

    def predict_many(self, space: SearchSpace, genomes: np.ndarray) -> np.ndarray:
        """The latencies of genomes (count, genes), shape (count,), in microseconds; errors as `predict`."""
        return self.correction.apply(*self.sums(space, genomes))

    def sums(self, space: SearchSpace, genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of genomes (count, genes): the sums of their blocks (count,) in microseconds, and the numbers of them (count,)."""
        sums, counts = np.zeros(len(genomes)), np.zeros(len(genomes), int)
        storage = Storage(**self.storage)
        for blocks, index in blocks_of(space, genomes):
            prices = np.array([*(self._price(block, storage) for block in blocks), 0.0])  # The last one where there is no block.
            sums += prices[index]
            counts += index >= 0
        return sums, counts

    def _price(self, block: TimedBlock, storage: Storage) -> float:
        """Between its highest and its lowest weight bits throughout, which were measured, by the share of the MACs."""
        wide, narrow = (self._measured(end.key(storage)) for end in block.ends())
        return wide + block.share_of_narrowest(storage) * (narrow - wide)

    def _measured(self, key: str) -> float:
        try:
            return self.blocks_us[key]
        except KeyError:
            raise DaquError(
                f"The latency table, of space {self.space!r}, has no block `{key}`: {_MAKE_ONE} for this space."
            ) from None

    def check(self, space: SearchSpace, storage: Storage, device: Mapping[str, Any] | None = None) -> None:
        """Refuses another space, another way to store it, or another device.

        Args:
            space: That subnets will be from.
            storage: Of their files.
            device: The `identity` of the device that they are for; None where there is none at hand.

        Raises:
            DaquError: The table does not hold for it.
        """
        wanted = {"container": storage.container, "runtime": storage.runtime}
        if dict(self.storage) != wanted:
            raise DaquError(
                f"The latency table is of files stored as {dict(self.storage)}, not {wanted}: {_MAKE_ONE} for this target."
            )
        for key in every_block(space, storage):
            self._measured(key)
        if device is not None and (changed := difference(self.device, device)):
            raise DaquError(f"The latency table is of another device or runtime ({changed}): {_MAKE_ONE} for this one.")

    @property
    def errors(self) -> Mapping[str, float]:
        """Of `profiling.compared`, for subnets that it was not fitted to; empty where nobody looked."""
        return self.evidence.get("validation") or {}

    def summary(self) -> str:
        """How `profiling.profile` measured it and how far off it is, in sentences."""
        evidence, error = self.evidence, self.errors
        low, high = error["range_us"]
        drift = ", ".join(f"{share:+.1%}" for share in evidence["drift"][1:])
        return (
            f"{evidence['blocks']} blocks in {evidence['minutes']:.1f} minutes; later turns differ from the first by {drift}; "
            f"{evidence['doubtful_blocks']} blocks stayed doubtful.\n"
            f"On {error['subnets']} other subnets of {low:.1f} to {high:.1f} us its error is {error['median_error']:.1%} in the "
            f"median and {error['p90_error']:.1%} at the 90th percentile, Kendall's tau {error['kendall_tau']:.3f}.\n"
            f"Timed twice, the device differs from itself by {error['control_median_error']:.1%} and "
            f"{error['control_p90_error']:.1%}, tau {error['control_kendall_tau']:.3f}."
        )

    def to_json(self) -> dict[str, Any]:
        """The table as a JSON object."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> "LatencyTable":
        """The inverse of `to_json`.

        Raises:
            DaquError: It is none, or of another format.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise DaquError(f"A latency table must be a JSON object of format {FORMAT}: {_MAKE_ONE}.")
        values = {name: value for name, value in content.items() if name != "format"}
        table = fields.from_json(cls, values, "A latency table")
        for name in ("storage", "device", "blocks_us", "evidence"):
            if not isinstance(getattr(table, name), Mapping):
                raise DaquError(f"`{name}` of a latency table must be a JSON object, but received {getattr(table, name)!r}.")
        try:
            Storage(**table.storage)
        except TypeError:
            raise DaquError(f"`storage` of a latency table must have `container` and `runtime`: {_MAKE_ONE}.") from None
        correction = fields.from_json(Correction, table.correction, "`correction` of a latency table")
        if not table.blocks_us or not all(map(_is_number, (*dataclasses.astuple(correction), *table.blocks_us.values()))):
            raise DaquError(f"`blocks_us` and `correction` of a latency table must be finite numbers: {_MAKE_ONE}.")
        return dataclasses.replace(table, correction=correction)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the table as JSON, whole or not at all.

        Raises:
            DaquError: It cannot be written.
        """
        try:
            files.write_json(path, self.to_json())
        except OSError as error:
            raise DaquError(f"The latency table {path} cannot be written ({error.strerror}): choose another path.") from error

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LatencyTable":
        """Reads what `save` wrote.

        Raises:
            DaquError: It cannot be read or is no table.
        """
        try:
            content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DaquError(f"The latency table {path} cannot be read ({error.strerror}): {_MAKE_ONE}.") from error
        except (ValueError, RecursionError) as error:
            raise DaquError(f"The latency table {path} is no JSON ({error}): {_MAKE_ONE}.") from error
        return cls.from_json(content)


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first thing in which two devices differ; empty where they are of a kind."""
    different = [name for name in [*there, *here] if there.get(name) != here.get(name)]
    return f"`{different[0]}` is {there.get(different[0])!r} there and {here.get(different[0])!r} here" if different else ""
