"""Several devices of one kind that share the work; a device that is lost is waited for, within limits."""

import collections
import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from daqu_tf.devices.base import Device
from daqu_tf.devices.errors import DeviceLostError, DeviceSetupError, ModelError
from daqu_tf.devices.measurement import Latency

_Found = TypeVar("_Found")


@dataclasses.dataclass(frozen=True)
class Patience:
    """How a lost device is waited for.

    Attributes:
        attempts: The number of times that the device is tried again.
        wait_seconds: The wait before the first of them in seconds; every wait is twice as long as the one before.
        notify: Is called with a sentence before every wait and when the device is back, from the thread of that device.
    """

    attempts: int = 5
    wait_seconds: float = 5.0
    notify: Callable[[str], None] = lambda sentence: None

    def __post_init__(self) -> None:
        if self.attempts < 0 or self.wait_seconds < 0:
            raise DeviceSetupError(
                f"`attempts` and `wait_seconds` must be at least 0, but received {self.attempts} and {self.wait_seconds}."
            )

    def wait_for(self, device: Device, error: DeviceLostError, stopped: threading.Event) -> DeviceLostError | None:
        """Waits until a device answers again.

        Args:
            device: The device that is lost.
            error: The error that it was lost with.
            stopped: An event that ends the wait.

        Returns:
            None if the device answers, else the last error.
        """
        for attempt in range(self.attempts):
            seconds = self.wait_seconds * 2**attempt
            said = str(error).rstrip(".")
            self.notify(f"{device.name} is lost ({said}); trying again in {seconds:g} s, {attempt + 1} of {self.attempts} times.")
            if stopped.wait(seconds):
                return error
            try:
                device.check()
            except DeviceLostError as again:
                error = again
            else:
                self.notify(f"{device.name} answers again.")
                return None
        return error


