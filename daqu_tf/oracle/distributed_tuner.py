"""A KerasTuner tuner that takes part in a search as its chief or as a worker, and survives the loss of any of the others."""

import pathlib
import traceback
import warnings
from typing import Any

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial

from daqu_tf import files
from daqu_tf.errors import DaquError
from daqu_tf.oracle.journal import check_free
from daqu_tf.oracle.journaled_oracle import JournaledOracle
from daqu_tf.oracle.roles import chief_address, is_chief, role

PATIENCE_SECONDS = 600.0


class DistributedTuner(BaseTuner):
    """A base class before a KerasTuner tuner, as in `class MyTuner(DistributedTuner, keras_tuner.Tuner)`.

    A process that is alone searches as without it. Where KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT are
    set, it is the chief or a worker, as in KerasTuner. Any of them may be killed at any moment and started again under the same id.
    Only the chief writes trials.

    Args:
        *args: Arguments of the tuner.
        patience_seconds: The longest time that a worker waits for a chief that does not answer, and a chief for a worker when there
            is none.
        overwrite: Whether to delete an earlier search in the folder, as in KerasTuner. A worker leaves that to the chief, which
            deletes it whenever it starts.
        **kwargs: Further arguments of the tuner.

    Raises:
        DaquError: The environment variables do not say whether this process is the chief, or another process searches in the folder
            that is to be overwritten.
    """

    oracle: keras_tuner.Oracle  # Of a worker, what stands for it.

    def __init__(self, *args: Any, patience_seconds: float = PATIENCE_SECONDS, overwrite: bool = False, **kwargs: Any):
        self.patience_seconds = patience_seconds
        self._trial: Trial | None = None
        mine = role()
        if overwrite and mine != "worker":
            folder = pathlib.Path(kwargs.get("directory") or ".", kwargs.get("project_name") or "untitled_project")
            check_free(folder / "trials.jsonl")
        super().__init__(*args, overwrite=overwrite and mine != "worker", **kwargs)
        if mine == "worker":
            from daqu_tf.oracle.client import ChiefClient

            self.oracle = ChiefClient(self.oracle._oracle, patience_seconds)

    def reload(self) -> None:
        """Goes on with an earlier search in the folder.

        Raises:
            DaquError: The models ask for another space than those of that search, or the folder has another search.
        """
        super().reload()
        if isinstance(self.oracle, JournaledOracle) and self.hypermodel is not None and role() != "worker":
            self.oracle.check_built(self._built_space(self.oracle))

    def save(self) -> None:
        """Saves the state of the search, and that of the tuner in a file that is whole however the process is killed."""
        if not self._is_worker():
            self.oracle.save()
        files.write_json(self._get_tuner_fname(), self.get_state())

    def _built_space(self, oracle: JournaledOracle) -> keras_tuner.HyperParameters:
        """The space before the first trial, for which KerasTuner builds models at the begin of a search alone."""
        self.oracle = oracle.without_trials()
        try:
            self._populate_initial_space()
            return self.oracle.hyperparameters
        finally:
            self.oracle = oracle

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Searches until the search is over; a worker stops when the chief has no more trials.

        Raises:
            DaquError: The chief had no worker for too long, a worker had no chief for too long, or too many trials failed.
        """
        try:
            if is_chief():
                self._warn_if_exposed()
                if isinstance(self.oracle, JournaledOracle):
                    return self._serve()
            super().search(*args, **kwargs)
        except keras_tuner.errors.FatalError as error:
            self._tell_chief(error)
            raise
        finally:
            if isinstance(self.oracle, JournaledOracle):
                self.oracle.retire()

    def _warn_if_exposed(self) -> None:
        from daqu_tf.oracle.chief import exposure

        if warning := exposure(chief_address()):
            warnings.warn(warning, stacklevel=3)

    def _serve(self) -> None:
        from daqu_tf.oracle.chief import Chief

        with Chief(self.oracle, chief_address()) as chief:
            chief.wait(self.patience_seconds, self.on_tick)
        self.on_tick()

    def on_tick(self) -> None:
        """Is called on the chief ten times a second; a subclass may override it."""

    def on_trial_begin(self, trial: Trial) -> None:
        """Remembers the trial that this process runs, and tells the tuner that it begins."""
        self._trial = trial
        super().on_trial_begin(trial)

    def _tell_chief(self, error: Exception) -> None:
        from daqu_tf.oracle.client import ChiefClient, ChiefLostError, SearchEndedError

        if isinstance(self.oracle, ChiefClient) and self._trial and not isinstance(error, (ChiefLostError, SearchEndedError)):
            message = str(error) if isinstance(error, DaquError) else traceback.format_exc()
            try:
                self.oracle.give_up(self._trial, message)
            except (ChiefLostError, SearchEndedError):
                return  # The caller raises the error of this worker.
