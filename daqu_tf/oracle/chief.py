"""The chief of a distributed search: KerasTuner's own service around an oracle, which ends even if workers are lost."""

import ipaddress
import json
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from keras_tuner.engine.trial import Trial
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.engine.metrics_tracking import MetricsTracker

from daqu_tf.errors import DaquError
from daqu_tf.oracle.failures import SearchFailedError, last_line
from daqu_tf.oracle.journaled_oracle import JournaledOracle

# Entries in the metadata of a call, for what KerasTuner's messages do not hold: the caller, its process and what went wrong, which
# they leave out, the exact metrics, which they round to 24 bits, the exact values, to which they add defaults, and why a report is
# refused.
TUNER_ID, PROCESS, IS_FATAL = "daqu-tuner-id", "daqu-process", "daqu-is-fatal"
MESSAGE, METRICS, VALUES, REFUSED = "daqu-message-bin", "daqu-metrics-bin", "daqu-values-bin", "daqu-refused-bin"
METADATA_BYTES = 2**26  # Of a call, at most; messages themselves have no limit.
MESSAGE_BYTES, SENTENCE_LENGTH = 2**17, 1500  # The end of a stack trace says most.
ENDED = grpc.StatusCode.FAILED_PRECONDITION  # The search is over because of an error.
UNKNOWN_TRIAL = grpc.StatusCode.NOT_FOUND
THREADS = 128  # The most threads: a worker that waits for a trial takes one, and results and signs of life need others.
TICK_SECONDS, GRACE_SECONDS = 0.1, 2.0
FAREWELL_SECONDS = 3.0  # The time for workers that lost an earlier chief at the very end to hear that the search is over.
CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
# Two chiefs must not silently share a port, which gRPC allows by default.
OPTIONS = (*CHANNEL, ("grpc.so_reuseport", 0))
Message = Any  # Of KerasTuner's service; its class is generated.


