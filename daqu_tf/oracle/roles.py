"""The role of a process in a distributed search, as KerasTuner's environment variables say."""

import os

from daqu_tf.errors import DaquError

CHIEF = "chief"


def is_chief() -> bool:
    """Whether this process is the chief of a distributed search, by KerasTuner's environment variables.

    Raises:
        DaquError: KerasTuner's environment variables are incomplete or contradict each other.
    """
    return role() == "chief"


def is_worker() -> bool:
    """Whether this process is a worker of a distributed search, by KerasTuner's environment variables.

    Raises:
        DaquError: KerasTuner's environment variables are incomplete or contradict each other.
    """
    return role() == "worker"


def role() -> str:
    """The role of this process: `chief`, `worker`, or `alone` where the environment names no chief.

    Raises:
        DaquError: KerasTuner's environment variables are incomplete or contradict each other.
    """
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return "alone"
    for name in ("KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"):
        if not os.environ.get(name):
            raise DaquError(f"`{name}` must be set beside KERASTUNER_ORACLE_IP, but received none: set it, or unset both.")
    tuner_id = os.environ["KERASTUNER_TUNER_ID"]
    if tuner_id != CHIEF and CHIEF in tuner_id:
        raise DaquError(
            f'`KERASTUNER_TUNER_ID` must be "{CHIEF}", or have no "{CHIEF}" in it, but received {tuner_id!r}: name the worker '
            "otherwise, for KerasTuner takes it for a chief."
        )
    return "chief" if tuner_id == CHIEF else "worker"


def chief_address() -> str:
    """The host and port at which the chief listens, by KerasTuner's environment variables."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
