"""One Ray cluster of two CPUs for the tests whose subject is not a cluster of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import psutil
import pytest


# Not of the session: a cluster that nobody uses takes a tenth of a core.
@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """Address of a cluster started for a file of tests, stopped by pid afterwards; what it and trials on it keep for a while goes with it."""
    with tempfile.TemporaryDirectory(prefix="wst-") as folder:
        starter = [sys.executable, "-m", "tests.schedule.cluster", folder]
        environment = {**os.environ, "TMPDIR": folder}
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


def cmdline(process: psutil.Process) -> str:
    """What `ps` calls it; empty when it is gone."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


def ranks(*, below: int | None = None) -> list[psutil.Process]:
    """The rank processes that run now, of the sweep with that pid or of all that this process started: another's are not ours to kill.

    Ray titles a worker by its class and method.
    """
    return [process for process in processes_of(os.getpid() if below is None else below) if "ray::Rank" in cmdline(process)]
