"""A worker's side of a distributed search: KerasTuner's own client, which outlives its chief for a while."""

import json
import os
import threading
import time
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
    TUNER_ID,
    UNKNOWN_TRIAL,
    VALUES,
    Message,
)
from daqu_tf.oracle.journaled_oracle import LEASE_SECONDS
from daqu_tf.pareto.incoming import named, number

CALL_SECONDS = 3600.0  # As KerasTuner's: a chief that is alive may think for long.
RETRY_SECONDS = 0.3
BEATS_A_LEASE = 4
Metadata = tuple[tuple[str, str | bytes], ...]  # Of a call.
# The chief was killed, or is not there yet; every call may be made twice.
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
_OPTIONS = (
    *CHANNEL,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class ChiefLostError(DaquError, keras_tuner.errors.FatalError):
    """There has been no chief for too long; at a `FatalError` KerasTuner does not take the trial for a failed one."""


class SearchEndedError(DaquError, keras_tuner.errors.FatalError):
    """The chief has ended the search because of an error, which the message says."""


class UnknownTrialError(Exception):
    """The chief has no such trial: it has begun another search."""


class PatientStub:
    """KerasTuner's stub, whose calls wait for a chief that is away.

    Args:
        address: Of the chief.
        tuner_id: Of this worker.
        patience_seconds: How long to wait for the chief.
    """

    def __init__(self, address: str, tuner_id: str, patience_seconds: float):
        channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = protos.get_service_grpc().OracleStub(channel)
        self._address, self._patience = address, patience_seconds
        self._metadata = ((TUNER_ID, tuner_id),)
        self._end: SearchEndedError | None = None

    def __getattr__(self, name: str) -> Callable[..., Message]:
        method = getattr(self._stub, name)
        return lambda request, **_: self._call(method, request)

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial, with its values as they are: KerasTuner's message has a default in the place of one that is left out."""
        request = protos.get_service().CreateTrialRequest(tuner_id=tuner_id)
        response, call = self._call(self._stub.CreateTrial.with_call, request)
        trial, metadata = Trial.from_proto(response.trial), dict(call.trailing_metadata() or ())
        if VALUES in metadata:
            trial.hyperparameters.values = json.loads(metadata[VALUES])
        return trial

    def end_trial(self, request: Message, extra: Metadata) -> None:
        """Ends a trial with more to say than KerasTuner's message holds."""
        self._call(self._stub.EndTrial, request, extra)

    def beat(self, trial_id: str, seconds: float) -> None:
        """Asks for the trial, a sign of life; whether anyone hears it is not waited for."""
        request = protos.get_service().GetTrialRequest(trial_id=trial_id)
        try:
            self._stub.GetTrial(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() == ENDED:  # All else will be noticed by whoever needs the chief, who will be gone by then.
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
        """Raises what a failed call means, unless it is to be made again."""
        if error.code() == ENDED:
            raise _ended(error) from None
        if error.code() == UNKNOWN_TRIAL:
            raise UnknownTrialError(error.details()) from None
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
    """What a worker's tuner has in place of an oracle.

    Args:
        oracle: As the chief's, for what does not change: objectives and space.
        patience_seconds: How long to wait for a chief that does not answer.
    """

    def __init__(self, oracle: keras_tuner.Oracle, patience_seconds: float):
        super().__init__(oracle)
        address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
        self.stub = PatientStub(address, self.tuner_id, patience_seconds)
        self._beat_seconds = getattr(oracle, "lease_seconds", LEASE_SECONDS) / BEATS_A_LEASE
        self._beating: threading.Event | None = None
        self._reported: dict[str, MetricsTracker] = {}

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial; from now on the chief gets signs of life."""
        trial = self.stub.create_trial(tuner_id)
        self._rest()
        if trial.status == "RUNNING":
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
        """Reports, and keeps a copy for the end: the chief may be another by then."""
        metrics = {name: number(value) for name, value in named("metrics", metrics).items()}
        tracker = self._reported.setdefault(trial_id, MetricsTracker())
        for name, value in metrics.items():
            tracker.update(name, value, step=step)
        return super().update_trial(trial_id, metrics, step)

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial, with all its metrics and its message."""
        trial.metrics = self._reported.pop(trial.trial_id, trial.metrics)
        self._send(trial, ())
        self._rest()

    def give_up(self, trial: Trial, message: str) -> None:
        """Ends the search, not the trial, which no worker can run until the user has mended something."""
        trial.message = message
        self._send(trial, ((IS_FATAL, "1"),))

    def _send(self, trial: Trial, extra: Metadata) -> None:
        if not self.should_report:
            return
        extra = (*extra, (METRICS, json.dumps(trial.metrics.get_config()).encode()))
        if trial.message:
            extra = (*extra, (MESSAGE, trial.message.encode()[-MESSAGE_BYTES:]))
        self.stub.end_trial(protos.get_service().EndTrialRequest(trial=trial.to_proto()), extra)