class WorkerTraceback(Exception):
    """The stack trace of a worker, which becomes the cause of the chief's own error."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class Servicer(OracleServicer):
    """Answers workers, and remembers the error that ends the search.

    Args:
        oracle: The oracle that keeps the trials.

    Attributes:
        failure: The error that has ended the search; None while there is none.
    """

    def __init__(self, oracle: JournaledOracle):
        super().__init__(oracle)
        self.failure: BaseException | None = None

    def _answer(
        self, method: Callable[[Message, grpc.ServicerContext], Message], request: Message, context: grpc.ServicerContext
    ) -> Message:
        metadata = dict(context.invocation_metadata())
        if self.failure is None:
            try:
                return method(request, context)
            except Exception as error:
                self.failure = error
        self.oracle.dismiss(metadata.get(TUNER_ID, ""))
        context.abort(ENDED, _sentence(self.failure))

    def CreateTrial(self, request: Message, context: grpc.ServicerContext) -> Message:  # noqa: D102
        return self._answer(self._create_trial, request, context)

    def _create_trial(self, request: Message, context: grpc.ServicerContext) -> Message:
        if process := dict(context.invocation_metadata()).get(PROCESS):
            self.oracle.meet(request.tuner_id, process)
        response = super().CreateTrial(request, context)
        if response.trial.trial_id in self.oracle.trials:
            values = self.oracle.trials[response.trial.trial_id].hyperparameters.values
            context.set_trailing_metadata(((VALUES, json.dumps(values).encode()),))
        return response

    def UpdateTrial(self, request: Message, context: grpc.ServicerContext) -> Message:  # noqa: D102
        self._check_known(request.trial_id, context)
        return self._answer(super().UpdateTrial, request, context)

    def GetTrial(self, request: Message, context: grpc.ServicerContext) -> Message:  # noqa: D102
        self._check_known(request.trial_id, context)
        return self._answer(super().GetTrial, request, context)

    def UpdateSpace(self, request: Message, context: grpc.ServicerContext) -> Message:  # noqa: D102
        return self._answer(super().UpdateSpace, request, context)

    def EndTrial(self, request: Message, context: grpc.ServicerContext) -> Message:  # noqa: D102
        return self._answer(self._end_trial, request, context)

    def _end_trial(self, request: Message, context: grpc.ServicerContext) -> Message:
        metadata, trial = dict(context.invocation_metadata()), Trial.from_proto(request.trial)
        trial.message = metadata[MESSAGE].decode(errors="replace") if MESSAGE in metadata else None
        if METRICS in metadata:
            trial.metrics = MetricsTracker.from_config(json.loads(metadata[METRICS]))
        if IS_FATAL in metadata:  # The trial has not ended, and runs again when the user has mended what is wrong.
            who, what = metadata.get(TUNER_ID, "A worker"), last_line(trial.message)
            raise SearchFailedError(f"{who} ended the search: {what}") from WorkerTraceback(trial.message)
        if refusal := self.oracle.end_trial(trial):
            context.set_trailing_metadata(((REFUSED, refusal.encode()[:SENTENCE_LENGTH]),))
        return protos.get_service().EndTrialResponse()

    def _check_known(self, trial_id: str, context: grpc.ServicerContext) -> None:
        if trial_id not in self.oracle.trials:
            context.abort(UNKNOWN_TRIAL, f"There is no trial {trial_id}.")


def _sentence(error: BaseException) -> str:
    sentence = str(error) if isinstance(error, DaquError) else f"{type(error).__name__}: {error}"
    return sentence[:SENTENCE_LENGTH]


class Chief:
    """Serves an oracle to workers while the `with` block lasts.

    Args:
        oracle: The oracle whose trials the workers run. Trials that ran when an earlier chief was killed stay with their workers
            for the time of a lease.
        address: The host and port to listen at, such as `127.0.0.1:8000`; port 0 takes a free port.

    Attributes:
        address: The host and port at which the chief listens.

    Raises:
        DaquError: The chief cannot listen at the address.
    """

    def __init__(self, oracle: JournaledOracle, address: str):
        self._oracle = oracle
        self._servicer = Servicer(oracle)
        oracle.expect_workers()
        self._server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=OPTIONS)
        protos.get_service_grpc().add_OracleServicer_to_server(self._servicer, self._server)
        host = address.rpartition(":")[0]
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            raise DaquError(f"The chief cannot listen at {address}: end what does, or choose another address or port.")
        self.address = f"{host}:{port}"

    def __enter__(self) -> "Chief":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(GRACE_SECONDS).wait()

    def wait(self, patience_seconds: float, on_tick: Callable[[], None] = lambda: None) -> None:
        """Waits until the search is over and all workers know it or are gone.

        Args:
            patience_seconds: The longest time to wait for a worker when there is none.
            on_tick: Is called ten times a second.

        Raises:
            DaquError: There was no worker for too long.
            Exception: An error ended the search; it is raised after the workers have been told.
        """
        began = seen = time.monotonic()
        while not self._servicer.failure:
            time.sleep(TICK_SECONDS)
            on_tick()
            if self._oracle.tuner_ids:
                seen = time.monotonic()
            elif self._oracle.is_over and (self._servicer.stop_triggered or time.monotonic() - began > FAREWELL_SECONDS):
                return
            elif time.monotonic() - seen > patience_seconds:
                raise DaquError(
                    f"The search is not over, but for {patience_seconds:g} seconds there was no worker: start the chief again, "
                    "which goes on, and workers."
                )
        while self._oracle.tuner_ids:
            time.sleep(TICK_SECONDS)
        raise self._servicer.failure


def exposure(address: str) -> str | None:
    """A warning about listening at an address that other machines can reach; None for loopback.

    Args:
        address: The host and port.
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if is_loopback:
        return None
    return (
        f"{address} can be reached from other machines, and knows no password and no encryption: whoever reaches it can read and "
        "change the search. Listen at 127.0.0.1 and let workers come through ssh (ssh -L) unless all of that network may."
    )
