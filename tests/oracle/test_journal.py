import errno
import json
import os

import pytest

from daqu_tf.errors import DaquError, WriteError
from daqu_tf.oracle.journal import Journal

IDENTITY = {"target": "litert_cpu", "space": {"depth": (2, 3)}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.jsonl"


def test_records_come_back_in_order(path):
    journal = Journal(path, IDENTITY)
    assert journal.read() == []
    for number in range(3):
        journal.append({"number": number, "text": "line\nfeed ünd"})
    assert journal.read() == Journal(path, IDENTITY).read()
    assert [record["number"] for record in journal.read()] == [0, 1, 2]
    assert len(path.read_bytes().splitlines()) == 4


def test_a_line_torn_at_any_byte_is_dropped_and_overwritten(path):
    journal = Journal(path, IDENTITY)
    journal.append({"number": 0})
    whole = path.stat().st_size
    journal.append({"number": 1, "text": "ünd"})
    data = path.read_bytes()
    for end in range(whole, len(data)):
        path.write_bytes(data[:end])
        journal = Journal(path, IDENTITY)
        assert journal.read() == [{"number": 0}]
        journal.append({"number": 2})
        assert journal.read() == [{"number": 0}, {"number": 2}]
        assert path.read_bytes() == data[:whole] + b'{"number":2}\n'


def test_an_empty_file_is_begun_anew(path):
    path.touch()
    Journal(path, IDENTITY).append({"number": 0})
    assert Journal(path, IDENTITY).read() == [{"number": 0}]


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({**IDENTITY, "target": "accelerator"}, '`target` is "litert_cpu" there and "accelerator" here'),
        ({**IDENTITY, "space": {"depth": [2, 3, 4]}}, r"`space.depth` is \[2, 3\] there and \[2, 3, 4\] here"),
        ({**IDENTITY, "space": {"depth": [2, 3], "width": [1]}}, r"`space.width` is null there and \[1\] here"),
        ({"target": "litert_cpu"}, "`space` is .* there and null here"),
    ],
)
def test_another_identity_is_refused(path, identity, message):
    Journal(path, IDENTITY)
    with pytest.raises(DaquError, match=message):
        Journal(path, identity)


def test_another_format_is_refused(path):
    path.write_text(json.dumps({"format": 99, "identity": IDENTITY}) + "\n")
    with pytest.raises(DaquError, match="format 99"):
        Journal(path, IDENTITY)


@pytest.mark.parametrize("content", ["some notes", "some notes\n", '{"a": 1}\n', "[]\n"])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(path, content):
    path.write_text(content)
    with pytest.raises(DaquError, match=r"not a journal|damaged"):
        Journal(path, IDENTITY)
    assert path.read_text() == content


def test_a_damaged_line_is_named(path):
    journal = Journal(path, IDENTITY)
    journal.append({"number": 0})
    journal.append({"number": 1})
    path.write_bytes(path.read_bytes().replace(b'{"number":0}', b'{"number":0 '))
    with pytest.raises(DaquError, match="line 2"):
        Journal(path, IDENTITY).read()


def test_a_second_writer_is_noticed(path):
    first, second = Journal(path, IDENTITY), Journal(path, IDENTITY)
    second.append({"number": 0})
    with pytest.raises(DaquError, match="another process"):
        first.append({"number": 1})
    assert second.read() == [{"number": 0}]


def test_a_number_that_is_not_finite_is_refused(path):
    journal = Journal(path, IDENTITY)
    with pytest.raises(ValueError, match="JSON compliant"):
        journal.append({"number": float("nan")})
    assert journal.read() == []


def test_disks_are_waited_for_once_a_second_at_most(path, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(now[0]))
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    journal = Journal(path, IDENTITY)
    synced.clear()
    for now[0] in (5.0, 5.4, 5.9, 6.1, 6.2, 9.0):
        journal.append({"at": now[0]}, durable=now[0] != 9.0)
    assert synced == [5.0, 6.1]
    assert len(Journal(path, IDENTITY).read()) == 6


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_half_way_is_no_strangers(path, monkeypatch, number):
    journal = Journal(path, IDENTITY)
    journal.append({"number": 0})
    written = Journal._write

    def half(self, file, line, durable):
        class Full:
            truncate, seek, fileno = file.truncate, file.seek, file.fileno

            def write(self, data):
                file.write(data[:5])
                self.truncate = self.fail  # Not even that can be undone.
                self.fail()

            def fail(self, *size):
                raise OSError(number, os.strerror(number))

        written(self, Full(), line, durable)

    with monkeypatch.context() as context:
        context.setattr(Journal, "_write", half)
        with pytest.raises(WriteError, match=f"{path} cannot be written .{os.strerror(number)}.: "):
            journal.append({"number": 1})
    journal.append({"number": 2})
    assert [record["number"] for record in Journal(path, IDENTITY).read()] == [0, 2]
