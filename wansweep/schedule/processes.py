"""The processes of ranks as their node sees them: where they log, whether they live, and their certain end.

Ray's own kill asks the process to go, which one that is stopped or stuck does not. Everything here works on the node it runs on;
`on_node` runs it on another.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wansweep.privacy import public

TAIL_LINES = 20
# With the stacks of a process that hangs.
STACK_LINES = 100
TAIL_BYTES = 16 * 1024
LINE_CHARACTERS = 300
# A process gets this long to obey, and then to be gone from the process table.
OBEY_S = 0.2
GONE_S = 10.0
OTHER_NODE_S = 20.0

# A rank answers it with the stacks of its threads, in its log.
STACKS = signal.SIGUSR1
STACKS_S = 1.0

_STACK = ("Fatal Python error", "Thread 0x", "Current thread 0x")
# As Python's faulthandler and Ray's own handler name the signal that a process died of; nobody but its parent, Ray, is told the exit code.
_FATAL = {"Segmentation fault": "SIGSEGV", "Aborted": "SIGABRT", "Bus error": "SIGBUS", "Illegal instruction": "SIGILL"}
_RECEIVED = re.compile(r"\*\*\* (SIG[A-Z]+) received")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """A file that a process writes its output to.

    Attributes:
        path: On the process's node.
        from_byte: Where the trial's own part begins.
    """

    path: Path
    from_byte: int

    @classmethod
    def of(cls, descriptor: int) -> Self | None:
        """What this process's descriptor writes to; null for what is no file."""
        try:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            return cls(path=path, from_byte=path.stat().st_size) if path.is_file() else None
        except OSError:
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """Where a rank's process is.

    Attributes:
        pid: On its node.
        created_s: When it was started; tells it from a later process of the same pid.
        node: Ray's id of it.
        monotonic_s: ``time.perf_counter`` less wall clock, there.
        logs: What it writes to.
    """

    pid: int
    created_s: float
    node: str
    monotonic_s: float
    logs: tuple[Log, ...]


def log_tail(logs: Sequence[Log]) -> tuple[str, ...]:
    """Last lines of the logs, of the trial's own part, without homes and tokens."""
    lines = [line for log in logs for line in _lines(log)]
    stacks = next((len(lines) - i for i, line in enumerate(lines) if line.startswith(_STACK)), 0)
    return tuple(public(line)[:LINE_CHARACTERS] for line in lines[-max(TAIL_LINES, min(stacks, STACK_LINES)) :])


def fatal_signal(lines: Sequence[str]) -> str:
    """The signal that the process died of, as it said itself; empty where it had no time to."""
    for line in lines:
        if found := _RECEIVED.search(line):
            return found[1]
        if line.startswith("Fatal Python error: "):
            return _FATAL.get(line.removeprefix("Fatal Python error: "), "")
    return ""


def dump_stacks(arrival: Arrival) -> None:
    """Have the process write where each of its threads is; one that is stopped does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(arrival.pid)
        if process.create_time() != arrival.created_s:
            return
        sizes = [log.path.stat().st_size for log in arrival.logs if log.path.exists()]
        process.send_signal(STACKS)
        until_s = time.monotonic() + STACKS_S
        while time.monotonic() < until_s and sizes == [log.path.stat().st_size for log in arrival.logs if log.path.exists()]:
            time.sleep(0.05)
        time.sleep(0.1)  # for the rest of it


def _lines(log: Log) -> list[str]:
    try:
        with log.path.open("rb") as file:
            file.seek(max(log.from_byte, log.path.stat().st_size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return []
    # Ray marks the output of its own tasks in the file.
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith(":")]


class Pulses:
    """When each rank of this node last showed that it lives."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, float]] = {}

    def silent_s(self, rank: int, *signs: Path) -> float:
        """Seconds for which none of these files has changed, as far as was looked. The file system's clock is not ours: only changes count."""
        now_s = time.monotonic()
        changed = max((sign.stat().st_mtime for sign in signs if sign.exists()), default=0.0)
        before, since_s = self._seen.get(rank, (None, now_s))
        if changed != before:
            self._seen[rank] = (changed, now_s)
            return 0.0
        return now_s - since_s


def end(arrivals: Sequence[Arrival]) -> None:
    """End these processes and what they started, and wait until they are gone: only then is a GPU's memory free again."""
    trees = [process for arrival in arrivals for process in _tree(arrival)]
    _, alive = psutil.wait_procs(trees, timeout=OBEY_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GONE_S)


def _tree(arrival: Arrival) -> list[psutil.Process]:
    """The process and all below it; none where the pid is another's by now."""
    try:
        process = psutil.Process(arrival.pid)
        return [process, *process.children(recursive=True)] if process.create_time() == arrival.created_s else []
    except psutil.NoSuchProcess:
        return []


def on_node(node: str, function: Callable[..., T], *arguments: object, otherwise: T) -> T:
    """The function's result on that node; ``otherwise`` when the node does not answer."""
    if not node or node == ray.get_runtime_context().get_node_id():
        return function(*arguments)
    place = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task: Any = ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=place)
    try:
        result: T = ray.get(task.remote(*arguments), timeout=OTHER_NODE_S)
    except RayError:
        return otherwise
    return result
