"""What all devices share: who a device is, and fair timing of many models."""

import abc
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from daqu_tf.devices import steadiness
from daqu_tf.devices.errors import DeviceSetupError, ModelError
from daqu_tf.devices.measurement import Latency, settle, wants_another

_COOLER = 5.0  # By how much a device that was too hot has to cool below its limit.
_LOOK_SECONDS = 2.0  # Between two looks at its thermometer.
_REST_SECONDS = 10.0  # For a device that gets slower and slower, with a thermometer or without.


def check_timing(min_runs: int, min_seconds: float, max_warmup_seconds: float) -> None:
    """Raises `DeviceSetupError` unless these arguments of `Device.measure` are in range."""
    if min_runs < 1 or min_seconds < 0 or max_warmup_seconds < 0:
        raise DeviceSetupError(
            "`min_runs` must be at least 1 and the seconds at least 0, "
            f"but received {min_runs}, {min_seconds} and {max_warmup_seconds}."
        )


class Device(abc.ABC):
    """Something that can time a `.tflite` file.

    Attributes:
        name: What `connect` makes it from, such as `host`, `raspberry_pi:pi@board` or `android:SERIAL`.
        max_celsius: At this temperature it is too hot: it is let cool before it times anything, and what it timed is flagged.
        cool_seconds: For how long at most.
    """

    name: str
    max_celsius: float = 80.0  # A Raspberry Pi slows down from here on; so do phones, which show other sensors.
    cool_seconds: float = 120.0
    _has_run: bool = False
    _celsius: float | None = None

    @abc.abstractmethod
    def identity(self) -> dict[str, Any]:
        """Returns what its latencies depend on and what does not change, to store them under: equal to their `identity`.

        Kind, board or model, cpu, cores, os and ABI, the cpus it pins to or its core mask; runtime and version, threads, and the
        delegate asked for. Not its serial or address, which tell it from others of its kind; not its temperature or frequency.

        Raises:
            DeviceLostError: It does not answer.
            DeviceSetupError: It has no runtime.
        """

    @abc.abstractmethod
    def measure(
        self,
        model_path: str | os.PathLike,
        *,
        min_runs: int = 50,
        min_seconds: float = 0.2,
        max_warmup_seconds: float = 1.0,
    ) -> Latency:
        """Times a model in one go: warm-up until the calls are steady, then raw samples.

        A device that is too hot is let cool before. What is doubtful all the same is flagged, not repeated: see `measure_many`.

        Args:
            model_path: The `.tflite` file.
            min_runs: Samples to take at least.
            min_seconds: Seconds to sample for at least.
            max_warmup_seconds: When to start sampling even if the calls are not steady yet.

        Raises:
            ModelError: The model does not run there.
            DeviceLostError: The device does not answer.
            DeviceSetupError: Something has to be mended first.
        """

    def measure_batch(self, model_paths: Sequence[str | os.PathLike], **settings: Any) -> list[Latency]:
        """Times many small models once, with as little beside it as the device allows: in one process for several, perhaps.

        Args:
            model_paths: The `.tflite` files.
            **settings: Of `measure`, which has the errors too.
        """
        return [self.measure(path, **settings) for path in model_paths]

    @abc.abstractmethod
    def outputs(self, model_path: str | os.PathLike, images: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """Runs a model on images and returns what it puts out, untouched.

        Args:
            model_path: A `.tflite` file with one input, of batch size 1, and one output.
            images: float32, shape (N, H, W, C), in [0, 1]; quantized by the input's own scale and zero point. None takes one
                image of the file's shape, random and the same on every device.

        Returns:
            The outputs, shape (N, classes), in the file's own type; their scale and zero point, 0.0 and 0 if float.

        Raises:
            ModelError: The model does not run or takes other images.
            DeviceLostError: The device does not answer.
            DeviceSetupError: Something has to be mended first.
        """

    def predict(self, model_path: str | os.PathLike, images: np.ndarray) -> np.ndarray:
        """Returns the logits of images as float32, shape (N, classes); see `outputs` for the arguments and errors."""
        raw, scale, zero_point = self.outputs(model_path, images)
        return (raw.astype(np.float32) - zero_point) * np.float32(scale) if scale else raw.astype(np.float32)

    def check(self) -> None:  # noqa: B027
        """Returns if it answers, as this machine always does.

        Raises:
            DeviceLostError: It does not.
        """

    def temperature_celsius(self) -> float | None:
        """How hot its processor is, None where it does not tell."""
        return None

    def measure_many(
        self, model_paths: Sequence[str | os.PathLike], repeats: int = 3, seed: int = 0, **settings: Any
    ) -> list[Latency]:
        """Times several models fairly; see `measure_each` for the arguments.

        Returns:
            One latency for each model, in the order given.

        Raises:
            ModelError: Of the first model that does not run.
        """
        found = []
        for each in self.measure_each(model_paths, repeats, seed, **settings):
            if isinstance(each, ModelError):
                raise each
            found.append(each)
        return found

    def measure_each(
        self,
        model_paths: Sequence[str | os.PathLike],
        repeats: int = 3,
        seed: int = 0,
        retries: int = 2,
        on_run: Callable[[int, Latency | ModelError], None] | None = None,
        **settings: Any,
    ) -> list[Latency | ModelError]:
        """Times several models fairly: in turns, in a new random order each turn, so that drift hits all alike.

        What is doubtful is taken again, in turns of its own; what stays doubtful is flagged. A device that gets slower from turn
        to turn rests before the next one.

        Args:
            model_paths: The `.tflite` files.
            repeats: Fresh processes for each model; their samples are joined.
            seed: Seed of the orders.
            retries: More turns, at most, for models with doubtful runs.
            on_run: Called with the index of a model and every single run of it, as it comes: what was timed before a device was
                lost is lost only if nobody keeps it.
            **settings: Passed on to `measure`.

        Returns:
            For each model, in the order given, its latency, or why it does not run: one bad model costs the others nothing.

        Raises:
            DeviceLostError: The device does not answer.
            DeviceSetupError: Something has to be mended first.
        """
        if repeats < 1 or retries < 0:
            raise DeviceSetupError(f"`repeats` must be at least 1 and `retries` 0, but received {repeats} and {retries}.")
        rng = np.random.default_rng(seed)
        runs: list[list[Latency]] = [[] for _ in model_paths]
        faults: dict[int, ModelError] = {}
        for turn in range(repeats + retries):
            wanted = [index for index in range(len(runs)) if index not in faults]
            # Even if the first runs are as steady as can be: drift shows only in time.
            wanted = [index for index in wanted if turn < repeats or wants_another(runs[index], repeats)]
            if not wanted:
                break
            for index, found in self._turn(rng.permutation(wanted).tolist(), model_paths, settings):
                if on_run:
                    on_run(index, found)
                if isinstance(found, ModelError):
                    faults[index] = found
                else:
                    runs[index].append(found)
            if turn >= 2 and steadiness.is_drifting([[run.median_us for run in each] for each in runs]):
                for index in wanted:
                    runs[index][-1:] = [_flagged(run, "throttled") for run in runs[index][-1:]]
                time.sleep(_REST_SECONDS if turn < repeats + retries - 1 else 0)
        return [faults.get(index) or settle(each, repeats) for index, each in enumerate(runs)]

    def _turn(
        self, order: Sequence[int], model_paths: Sequence[str | os.PathLike], settings: dict[str, Any]
    ) -> Iterator[tuple[int, Latency | ModelError]]:
        """Times the models once, in this order; yields each one's index with what came of it."""
        for index in order:
            try:
                yield index, self.measure(model_paths[index], **settings)
            except ModelError as error:
                yield index, error

    def _cool_down(self) -> None:
        """Waits while the device is too hot.

        Raises:
            DeviceSetupError: It has been from the start, and stays so.
        """
        if not self._has_run:
            self._celsius = self.temperature_celsius()
        if self._celsius is None or self._celsius < self.max_celsius:
            return
        end = time.monotonic() + self.cool_seconds
        while self._celsius is not None and self._celsius > self.max_celsius - _COOLER and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            self._celsius = self.temperature_celsius()
        if not self._has_run and self._celsius is not None and self._celsius >= self.max_celsius:
            raise DeviceSetupError(
                f"{self.name} has {self._celsius:g} degrees Celsius before it has timed anything, and did not cool below "
                f"{self.max_celsius:g} within {self.cool_seconds:g} s: see what else it does, and give it air."
            )

    def _judged(self, latency: Latency, *flags: str) -> Latency:
        """Adds the flags of one run, and keeps in mind how hot it got."""
        found = set(flags)
        if any(steadiness.is_throttled(each["before"], each["after"], self.max_celsius) for each in latency.conditions):
            found.add("throttled")
        self._has_run = True
        self._celsius = latency.conditions[-1]["after"].get("temperature_celsius") if latency.conditions else None
        return dataclasses.replace(latency, flags=tuple(sorted(found)))


def _flagged(run: Latency, flag: str) -> Latency:
    return dataclasses.replace(run, flags=tuple(sorted({*run.flags, flag})))
