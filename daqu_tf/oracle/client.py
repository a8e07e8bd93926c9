"""A worker's side of a distributed search: KerasTuner's own client, but one that survives the loss of its chief for a while."""

import json
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import keras_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_client import OracleClient
from keras_tuner.src.engine.metrics_tracking import MetricsTracker

from daqu_tf.errors import DaquError
from daqu_tf.oracle.chief import (
    CHANNEL,
    ENDED,
    IS_FATAL,
    MESSAGE,
    MESSAGE_BYTES,
    METRICS,
    PROCESS,
    REFUSED,
    TUNER_ID,
    UNKNOWN_TRIAL,
    VALUES,
    Message,
)
from daqu_tf.oracle.hyperparameters import keep_proposed
from daqu_tf.oracle.journaled_oracle import LEASE_SECONDS
from daqu_tf.pareto.incoming import named, number

CALL_SECONDS = 3600.0  # KerasTuner has the same, since a chief that is alive may think for long.
RETRY_SECONDS = 0.3
BEATS_A_LEASE = 4
Metadata = tuple[tuple[str, str | bytes], ...]  # Of a call.
# Errors of a chief that was killed or is not there yet. A call is then made again, so every call may be made twice.
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
_OPTIONS = (
    *CHANNEL,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class ChiefLostError(DaquError, keras_tuner.errors.FatalError):
    """There has been no chief for too long. Since it is a `FatalError`, KerasTuner does not count the trial as failed."""


class SearchEndedError(DaquError, keras_tuner.errors.FatalError):
    """The chief has ended the search because of the error in the message."""


class TooLargeError(DaquError, keras_tuner.errors.FatalError):
    """A call was refused for its size, which another try would not change."""


class UnknownTrialError(Exception):
    """The chief does not know the trial, since it has begun another search."""


class PatientStub:
    """KerasTuner's stub, whose calls wait for a chief that is away.

    Args:
        address: The host and port of the chief.
        tuner_id: The id of this worker.
        patience_seconds: The longest time to wait for the chief.
    """

    def __init__(self, address: str, tuner_id: str, patience_seconds: float):
        channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = protos.get_service_grpc().OracleStub(channel)
        self._address, self._patience = address, patience_seconds
        self._metadata = ((TUNER_ID, tuner_id), (PROCESS, uuid.uuid4().hex))
        self._end: SearchEndedError | None = None

    def __getattr__(self, name: str) -> Callable[..., Message]:
        method = getattr(self._stub, name)
        return lambda request, **_: self._call(method, request)

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial of this worker, with its values as proposed; KerasTuner's message fills in defaults for missing ones."""
        request = protos.get_service().CreateTrialRequest(tuner_id=tuner_id)
        response, call = self._call(self._stub.CreateTrial.with_call, request)
        trial, metadata = Trial.from_proto(response.trial), dict(call.trailing_metadata() or ())
        if VALUES in metadata:
            trial.hyperparameters.values = json.loads(metadata[VALUES])
        return trial

    def end_trial(self, request: Message, extra: Metadata) -> None:
        """Ends a trial, and warns where the chief refuses the report.

        Args:
            request: KerasTuner's message.
            extra: Further entries for the metadata of the call, for what the message does not hold.
        """
        _, call = self._call(self._stub.EndTrial.with_call, request, extra)
        metadata = dict(call.trailing_metadata() or ())
        if REFUSED in metadata:
            warnings.warn(metadata[REFUSED].decode(errors="replace"), stacklevel=4)

    def beat(self, trial_id: str, seconds: float) -> None:
        """Gives the chief a sign of life by asking for a trial, without waiting for a chief that is away.

        Args:
            trial_id: The trial that this worker runs.
            seconds: The longest time to wait for the answer.
        """
        request = protos.get_service().GetTrialRequest(trial_id=trial_id)
        try:
            self._stub.GetTrial(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() == ENDED:  # Whoever needs the chief will notice other errors, but the chief would be gone by then.
                self._end = _ended(error)

    def _call(self, method: Callable[..., Any], request: Message, extra: Metadata = ()) -> Any:
        silent_since = None
        while True:
            if self._end:
                raise self._end
            try:
                return method(request, timeout=CALL_SECONDS, metadata=(*self._metadata, *extra))
            except grpc.RpcError as error:
                silent_since = silent_since or time.monotonic()
                self._check(error, time.monotonic() - silent_since)
            time.sleep(RETRY_SECONDS)

    def _check(self, error: grpc.RpcError, silent_seconds: float) -> None:
        """Raises the error that a failed call means, unless the call is to be made again."""
        if error.code() == ENDED:
            raise _ended(error) from None
        if error.code() == UNKNOWN_TRIAL:
            raise UnknownTrialError(error.details()) from None
        if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise TooLargeError(
                f"What a worker and its chief told each other is too large ({error.details()}): report fewer metrics, or search "
                "fewer hyperparameters."
            ) from error
        if error.code() not in _RETRIED:
            raise error
        if silent_seconds > self._patience:
            raise ChiefLostError(
                f"No chief was heard of at {self._address} for {self._patience:g} seconds: start it, then this worker again, "
                "unless the search is over."
            ) from error


def _ended(error: grpc.RpcError) -> SearchEndedError:
    return SearchEndedError(f"The chief has ended the search: {error.details()}")


class ChiefClient(OracleClient):
    """The stand-in for an oracle in the tuner of a worker, which asks the chief.

    Args:
        oracle: An oracle that was made as the chief's was, for its objectives and its space.
        patience_seconds: The longest time to wait for a chief that does not answer.
    """

    def __init__(self, oracle: keras_tuner.Oracle, patience_seconds: float):
        super().__init__(oracle)
        address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
        self.stub = PatientStub(address, self.tuner_id, patience_seconds)
        self._beat_seconds = getattr(oracle, "lease_seconds", LEASE_SECONDS) / BEATS_A_LEASE
        self._beating: threading.Event | None = None
        self._reported: dict[str, MetricsTracker] = {}
        self._proposed: dict[str, dict[str, Any]] = {}

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial, for which the chief gets signs of life from now on."""
        trial = self.stub.create_trial(tuner_id)
        self._rest()
        if trial.status == "RUNNING":
            self._proposed[trial.trial_id] = dict(trial.hyperparameters.values)
            self._beating = threading.Event()
            threading.Thread(target=self._beat, args=(trial.trial_id, self._beating), daemon=True).start()
        return trial

    def _beat(self, trial_id: str, over: threading.Event) -> None:
        while not over.wait(self._beat_seconds):
            self.stub.beat(trial_id, self._beat_seconds)

    def _rest(self) -> None:
        if self._beating is not None:
            self._beating.set()

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        """Reports metrics to the chief, and keeps a copy for the end of the trial, when there may be another chief."""
        metrics = {name: number(value) for name, value in named("metrics", metrics).items()}
        tracker = self._reported.setdefault(trial_id, MetricsTracker())
        for name, value in metrics.items():
            tracker.update(name, value, step=step)
        return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial, with all metrics that were reported and its message."""
        trial.metrics = self._reported.pop(trial.trial_id, trial.metrics)
        keep_proposed(trial, self._proposed.pop(trial.trial_id, {}))
        self._send(trial, ())
        self._rest()

    def give_up(self, trial: Trial, message: str) -> None:
        """Ends the search, but not the trial, which no worker can run until the user has mended something.

        Args:
            trial: The trial that was running.
            message: The error that the user has to mend.
        """
        trial.message = message
        self._send(trial, ((IS_FATAL, "1"),))

    def _send(self, trial: Trial, extra: Metadata) -> None:
        if not self.should_report:
            return
        extra = (*extra, (METRICS, json.dumps(trial.metrics.get_config()).encode()))
        if trial.message:
            extra = (*extra, (MESSAGE, trial.message.encode()[-MESSAGE_BYTES:]))
        self.stub.end_trial(protos.get_service().EndTrialRequest(trial=trial.to_proto()), extra)