class DeviceGroup(Device):
    """Devices of one kind, each of which times one model at a time; their identity is the same, so their latencies go together.

    The runs of a model are spread over the devices, since even phones of one kind differ by some percent: all models see the same
    mix of devices, and latencies are flagged `run_spread` where devices differ too much. A device that is lost hands its model to
    the others and is waited for meanwhile, so a group of one is a device with patience. A device is waited for only if it has
    answered once, since otherwise its name is more likely wrong.

    Args:
        devices: The devices, at least one.
        patience: How lost devices are waited for; None takes the defaults of `Patience`.
    """

    def __init__(self, devices: Sequence[Device], patience: Patience | None = None):
        names = [device.name for device in devices]
        if not names or len(set(names)) < len(names):
            raise DeviceSetupError(f"`devices` must be different ones, at least one, but received {', '.join(names) or 'none'}.")
        self.devices, self.patience = tuple(devices), patience or Patience()
        self.name = ",".join(names)
        self._identity: dict[str, Any] | None = None
        self._timed: collections.Counter = collections.Counter()  # The number of runs by device and model.

    def identity(self) -> dict[str, Any]:
        """The identity that all devices of the group have.

        Raises:
            DeviceLostError: A device does not answer.
            DeviceSetupError: The devices differ.
        """
        if self._identity is None:
            first, *others = [device.identity() for device in self.devices]
            for device, other in zip(self.devices[1:], others):
                if other != first:
                    names = sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name))
                    told = "; ".join(f"{name} {first.get(name)!r} and {other.get(name)!r}" for name in names)
                    pair = f"{self.devices[0].name} and {device.name}"
                    raise DeviceSetupError(f"{pair} cannot share the work, since they differ ({told}): time them apart.")
            self._identity = first
        return dict(self._identity)

    def measure(self, model_path: str | os.PathLike, **settings: Any) -> Latency:
        """Times a model once, on a device that is free, with the errors of `Device.measure`.

        Args:
            model_path: The path of the `.tflite` file.
            **settings: The arguments of `Device.measure` after the path.
        """
        ((_, found),) = self._turn([0], [model_path], settings)
        if isinstance(found, ModelError):
            raise found
        return found

    def measure_batch(self, model_paths: Sequence[str | os.PathLike], **settings: Any) -> list[Latency]:
        """Times many small models once each; of several devices, each takes one model at a time.

        Args:
            model_paths: The paths of the `.tflite` files.
            **settings: The arguments of `Device.measure` after the path.
        """
        if len(self.devices) == 1:
            return self._on_any(lambda device: device.measure_batch(model_paths, **settings))
        return self.measure_many(model_paths, repeats=1, retries=0, **settings)

    def outputs(self, model_path: str | os.PathLike, images: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """Runs a model on images (N, H, W, C), on the first device that answers, with the results of `Device.outputs`."""
        return self._on_any(lambda device: device.outputs(model_path, images))

    def check(self) -> None:
        """Raises `DeviceLostError` if none of the devices answers."""
        self._on_any(lambda device: device.check())

    def temperature_celsius(self) -> float | None:
        """The temperature of the hottest device in degrees Celsius; None where none tells it."""
        return max((found for found in (each.temperature_celsius() for each in self.devices) if found is not None), default=None)

    def _turn(
        self, order: Sequence[int], model_paths: Sequence[str | os.PathLike], settings: dict[str, Any]
    ) -> Iterator[tuple[int, Latency | ModelError]]:
        self.identity()
        turn = _Turn(order, [os.fspath(path) for path in model_paths], settings, self.patience, self._timed)
        for device in self.devices:
            threading.Thread(target=turn.work, args=(device,), daemon=True, name=f"times on {device.name}").start()
        try:
            yield from turn.results(len(self.devices))
        finally:
            turn.stop()

    def _on_any(self, call: Callable[[Device], _Found]) -> _Found:
        """Calls `call` with the devices in turn until one answers, and again when a lost one has come back."""
        lost: DeviceLostError  # There is at least one attempt with at least one device.
        for _ in range(self.patience.attempts + 1):
            for device in self.devices:
                try:
                    return call(device)
                except DeviceLostError as error:
                    lost = error
            if self._identity is None or all(self.patience.wait_for(each, lost, threading.Event()) for each in self.devices):
                break
        raise lost


class _Turn:
    """Models that are timed once each; the thread of each device takes one, reports it, or gives it back if it is lost."""

    def __init__(
        self,
        order: Sequence[int],
        paths: Sequence[str],
        settings: dict[str, Any],
        patience: Patience,
        timed: collections.Counter,
    ):
        self._waiting, self._paths, self._settings, self._patience, self._timed = list(order), paths, settings, patience, timed
        self._count = self._unfinished = len(self._waiting)
        self._losses: collections.Counter = collections.Counter()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._results: queue.Queue = queue.Queue()

    def results(self, workers: int) -> Iterator[tuple[int, Latency | ModelError]]:
        """Yields the index of every model with its latency or error; raises when the last worker is lost or anything goes wrong."""
        for _ in range(self._count):
            while isinstance(found := self._results.get(), DeviceLostError) and (workers := workers - 1):
                pass
            if isinstance(found, BaseException):
                raise found
            yield found

    def stop(self) -> None:
        """Lets all threads end, also those that wait for their device."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def work(self, device: Device) -> None:
        """Times models on a device until none is left or the device is lost for good."""
        try:
            while (index := self._take(device)) is not None:
                self._time(device, index)
        except BaseException as error:
            self._results.put(error)

    def _time(self, device: Device, index: int) -> None:
        try:
            found = device.measure(self._paths[index], **self._settings)
        except ModelError as error:
            self._report(index, error)
        except DeviceLostError as error:
            self._wait_for(device, index, error)
        else:
            conditions = tuple({"device_name": device.name} | each for each in found.conditions)
            self._report(index, dataclasses.replace(found, conditions=conditions))

    def _wait_for(self, device: Device, index: int, error: DeviceLostError) -> None:
        """Gives a model back and waits for the device; a model by which devices are lost again and again is given up."""
        with self._changed:
            self._losses[index] += 1
            suspect = self._losses[index] > self._patience.attempts
        if not suspect:
            self._give_back(index)
        away = self._patience.wait_for(device, error, self._stopped)
        if suspect and not away:
            times = self._losses[index]
            path, said = self._paths[index], str(error).rstrip(".")
            fault = ModelError(f"{path} was begun {times} times, and each time the device was lost ({said}): leave it out.")
            self._report(index, fault)
        elif suspect:
            self._give_back(index)
        if away:
            raise away

    def _take(self, device: Device) -> int | None:
        """The model to time next: the one that the device has timed least, so that the runs of all models are spread."""
        with self._changed:
            while self._unfinished and not self._waiting and not self._stopped.is_set():
                self._changed.wait()
            if not self._unfinished or self._stopped.is_set():
                return None
            index = min(self._waiting, key=lambda each: self._timed[device.name, self._paths[each]])
            self._waiting.remove(index)
            self._timed[device.name, self._paths[index]] += 1
            return index

    def _give_back(self, index: int) -> None:
        with self._changed:
            self._waiting.insert(0, index)
            self._changed.notify_all()

    def _report(self, index: int, found: Latency | ModelError) -> None:
        self._results.put((index, found))
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()
