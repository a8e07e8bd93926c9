"""The latency table of a device: the latency of each block of a search space, from which that of any subnet is predicted.

    table = LatencyTable.load("pi4.json")
    table.check(space, target.storage, device.identity())
    table.predict(space, subnet)  # Microseconds.

`profiling` makes tables. Nothing here imports TensorFlow.
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
from daqu_tf.errors import DaquError, WriteError
from daqu_tf.fields import difference
from daqu_tf.latency.blocks import TimedBlock, blocks_of, every_block
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets.storage import Storage

FORMAT = 1
_LEAST_US = 0.01  # The least latency that a correction gives.
_MAKE_ONE = "make one with daqu-profile"


@dataclasses.dataclass(frozen=True)
class Correction:
    """The correction of the sum of blocks: `fixed_us + scale * sum + block_us * number of blocks`.

    Each call of a file takes some time. It is in the latency of every block, but only once in that of a whole subnet.

    Attributes:
        fixed_us: The microseconds that are added once.
        scale: The factor of the sum of blocks.
        block_us: The microseconds that are added for each block, mostly negative.
    """

    fixed_us: float
    scale: float
    block_us: float

    @classmethod
    def fitted(cls, sums_us: np.ndarray, counts: np.ndarray, measured_us: np.ndarray) -> "Correction":
        """The correction with the least squared relative error.

        Args:
            sums_us: The sum of the blocks' latencies for each subnet (n,), in microseconds.
            counts: The number of blocks of each subnet (n,).
            measured_us: The measured latency of each subnet (n,), in microseconds.

        Raises:
            DaquError: There are fewer than three subnets.
        """
        if len(measured_us) < 3:
            raise DaquError(f"A correction needs at least 3 measured subnets, but received {len(measured_us)}: measure more.")
        features = np.stack([np.ones(len(sums_us)), sums_us, counts], axis=1)
        weights = np.linalg.lstsq(features / measured_us[:, None], np.ones(len(sums_us)), rcond=None)[0]
        return cls(*map(float, weights))

    def apply(self, sums_us: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The latencies (n,) in microseconds of subnets, from the sums (n,) and the numbers (n,) of their blocks."""
        return np.maximum(self.fixed_us + self.scale * sums_us + self.block_us * counts, _LEAST_US)


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """The latencies of all blocks of a space on one device, and how well they predict whole subnets.

    Attributes:
        space: The name of the space that the table was made for; it also serves other spaces whose blocks are all in it.
        storage: The `container` and the `runtime` of the files.
        device: The identity of the device, with runtime, threads and delegate.
        blocks_us: The median latency of each block in microseconds, by its `TimedBlock.key`.
        correction: The correction of the sum of blocks.
        evidence: How the table was measured, and its error on subnets to which it was not fitted (see `profiling`).
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
            DaquError: The table lacks a block of the subnet.
        """
        return float(self.predict_many(space, np.array([space.genome(subnet)]))[0])

    def predict_many(self, space: SearchSpace, genomes: np.ndarray) -> np.ndarray:
        """The latencies (count,) in microseconds of the subnets with genomes (count, genes).

        Raises:
            DaquError: The table lacks a block of a subnet.
        """
        return self.correction.apply(*self.sums(space, genomes))

    def sums(self, space: SearchSpace, genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sums (count,) in microseconds, and the numbers (count,), of the blocks of subnets with genomes (count, genes)."""
        sums, counts = np.zeros(len(genomes)), np.zeros(len(genomes), int)
        storage = Storage(**self.storage)
        for blocks, index in blocks_of(space, genomes):
            prices = np.array([*(self._price(block, storage) for block in blocks), 0.0])  # The last price is for no block.
            sums += prices[index]
            counts += index >= 0
        return sums, counts

    def _price(self, block: TimedBlock, storage: Storage) -> float:
        """The latency of a block, between those at its highest and lowest weight bits throughout, by the share of the MACs."""
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
        """Raises `DaquError` unless the table holds for a space, a storage and a device.

        Args:
            space: The space of the subnets.
            storage: The storage of their files.
            device: The identity of the device; None does not check it.

        Raises:
            DaquError: The table does not hold for one of them.
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
    def errors(self) -> Mapping[str, Any]:
        """The errors on subnets to which the table was not fitted, from `profiling.compared`; empty where they are unknown."""
        return self.evidence.get("validation") or {}

    def summary(self) -> str:
        """Sentences that say how `profiling.profile` measured the table, and how far off it is."""
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
        """The table that a JSON object describes, the inverse of `to_json`.

        Raises:
            DaquError: The object is no latency table, or has another format.
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
        """Writes the table to a JSON file, whole or not at all.

        Raises:
            DaquError: The file cannot be written.
        """
        try:
            files.write_json(path, self.to_json())
        except WriteError:
            raise
        except OSError as error:
            raise DaquError(f"The latency table {path} cannot be written ({error.strerror}): choose another path.") from error

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LatencyTable":
        """The table in a file that `save` wrote.

        Raises:
            DaquError: The file cannot be read, or holds no latency table.
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
