"""Sweeps of stub work from a test: started, fed and read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from tests.runs import ROOT
from wansweep.record import Record, from_json

Asked = tuple[str, int, str]


@contextmanager
def started(cases: list[Asked], *, within: Sequence[str] = (), **more: object) -> Iterator[subprocess.Popen[str]]:
    """A sweep of (label, GPUs, prompt); ended with the ``with``, also by a failing test. ``within`` is a command that runs it."""
    command = [*within, sys.executable, "-m", "tests.schedule.stub_sweep"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdin is not None
        sweep.stdin.write(json.dumps({"cases": cases, **more}) + "\n")
        sweep.stdin.flush()
        try:
            yield sweep
        finally:
            sweep.kill()


def ran(cases: list[Asked], *, seconds: float = 400, within: Sequence[str] = (), **more: object) -> dict[str, Record]:
    """The records of a whole sweep, by label, in the order they came."""
    with started(cases, within=within, **more) as sweep:
        out, err = sweep.communicate(timeout=seconds)
    assert sweep.returncode == 0, err
    return {record.label: record for record in map(from_json, records_in(out))}


def records_in(out: str) -> list[str]:
    """The lines that are records; Ray's own messages about dead workers go to stdout too."""
    return [line for line in out.splitlines() if line.startswith('{"case"')]


def listening(process: psutil.Process) -> set[str]:
    """Addresses that a process and all below it accept connections at."""
    found = set()
    for one in [process, *process.children(recursive=True)]:
        try:
            found |= {c.laddr.ip for c in one.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found - {""}
