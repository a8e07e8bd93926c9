"""The base of all devices: their identity, and fair timing of many models."""

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

_COOLER = 5.0  # Degrees below its limit to which a device that was too hot has to cool.
_LOOK_SECONDS = 2.0  # The time between two looks at a thermometer.
_REST_SECONDS = 10.0  # The rest of a device that gets slower from turn to turn, whether it has a thermometer or not.


def check_timing(min_runs: int, min_seconds: float, max_warmup_seconds: float) -> None:
    """Raises `DeviceSetupError` unless the arguments of `Device.measure` with these names are in range."""
    if min_runs < 1 or min_seconds < 0 or max_warmup_seconds < 0:
        raise DeviceSetupError(
            "`min_runs` must be at least 1 and the seconds at least 0, "
            f"but received {min_runs}, {min_seconds} and {max_warmup_seconds}."
        )


class Device(abc.ABC):
    """Something that can time and run a `.tflite` file.

    Attributes:
        name: The text from which `connect` makes the device, such as `host`, `raspberry_pi:pi@board` or `android:SERIAL`.
        max_celsius: The temperature from which on the device is too hot: it cools before it times anything, and what it timed at
            that temperature is flagged.
        cool_seconds: The longest time for which the device may cool.
    """

    name: str
    max_celsius: float = 80.0  # From here on a Raspberry Pi slows down, and so do phones, though their sensors differ.
    cool_seconds: float = 120.0
    _has_run: bool = False
    _celsius: float | None = None

    @abc.abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the device's latencies depend on and what does not change, under which they are stored.

        It is equal to the `identity` of the latencies. It holds the kind, board or model, cpu, cores, the highest frequency where
        it is known, os and ABI, the cpus that are pinned to or the core mask, the runtime and its version, the threads, and the
        delegate asked for. It does not hold the serial or address, which differ between devices of one kind, nor the temperature
        or the frequency of the moment.

        Raises:
            DeviceLostError: The device does not answer.
            DeviceSetupError: The device has no runtime.
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

        A device that is too hot cools first. A doubtful measurement is flagged, not repeated as in `measure_many`.

        Args:
            model_path: The path of the `.tflite` file.
            min_runs: The least number of samples.
            min_seconds: The shortest time to sample for, in seconds.
            max_warmup_seconds: The time after which sampling starts even if the calls are not steady yet, in seconds.

        Raises:
            ModelError: The model does not run on the device.
            DeviceLostError: The device does not answer.
            DeviceSetupError: Something has to be mended first.
        """

    def measure_batch(self, model_paths: Sequence[str | os.PathLike], **settings: Any) -> list[Latency]:
        """Times many small models once each, with as little overhead as the device allows, perhaps several in one process.

        Errors are those of `measure`.

        Args:
            model_paths: The paths of the `.tflite` files.
            **settings: The arguments of `measure` after the path.
        """
        return [self.measure(path, **settings) for path in model_paths]

    @abc.abstractmethod
    def outputs(self, model_path: str | os.PathLike, images: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """Runs a model on images and gives its raw outputs.

        Args:
            model_path: The path of a `.tflite` file with one input, of batch size 1, and one output.
            images: The images (N, H, W, C), float32 in [0, 1], which are quantized by the scale and zero point of the file's input.
                None takes one random image of the file's shape, the same on every device.

        Returns:
            The outputs (N, classes) in the file's own type, and their scale and zero point, which are 0.0 and 0 for real outputs.

        Raises:
            ModelError: The model does not run, or takes other images.
            DeviceLostError: The device does not answer.
            DeviceSetupError: Something has to be mended first.
        """

    def predict(self, model_path: str | os.PathLike, images: np.ndarray) -> np.ndarray:
        """The outputs (N, classes) of images as real numbers, float32, with the arguments and errors of `outputs`."""
        raw, scale, zero_point = self.outputs(model_path, images)
        return (raw.astype(np.float32) - zero_point) * np.float32(scale) if scale else raw.astype(np.float32)

    def check(self) -> None:  # noqa: B027
        """Does nothing if the device answers, as this machine always does.

        Raises:
            DeviceLostError: The device does not answer.
        """

    def temperature_celsius(self) -> float | None:
        """The temperature of the processor in degrees Celsius; None where the device does not tell it."""
        return None

    def measure_many(
        self, model_paths: Sequence[str | os.PathLike], repeats: int = 3, seed: int = 0, **settings: Any
    ) -> list[Latency]:
        """Times several models fairly, with the arguments and the method of `measure_each`.

        Returns:
            One latency for each model, in the order given.

        Raises:
            ModelError: A model does not run; the error is that of the first one.
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
        """Times several models fairly: in turns, each in a new random order, so that drift affects all models alike.

        Doubtful runs are taken again in further turns; what stays doubtful is flagged. A device that gets slower from turn to turn
        rests before the next turn.

        Args:
            model_paths: The paths of the `.tflite` files.
            repeats: The number of runs of each model, each in a fresh process; their samples are joined.
            seed: The seed of the orders.
            retries: The most further turns, for models with doubtful runs.
            on_run: Is called with the index of a model and each single run of it, as it comes, so that a caller can keep what was
                timed before a device is lost.
            **settings: The arguments of `measure` after the path.

        Returns:
            For each model, in the order given, its latency, or the error that says why it does not run.

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
            # All `repeats` turns are taken even if the first runs are steady, since drift shows only in time.
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
        """Times the models once, in this order, and yields the index of each with its latency or error."""
        for index in order:
            try:
                yield index, self.measure(model_paths[index], **settings)
            except ModelError as error:
                yield index, error

    def _cool_down(self) -> None:
        """Waits while the device is too hot.

        Raises:
            DeviceSetupError: The device was too hot before it timed anything, and stays so.
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
        """Adds flags to the latency of one run, and remembers how hot the device got."""
        found = set(flags)
        if any(steadiness.is_throttled(each["before"], each["after"], self.max_celsius) for each in latency.conditions):
            found.add("throttled")
        self._has_run = True
        self._celsius = latency.conditions[-1]["after"].get("temperature_celsius") if latency.conditions else None
        return dataclasses.replace(latency, flags=tuple(sorted(found)))


def _flagged(run: Latency, flag: str) -> Latency:
    return dataclasses.replace(run, flags=tuple(sorted({*run.flags, flag})))
