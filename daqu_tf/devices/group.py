"""Several devices of one kind that share the work, or one that may come back: whatever is lost is waited for, within limits."""

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
        attempts: How often it is tried again.
        wait_seconds: Before the first time; every wait is twice the one before.
        notify: Called with a sentence before every wait, and when the device is back; from the thread of that device.
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
        """Waits until a device answers again; returns why it does not, if it does not, or if `stopped` is set before."""
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
    """Devices of one kind, each timing one model at a time; the identity of all is the same, so their latencies go together.

    The runs of a model are spread over the devices, not kept on one: phones of one kind differ by some percent, and so all models
    see the same mix of them, and where they differ too much the latencies say so (`run_spread`). A device that is lost hands its
    model to the others and is waited for meanwhile; so a group of one is a device with patience. Only who has answered once is
    waited for: before that it is more likely a slip in the name.

    Args:
        devices: At least one.
        patience: For those that are lost.
    """

    def __init__(self, devices: Sequence[Device], patience: Patience | None = None):
        names = [device.name for device in devices]
        if not names or len(set(names)) < len(names):
            raise DeviceSetupError(f"`devices` must be different ones, at least one, but received {', '.join(names) or 'none'}.")
        self.devices, self.patience = tuple(devices), patience or Patience()
        self.name = ",".join(names)
        self._identity: dict[str, Any] | None = None
        self._timed: collections.Counter = collections.Counter()  # By device and model.

    def identity(self) -> dict[str, Any]:
        """See `Device.identity`.

        Raises:
            DeviceSetupError: The devices are of different kinds.
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
        """Times a model once, on a device that is free; see `Device.measure`."""
        ((_, found),) = self._turn([0], [model_path], settings)
        if isinstance(found, ModelError):
            raise found
        return found

    def measure_batch(self, model_paths: Sequence[str | os.PathLike], **settings: Any) -> list[Latency]:
        """See `Device.measure_batch`; several devices take one model at a time each."""
        if len(self.devices) == 1:
            return self._on_any(lambda device: device.measure_batch(model_paths, **settings))
        return self.measure_many(model_paths, repeats=1, retries=0, **settings)

    def outputs(self, model_path: str | os.PathLike, images: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """See `Device.outputs`; on the first device that answers."""
        return self._on_any(lambda device: device.outputs(model_path, images))

    def check(self) -> None:
        """Returns if one of them answers."""
        self._on_any(lambda device: device.check())

    def temperature_celsius(self) -> float | None:
        """How hot the hottest is."""
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
        """Calls with the devices in turn until one answers; then, with patience, again when one has come back."""
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
    """Models that are timed once each. The thread of every device takes them, reports, and gives back what it could not finish."""

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
        """Yields what comes of every model; raises when the last worker is lost, or anything else goes wrong."""
        for _ in range(self._count):
            while isinstance(found := self._results.get(), DeviceLostError) and (workers := workers - 1):
                pass
            if isinstance(found, BaseException):
                raise found
            yield found

    def stop(self) -> None:
        """Lets the threads end, also those that wait for their device."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def work(self, device: Device) -> None:
        """Times models on a device until none is left, or the device is lost for good."""
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
        """Gives a model back, unless devices are lost by it again and again: then it is the model's fault, if they come back."""
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
        """A model to time next, of those the one that the device has timed least, so that the runs of all are spread."""
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
