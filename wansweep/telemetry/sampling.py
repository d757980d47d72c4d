"""A sampler process for the length of a trial: started, stopped and read back here, in the process that is measured."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import wansweep
from wansweep.telemetry.host import Tree
from wansweep.telemetry.sampler import READY
from wansweep.telemetry.samples import Missing
from wansweep.telemetry.trace import Cost, Trace, read_trace

READY_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0


class Sampling:
    """Samples while the block runs; nothing that happens to the sampler reaches the trial but as an error in the trace.

    ::

        with Sampling(out=folder / "trace.jsonl", gpus=[uuid], pids=[os.getpid()]) as sampling:
            tree = sampling.tree()
            before = counters(tree)
            ...  # a stage
            after = counters(tree)
        series = by_metric(sampling.trace.samples)
        value_over(series, device=uuid, metric="sm_active_pct", start_s=before.t_s, end_s=after.t_s)
    """

    def __init__(self, *, out: Path, gpus: Sequence[str] = (), pids: Sequence[int] = (), period_s: float = 0.1, of: str = "") -> None:
        self.out = out
        self._command = [sys.executable, "-m", "wansweep.telemetry.sampler", "--out", str(out), "--period", str(period_s)]
        self._command += ["--gpus", ",".join(gpus), "--pid", ",".join(map(str, pids)), f"--of={of}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: list[str] = []
        self._trace: Trace | None = None

    @property
    def trace(self) -> Trace:
        """What was sampled; after `stop`."""
        assert self._trace is not None, "the sampler has not been stopped"
        return self._trace

    @property
    def pid(self) -> int | None:
        """Of the sampler process while it runs."""
        return self._process.pid if self._process else None

    def tree(self) -> Tree:
        """This process and its descendants without the sampler, for `host.counters` at stage boundaries.

        Looked up every 5 s only, because a scan of /proc costs more than all else at a boundary: 0.8 ms at 60 processes.
        """
        return Tree(os.getpid(), without=() if self.pid is None else (self.pid,), refresh_s=5.0)

    def start(self) -> None:
        """Starts the sampler and waits, about 0.2 s, until it reads; one that does not is an error in the trace."""
        assert self._process is None, "started twice"
        # A checkout that is not installed must be found by the child too.
        paths = [str(Path(wansweep.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        try:
            self._process = subprocess.Popen(  # own session: Ctrl-C is for the trial, which ends us when it has ended
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        except OSError as error:
            self._errors.append(f"sampler: {error.strerror or error}")
            return
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_TIMEOUT_S)
        if not readable:
            self._errors.append(f"sampler: not ready within {READY_TIMEOUT_S:.0f} s")

    def stop(self) -> Trace:
        """Ends the sampler and gives back what it took."""
        if self._trace is None:
            said = self._end(self._process) if self._process else ""
            self._trace = self._with_errors(read_trace(self.out), said)
            self._process = None
        return self._trace

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.stop()

    def _end(self, process: subprocess.Popen[bytes]) -> str:
        """Closes its stdin and waits; by force only when that does not help."""
        try:
            said, _ = process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._errors.append(f"sampler: did not end within {STOP_TIMEOUT_S:.0f} s and was killed")
            process.kill()
            said, _ = process.communicate()
        if process.returncode:
            last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
            self._errors.append(f"sampler: ended with {process.returncode}: {last[0]}")
        return said.decode("utf-8", "replace")

    def _with_errors(self, trace: Trace, said: str) -> Trace:
        """The trace with what the sampler said, which reaches us even when its disk is full."""
        cost = trace.cost
        for line in said.splitlines():
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict) and READY not in message:
                cost = Cost(**message)
        if cost is None:
            self._errors.append("sampler: no account of itself; it was killed")
        errors = [*self._errors, *trace.errors, *([cost.error] if cost and cost.error else [])]
        if trace.start and trace.start.nvml not in (None, Missing.UNSUPPORTED):
            errors.append(f"sampler: NVML answered {trace.start.nvml}")
        return dataclasses.replace(trace, cost=cost, errors=tuple(dict.fromkeys(errors)))
