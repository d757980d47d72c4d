"""Files of a trial to the run folder, which may be on another node's disk than the trial."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from wansweep.files import PART
from wansweep.schedule.processes import on_node

# A larger file stays behind: it would go through both nodes' memory.
LARGEST_BYTES = 512 * 1024**2


def deliver(file: Path, to: Path, *, here: str, there: str) -> None:
    """Move a file from one node's disk to a path on another's; a full disk or a node that is gone loses it.

    Args:
        file: On the node ``here``.
        to: On the node ``there``.
        here: Ray's id of a node.
        there: Likewise; empty for the same node.
    """
    if not there or here == there:
        on_node(here, _move, file, to, otherwise=None)
    elif (content := on_node(here, _read, file, otherwise=None)) is not None:
        on_node(there, _write, to, content, otherwise=None)


def _move(file: Path, to: Path) -> None:
    if file.exists() and to.parent.is_dir():
        with contextlib.suppress(OSError), _whole(to) as part:
            shutil.move(file, part)


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() and file.stat().st_size <= LARGEST_BYTES else None


def _write(to: Path, content: bytes) -> None:
    if to.parent.is_dir():
        with contextlib.suppress(OSError), _whole(to) as part:
            part.write_bytes(content)


@contextlib.contextmanager
def _whole(to: Path) -> Iterator[Path]:
    """A path to write to; what is there in the end goes to its place in one step, and nothing does after an error."""
    part = to.with_name(f".{to.name}{PART}")
    try:
        yield part
        part.replace(to)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
