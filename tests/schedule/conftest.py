"""One Ray cluster of two CPUs for the tests whose subject is not a cluster of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture(scope="module")
def ray_scratch() -> Iterator[Path]:
    """Where that cluster and the trials on it keep what is for a while."""
    with tempfile.TemporaryDirectory(prefix="wst-") as folder:
        yield Path(folder)


# Not of the session: a cluster that nobody uses takes a tenth of a core.
@pytest.fixture(scope="module")
def ray_address(ray_scratch: Path) -> Iterator[str]:
    """Address of a cluster started for a file of tests, stopped by pid afterwards."""
    starter = [sys.executable, "-m", "tests.schedule.cluster", str(ray_scratch)]
    environment = {**os.environ, "TMPDIR": str(ray_scratch)}
    with subprocess.Popen(starter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as cluster:
        assert cluster.stdout
        assert cluster.stdin
        yield cluster.stdout.readline().strip()
        cluster.stdin.close()
        cluster.wait(timeout=240)


def processes_of(pid: int) -> list[psutil.Process]:
    """A process and all below it that still run."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def ranks(*, below: int | None = None) -> list[psutil.Process]:
    """The rank processes that run now, of the sweep with that pid or of all that this process started: another's are not ours to kill.

    Ray titles a worker by its class and method.
    """
    found = []
    for process in processes_of(os.getpid() if below is None else below):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ray::Rank" in " ".join(process.cmdline()):
                found.append(process)
    return found
