"""Files that are whole or absent, whatever kills the process, and readers that say what is wrong with a file."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from daqu_tf.errors import DISK, DaquError, WriteError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; when the block ends without an error, the file there becomes `path`.

    The data is on disk before the rename, so that after a crash `path` holds the old or the new content, never a part of it.

    Raises:
        WriteError: There is no room for the file, or its disk cannot be written to.
    """
    path = pathlib.Path(path)
    with _naming(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = pathlib.Path(name)
        try:
            yield temporary
            with open(temporary, "r+b") as file:  # Windows brings to disk only what may be written to.
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Where the disk is at fault, names the file that a user knows, not the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK and not isinstance(error, WriteError):
            raise WriteError.of(path, error) from error
        raise


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes bytes to a file, which is whole or unchanged whatever happens."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value to a file as indented JSON; the file is whole or unchanged whatever happens."""
    write_bytes(path, encode_json(value))


def encode_json(value: Any) -> bytes:
    """A value as the bytes of indented JSON."""
    return (json.dumps(value, indent=1) + "\n").encode()


def read_json(path: pathlib.Path, default: Any = None, remedy: str = "restore it, or delete the folder that holds it") -> Any:
    """The content of a JSON file.

    Args:
        path: The path of the file.
        default: The value if there is no such file; None if the file must be there.
        remedy: What the user should do about a file that cannot be read, for the message.

    Raises:
        DaquError: The file cannot be read or is damaged.
    """
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DaquError(f"{path} cannot be read ({error}): {remedy}.") from error


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays by name to a `.npz` file, which is whole or unchanged whatever happens."""
    named: dict[str, Any] = arrays  # Which might otherwise be taken for an option of `savez`.
    with replacing(path) as temporary:
        np.savez(temporary, **named)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays by name in a `.npz` file, the inverse of `write_arrays`."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
