"""Trials on several ranks in processes that are started once: each rank runs all of them, one after another, and leaves what it saw."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest.mock import patch

import torch
import torch.multiprocessing as mp

from wansweep.case import Case
from wansweep.record import Stage
from wansweep.trial.task import Ending, Seat, Task


def untouched(_: int) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A case, with something done to the ranks' processes while it runs.

    Attributes:
        case: As declared.
        tampering: Called in each rank's process with its rank.
    """

    case: Case
    tampering: Callable[[int], AbstractContextManager[object]] = untouched


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one rank saw of one trial."""

    ending: Ending
    latents: torch.Tensor | None
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where the ranks meet before each trial: none is late, and the port was free a moment ago, not when the suite began."""

    together: Barrier
    port: Synchronized[int]

    def arrange(self, rank: int) -> int:
        self.together.wait(120)
        if rank == 0:
            self.port.value = _free_port()
        self.together.wait(120)
        return int(self.port.value)


def run_gang(trials: Mapping[str, Trial], *, world: int, folder: Path) -> dict[str, list[Seen]]:
    """Name to what each rank saw."""
    # Ranks are forked off a process that has imported what they need, which takes six seconds; where there is CUDA an import may have begun it.
    method = "spawn" if torch.cuda.is_available() else "forkserver"
    context = mp.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["wansweep.trial.runner", "tests.trial.test_parallel"])
    meeting = Meeting(together=context.Barrier(world), port=context.Value("i", 0))
    mp.start_processes(_ranks_part, (meeting, world, dict(trials), folder), nprocs=world, start_method=method)
    found = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)]
    return {name: [seen[name] for seen in found] for name in trials}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _ranks_part(rank: int, meeting: Meeting, world: int, trials: Mapping[str, Trial], folder: Path) -> None:
    warnings.simplefilter("ignore")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    seen = {}
    for name, trial in trials.items():
        port = meeting.arrange(rank)
        with trial.tampering(rank):
            seat = Seat(rank=rank, world=world, rendezvous=f"tcp://127.0.0.1:{port}", cores=1)
            seen[name] = run_one(trial.case, seat, folder / f"{name}-{rank}")
    torch.save(seen, folder / f"rank{rank}.pt")


def run_one(case: Case, seat: Seat, folder: Path) -> Seen:
    """A rank's part of a trial, its final latents kept."""
    from tests.trial.test_generate import PROCEDURE, source
    from wansweep.trial import runner
    from wansweep.trial.stages import read_journal

    folder.mkdir(parents=True)
    task = Task(case=case, source=source(case), origin_s=0.0, scratch=folder, procedure=replace(PROCEDURE, timeout_s=30, keep_video=False))
    with kept_latents() as kept:
        ending = runner.run_rank(task, seat)
    stages = tuple(read_journal(task.journal(seat.rank)))
    return Seen(ending=ending, latents=kept[-1] if kept else None, stages=stages)


@contextmanager
def kept_latents() -> Iterator[list[torch.Tensor]]:
    from wansweep.trial import runner

    kept: list[torch.Tensor] = []
    generate = runner.generate

    def keeping(*args, **kwargs):
        latents, video = generate(*args, **kwargs)
        kept.append(latents.float().clone())
        return latents, video

    with patch.object(runner, "generate", keeping):
        yield kept
