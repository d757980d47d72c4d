"""One rank's process, as a Ray actor. Thin: what a rank does is its order's ``work``, `trial.runner`."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, cast

import psutil
import ray

from wansweep.record import RankFacts
from wansweep.schedule.processes import STACKS, Arrival, Log
from wansweep.trial.task import Ending, Hello, Seat, Task

PULSE_S = 1.0
# The ranks of a gang on one node speak over loopback; who sets these knows better.
ONE_NODE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


class Work(Protocol):
    """What a rank runs."""

    def introduce(self, rank: int, cores: float) -> RankFacts:
        """Import what a trial needs, and say who this rank is."""

    def run_rank(self, task: Task, seat: Seat) -> Ending:
        """The rank's part of a trial; never raises."""


@ray.remote(max_restarts=0, max_task_retries=0)
class Rank:
    """One rank's process. Sees one GPU."""

    def __init__(self, name: str, rank: int, work: str, one_node: bool) -> None:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        for variable, value in ONE_NODE.items() if one_node else ():
            os.environ.setdefault(variable, value)
        self._name = f"{name} rank {rank}"
        self._work = work
        self._pulse: Path | None = None
        threading.Thread(target=self._beat, daemon=True).start()
        # Into the log whose tail goes into the record of a rank that hangs; takes no GIL.
        faulthandler.register(STACKS, all_threads=True, chain=False)

    def __repr__(self) -> str:
        return self._name

    def _beat(self) -> None:
        """Show that threads of this process still get to run; a stopped process and one that holds the GIL for ever do not."""
        while True:
            with suppress(OSError):
                if self._pulse is not None:
                    self._pulse.touch()
            time.sleep(PULSE_S)

    def arrive(self, pulse: Path) -> Arrival:
        """Say where this process is, before anything is imported that could hang."""
        pulse.parent.mkdir(parents=True, exist_ok=True)
        pulse.touch()
        self._pulse = pulse
        return Arrival(
            pid=os.getpid(),
            created_s=psutil.Process().create_time(),
            node=ray.get_runtime_context().get_node_id(),
            monotonic_s=time.perf_counter() - time.time(),
            logs=tuple(log for descriptor in (1, 2) if (log := Log.of(descriptor))),
        )

    def hello(self, rank: int, cores: float) -> Hello:
        """Import what a trial needs, and say who this rank is."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            address = f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
        return Hello(facts=self._loaded().introduce(rank, cores), address=address)

    def run(self, task: Task, seat: Seat) -> Ending:
        """The rank's part of a trial."""
        return self._loaded().run_rank(task, seat)

    def _loaded(self) -> Work:
        with _no_collection():
            return cast(Work, importlib.import_module(self._work))


@contextmanager
def _no_collection() -> Iterator[None]:
    """While the ``with`` lasts, garbage is not collected: importing torch and diffusers makes a million objects, and hardly one to throw away.

    A fifth of an import's time is looking for it (4.7 s against 3.7 s of CPU).
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
