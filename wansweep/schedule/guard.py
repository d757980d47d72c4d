"""Ends what a killed driver left of the cluster that it had started.

When a driver is killed, raylet and workers follow by themselves, but two of Ray's agents stay for more than a minute (measured with
ray 2.60) and session folders for ever. This small process outlives the driver: it is told the cluster's processes on stdin, waits for
stdin to close, and unless it was told that the cluster was stopped in order it ends those processes, by pid and start time, and
removes the folder. ``python -m wansweep.schedule.guard FOLDER``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

# Processes get this long to end by themselves, and again to obey SIGTERM.
GRACE_S = 5.0
STOPPED = "stopped"


@contextmanager
def guarded(folder: Path) -> Iterator[Guard]:
    """A guard over the cluster in ``folder`` while the ``with`` lasts."""
    with subprocess.Popen(
        [sys.executable, "-m", "wansweep.schedule.guard", str(folder)],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is for the driver
    ) as process:
        guard = Guard(process)
        try:
            yield guard
        finally:
            guard.tell(STOPPED)
            process.communicate()


class Guard:
    """The driver's side of the guard process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def watch(self) -> None:
        """Name every process below this one: what a started cluster consists of. Workers that come later die with their raylet."""
        below = [p for p in psutil.Process().children(recursive=True) if p.pid != self._process.pid]
        self.tell(json.dumps({process.pid: process.create_time() for process in below if process.is_running()}))

    def tell(self, line: str) -> None:
        """Write a line to the guard; one that is gone already guards nothing and is no reason to fail a sweep."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()


def main() -> None:
    """Wait for the driver's end, and clean up after it when it did not do so itself."""
    folder = Path(sys.argv[1])
    watched: dict[str, float] = {}
    for line in sys.stdin:
        if line.strip() == STOPPED:
            return
        watched = json.loads(line)
    _, alive = psutil.wait_procs(list(_still(watched)), timeout=GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _still(watched: dict[str, float]) -> Iterator[psutil.Process]:
    """Those of the watched processes that still run; a pid that another process has taken since is left alone."""
    for pid, started in watched.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid))
            if process.create_time() == started and int(pid) != os.getpid():
                yield process


if __name__ == "__main__":
    main()
