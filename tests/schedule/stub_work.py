"""What ranks run where scheduling is the subject: a stage that lasts as long as the prompt says, or ends as badly as it says.

The prompt is ``WHAT RANK SECONDS``: that rank does WHAT after SECONDS; the others go on until they are ended, or wait in a collective.
``hold RANK FILE`` waits for a file, and says on which node.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ray
from pydantic import TypeAdapter

from wansweep.record import Outcome, RankFacts, Stage, StageKind
from wansweep.trial.task import Ending, Seat, Task

FOR_EVER_S = 600.0
# Memory that is not the rank's own, and goes with it.
EATS = "import os, time; parent = os.getppid(); eaten = bytearray(2 * 2**30)\nwhile os.getppid() == parent: time.sleep(0.1)"
_STAGE = TypeAdapter(Stage)


def introduce(rank: int, cores: float) -> RankFacts:
    return RankFacts(rank=rank, device_uuid=os.environ.get("STUB_GPU_UUID"), device_name="stub", device_total_bytes=None, cores=cores)


def run_rank(task: Task, seat: Seat) -> Ending:
    what, rank, seconds = task.case.prompt.split()
    if what == "oom":  # before the step begins: on a busy machine it takes as long as a stall
        importlib.import_module("wansweep.trial.runner")
    begin_s = time.perf_counter() - task.origin_s
    # A trial that says where it works, for a test that kills its node.
    name = f"Step_3_Inference on {ray.get_runtime_context().get_node_id()}" if what == "hold" else "Step_3_Inference"
    stage = Stage(kind=StageKind.STEP_INFERENCE, name=name, rank=seat.rank, start_s=begin_s, duration_s=None, step=3)
    task.journal(seat.rank).write_bytes(_STAGE.dump_json(stage) + b"\n")
    print(f"rank {seat.rank} of {seat.world} at work", flush=True)
    print(f"token=hf_abcdefghijklmnop of rank {seat.rank} in {os.path.expanduser('~')}/models", file=sys.stderr, flush=True)  # noqa: PTH111
    if what == "exit":
        return _in_a_collective(seat, leaver=int(rank), seconds=float(seconds))
    if what not in ("sleep", "hold") and seat.rank != int(rank):
        time.sleep(FOR_EVER_S)
    while what == "hold" and not Path(seconds).exists():
        time.sleep(0.1)
    time.sleep(0.0 if what == "hold" else float(seconds))
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "oom":
            return _runs_out(task, seat)
        case "deadlock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()  # never comes
        case "hog":
            return _is_killed_for_memory()
        case "swell":
            return _fills_the_node()
        case "feed":
            subprocess.Popen([sys.executable, "-c", EATS])
            time.sleep(FOR_EVER_S)
    return Ending(rank=seat.rank, outcome=Outcome.OK, reason="", resolved=None)


def _runs_out(task: Task, seat: Seat) -> Ending:
    """The real runner's way with torch's own error, raised in the place of a load."""
    import torch

    from wansweep.trial import runner

    def refused(*_: object) -> object:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 44.40 GiB of which 1.25 GiB is free. Including "
            "non-PyTorch memory, this process has 43.14 GiB memory in use. Of the allocated memory 40.00 GiB is allocated by PyTorch, and "
            "2.50 GiB is reserved by PyTorch but unallocated."
        )

    runner._Run.__init__ = refused  # type: ignore[method-assign,assignment]
    return runner.run_rank(task, seat)


def _is_killed_for_memory() -> Ending:
    """The kernel's own kill: a cgroup of 64 MiB, and more than that written to."""
    group = Path(f"/sys/fs/cgroup/memory/wansweep-test-{os.getpid()}")
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(64 * 2**20))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    hog = bytearray(2**30)
    raise AssertionError(f"{len(hog)} bytes were had of 64 MiB")


def _fills_the_node() -> Ending:
    """Ray's kill: more than its memory monitor allows all of the node, so slowly that it sees whose it is, and too little for the kernel's."""
    swollen = []
    for _ in range(64):
        swollen.append(bytearray(32 * 2**20))
        time.sleep(0.05)
    time.sleep(FOR_EVER_S)
    raise AssertionError(f"{len(swollen)} x 32 MiB were had for ever")


def _in_a_collective(seat: Seat, *, leaver: int, seconds: float) -> Ending:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=seat.rendezvous, rank=seat.rank, world_size=seat.world)
    dist.all_reduce(torch.ones(1))
    if seat.rank == leaver:
        time.sleep(seconds)
        print("leaving without a word", file=sys.stderr, flush=True)
        os._exit(3)
    try:
        dist.all_reduce(torch.ones(1))
    except RuntimeError as error:
        return Ending(rank=seat.rank, outcome=Outcome.CRASH, reason=str(error), resolved=None)
    raise AssertionError("the collective came through without its leaver")
