"""Who writes to a run folder: an advisory lock that the kernel takes from an owner that dies. Readers need none.

``flock`` on a file in the folder; every other file there is whole at any time, so that reading needs no lock. On NFS (Linux) it is the server's
lock and holds between machines, unless the mount says ``local_lock`` or ``nolock``; a server takes a dead machine's lock back after its lease.
Where a file system has no locks at all the sweep goes on without, and says so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from wansweep.errors import StoreError

NAME = ".lock"
# What file systems without locks answer.
_NONE_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """The folder is this process's to write to while the ``with`` lasts. Gives a warning where locks do not work, else nothing.

    Raises:
        StoreError: Another process has it, or nothing can be written there.
    """
    path = folder / NAME
    try:
        handle, warning = _taken(path)
    except OSError as error:
        raise StoreError(f"{folder}: nothing can be written there ({error.strerror}); make it writable, or resume a copy of it") from error
    try:
        # Only for the message that another one gets: the lock is the kernel's. A full disk may keep it out.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}).encode(), 0)
        yield warning
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _taken(path: Path) -> tuple[int, str]:
    """The file at the path, open and locked, and what to warn of. Its last owner takes it away at its end, so it is tried until it stays."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle, ""
        except FileNotFoundError:
            pass
        except BlockingIOError:
            message = f"{path.parent}: {_owner(handle)} writes to it; wait until that has ended, or end it"
            os.close(handle)
            raise StoreError(message) from None
        except OSError as error:
            if error.errno in _NONE_HERE:
                return handle, f"{path.parent}: no locks on this file system ({error.strerror}); see to it that no other wansweep writes there"
            os.close(handle)
            raise
        os.close(handle)


def _owner(handle: int) -> str:
    """The owner in words, as far as it has told."""
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        return f"another wansweep (pid {int(told['pid'])} on {str(told['host'])[:100]}, since {str(told['since'])[:40]})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another wansweep"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
