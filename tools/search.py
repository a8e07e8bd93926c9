"""Trains the supernet if that is not done yet, then searches it and chooses the finalists. `daqu-run` goes on from there.

daqu-search --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits

With --workers=4, four processes of this machine score subnets. With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and
KERASTUNER_ORACLE_PORT, as for KerasTuner itself, the process is the chief or a worker of a search on several machines.
"""

import pathlib

from absl import flags

from daqu_tf.tools import command, job_flags

_EXPORT = flags.DEFINE_bool(
    "export_keras_tuner", False, "Also write the trials as KerasTuner keeps them, to search/keras_tuner in the output folder."
)


def main() -> None:
    """The console script."""
    command.main(_run, __doc__, ("dataset", "output_dir"), (*job_flags.MODULES, __name__))


def _run(arguments: list[str]) -> None:
    job_flags.run_until("search", arguments)
    folder = pathlib.Path(flags.FLAGS.output_dir) / "search"
    if _EXPORT.value and (folder / "trials.jsonl").exists():  # A worker on another machine has none.
        from daqu_tf.oracle import keras_tuner_files

        count = keras_tuner_files.write(folder / "trials.jsonl", folder / "keras_tuner")
        print(f"KerasTuner: {count} trials in {(folder / 'keras_tuner').resolve()}")


if __name__ == "__main__":
    main()
