import errno
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from daqu_tf import files
from daqu_tf.errors import DaquError


@pytest.fixture(params=["new", "old"])
def path(request, tmp_path):
    path = tmp_path / "figures.json"
    if request.param == "old":
        path.write_text("old")
    return path


def test_write_bytes(path):
    files.write_bytes(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert os.listdir(path.parent) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_write_json(path):
    value = {"accuracy": 0.5, "name": "né", "bits": [2, 3]}
    files.write_json(str(path), value)
    assert json.loads(path.read_text()) == value
    assert path.read_text().endswith("}\n")


def test_json_that_cannot_be_written_changes_nothing(path):
    before = path.exists() and path.read_text()
    with pytest.raises(TypeError):
        files.write_json(path, {"bits": {2, 3}})
    assert (path.exists() and path.read_text()) == before


def test_the_temporary_file_is_beside_the_path_with_its_suffix(path):
    with files.replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        assert temporary != path
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_block_that_fails_changes_nothing(path):
    before = os.listdir(path.parent)
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(path.parent) == before
    assert not before or path.read_text() == "old"


def test_a_process_killed_while_it_writes_changes_nothing(path):
    code = "import os, sys; from daqu_tf import files\nwith files.replacing(sys.argv[1]) as temporary:\n"
    code += "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    before = path.exists()
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -signal.SIGKILL
    assert path.exists() == before
    assert not before or path.read_text() == "old"


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write_bytes(tmp_path / "missing" / "file", b"")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_no_file_is_said_with_the_files_own_name(path, number, monkeypatch):
    def write(file, data):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.write_bytes", write)
    with pytest.raises(DaquError, match=f"{path} cannot be written .{os.strerror(number)}.: ") as caught:
        files.write_json(path, {})
    assert isinstance(caught.value, OSError) and caught.value.errno == number and os.listdir(path.parent) in ([], [path.name])
