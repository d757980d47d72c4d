"""One rank's process, as a Ray actor. Thin: what a rank does is `trial.runner`."""

from __future__ import annotations

import os
import socket

import ray

from wansweep.trial.task import Ending, Hello, Seat, Task


@ray.remote(max_restarts=0, max_task_retries=0)
class Rank:
    """One rank's process. Sees one GPU."""

    def __init__(self, name: str, rank: int) -> None:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self._name = f"{name} rank {rank}"

    def __repr__(self) -> str:
        return self._name

    def hello(self, rank: int, cores: float) -> Hello:
        """Import what a trial needs, and say who this rank is."""
        from wansweep.trial.runner import introduce

        with socket.socket() as probe:
            probe.bind(("", 0))
            address = f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
        return Hello(facts=introduce(rank, cores), pid=os.getpid(), address=address)

    def run(self, task: Task, seat: Seat) -> Ending:
        """The rank's part of a trial."""
        from wansweep.trial.runner import run_rank

        return run_rank(task, seat)
