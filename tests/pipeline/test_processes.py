import pathlib
import sys

import pytest

from daqu_tf.errors import DaquError
from daqu_tf.pipeline import processes

FULL = "raise OSError(28, 'No space left on device')"


def child(code: str, log: pathlib.Path) -> processes.Child:
    started = processes.Child([sys.executable, "-c", code], log)
    while started.poll() is None:
        pass
    return started


def test_the_last_words_are_known_where_the_log_has_no_room_for_them(tmp_path):
    for log in (pathlib.Path("/dev/full"), tmp_path / "log"):
        assert child(FULL, log).how_ended() == "ended with status 1: OSError: [Errno 28] No space left on device"
    assert "Traceback" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL, as it happens where memory runs out"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("raise SystemExit(4)", "ended with status 4: it printed nothing"),
        ("print('Error: the disk is full.'); print(); raise SystemExit(1)", "ended with status 1: the disk is full"),
    ],
)
def test_how_a_process_ended(tmp_path, code, how):
    assert child(code, tmp_path / "log").how_ended() == how


def test_what_a_user_can_mend_is_the_last_line_and_the_status(capsys):
    def work():
        raise DaquError("Mend it.")

    with pytest.raises(SystemExit) as caught:
        processes.in_sentences(work, lambda error: 7)
    assert caught.value.code == 7 and capsys.readouterr().out == "Error: Mend it.\n"
