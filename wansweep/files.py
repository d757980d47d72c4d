"""Files as a run folder needs them: written whole or not at all, and read although anybody may have made them."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from wansweep.errors import StoreError

# How the name of a file ends that is being written.
PART = ".part"


def opened(path: Path, *, follow: bool = True) -> BinaryIO:
    """The file, open to be read. A run folder may be anybody's: a pipe or a device in it, which may never end, is no file.

    Args:
        path: In a run folder.
        follow: Also where a link leads. Not for what is shown or copied as it is, or a link in a folder from elsewhere takes a file of the
            reader's into the report.

    Raises:
        OSError: There is none.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return os.fdopen(handle, "rb")


def content(path: Path, *, follow: bool = True) -> bytes:
    """What is in the file, likewise.

    Raises:
        OSError: There is none.
    """
    with opened(path, follow=follow) as file:
        return file.read()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Raises:
        StoreError: The disk refuses it.
    """
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(scratch).chmod(0o644)
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); what was recorded before is safe") from error


def write_out(path: Path, content: bytes) -> None:
    """Write where a user says: a file whole or not at all, through links; into what is there and no file (a pipe, /dev/stdout) as it comes.

    Raises:
        StoreError: It cannot be written.
    """
    if not path.exists() or path.is_file() or path.is_dir():
        write_atomic(Path(os.path.realpath(path)), content)  # of a loop of links resolve() makes a RuntimeError
        return
    try:
        path.write_bytes(content)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
