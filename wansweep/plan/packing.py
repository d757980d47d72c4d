"""Packing: which trial starts next, and on which node. Pure, so that the scheduler that runs a sweep and the plan that foretells it are one.

List scheduling in a good order, with a reservation for its head (EASY backfilling: Lifka, "The ANL/IBM SP scheduling system", 1995; order
by size and length: Coffman, Garey, Johnson, Tarjan, SIAM J. Comput. 9, 1980). A smaller trial may overtake the head only where it
does not delay it, so none starves. Lengths are predictions: only their ratios matter, because the packer learns their scale from the
trials that ended.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wansweep.case import Case
from wansweep.plan.flops import case_flop

# Ray counts resources in ten-thousandths.
_EPSILON = 1e-4
# What a GPU does in a second where nothing better is known. Only ratios matter until a trial has ended, and its length gives the scale.
_GUESSED_FLOPS = 1e14
# A trial that takes this share of the time that is left, if all GPUs were busy to the end, goes first.
URGENCY = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What decides when a case starts.

    Attributes:
        total_s: Predicted length.
        peak_bytes: Predicted peak of a GPU; 0 where nothing is known.
    """

    total_s: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A trial as the packer sees it.

    Attributes:
        key: Names the trial; unique.
        ranks: Of its gang.
        slots: What it takes of a node's: GPUs, or CPUs on a cluster without any.
        seconds: Predicted length.
        group: Trials with the same one read the same weights, and run one after the other.
        straddles: May be spread over nodes when none can hold it.
        peak_bytes: Predicted peak of a GPU; 0 where nothing is known.
    """

    key: str
    ranks: int
    slots: float
    seconds: float
    group: str = ""
    straddles: bool = False
    peak_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A trial that starts.

    Attributes:
        nodes: Name of the node of each rank.
        start_s: When.
    """

    job: Job
    nodes: tuple[str, ...]
    start_s: float

    @property
    def takes(self) -> dict[str, float]:
        """Slots it takes of each node."""
        share = self.job.slots / self.job.ranks
        return {node: ranks * share for node, ranks in Counter(self.nodes).items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What a simulation foretells.

    Attributes:
        makespan_s: When the last trial ends.
        bound_s: No schedule can be shorter: all work over all slots, or the longest trial.
        starts: In order of time.
    """

    makespan_s: float
    bound_s: float
    starts: tuple[Start, ...]


def weights_group(case: Case) -> str:
    """Cases with the same name read the same files."""
    return f"{case.model} {case.weights} {case.dtype}"


def guessed_s(case: Case) -> float:
    """Length of a case by its FLOP alone; good for comparing cases, not as a prediction."""
    return case_flop(case).total_flop / case.gpus / _GUESSED_FLOPS


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Groups with the most work first; within them the largest, the least memory, the longest; equals as they came.

    Least memory before length, because one that does not fit spares all that need no less.
    """
    found = list(jobs)
    work: defaultdict[str, float] = defaultdict(float)
    for job in found:
        work[job.group] += job.slots * job.seconds
    return sorted(found, key=lambda job: (-work[job.group], job.group, -job.slots, job.peak_bytes, -job.seconds))


@dataclass(kw_only=True)
class Packer:
    """Trials that wait and that run, on nodes.

    Attributes:
        nodes: Slots of each node by its name. May be replaced when nodes come or go.
        exclusive: At most one trial a node.
        waiting: In the order in which they should start.
        running: By key.
    """

    nodes: Mapping[str, float]
    exclusive: bool
    waiting: list[Job] = field(default_factory=list)
    running: dict[str, Start] = field(default_factory=dict)
    _expected_s: float = 0.0
    _took_s: float = 0.0

    def add(self, jobs: Iterable[Job]) -> None:
        """Put jobs among those that wait."""
        self.waiting = in_order([*self.waiting, *jobs])

    def start(self, now_s: float) -> Start | None:
        """The next trial that starts now; null when none can, or none should because it would delay the head."""
        if not self.waiting:
            return None
        self._advance_the_urgent(now_s)
        free = self._free(self.running.values())
        head = self.waiting[0]
        if nodes := self._place(head, free):
            return self._started(head, nodes, now_s)
        shadow_s, later = self._reservation(head, now_s)
        for job in self.waiting[1:]:
            if not (nodes := self._place(job, free)):
                continue
            trial = Start(job=job, nodes=nodes, start_s=now_s)
            in_time = now_s + job.seconds * self._scale <= shadow_s
            if in_time or self._place(head, self._free([*later, trial])):
                return self._started(job, nodes, now_s)
        return None

    def finish(self, key: str, now_s: float, *, learn: bool = True) -> None:
        """A trial is over; its length corrects the scale of the predictions unless an accident ended it."""
        start = self.running.pop(key, None)
        if start is not None and learn:
            self._expected_s += start.job.seconds
            self._took_s += now_s - start.start_s

    def could_hold(self, job: Job) -> bool:
        """Whether the nodes could hold the job if nothing else ran."""
        return self._place(job, self.nodes) is not None

    def _advance_the_urgent(self, now_s: float) -> None:
        """Put first whatever would outlast all the rest if it waited: a long trial of one GPU must not be left for the end."""
        if self.exclusive and len(self.nodes) == 1:
            return  # one after the other: no order is shorter
        rest = sum(self._work(job) for job in self.waiting)
        rest += sum((self._end_s(start, now_s) - now_s) / self._scale * self._share(start.job) for start in self.running.values())
        slots = len(self.nodes) if self.exclusive else sum(self.nodes.values())
        left_s = URGENCY * rest / slots if slots else 0.0
        self.waiting.sort(key=lambda job: (0.0, 0.0) if job.seconds < left_s else (-1.0, -job.seconds))

    def _share(self, job: Job) -> float:
        """What the job takes while it runs: slots, or a whole node."""
        return 1.0 if self.exclusive else job.slots

    def _work(self, job: Job) -> float:
        return job.seconds * self._share(job)

    @property
    def _scale(self) -> float:
        """Real seconds a predicted one."""
        return self._took_s / self._expected_s if self._expected_s > 0 and self._took_s > 0 else 1.0

    def _started(self, job: Job, nodes: tuple[str, ...], now_s: float) -> Start:
        self.waiting.remove(job)
        self.running[job.key] = Start(job=job, nodes=nodes, start_s=now_s)
        return self.running[job.key]

    def _free(self, running: Iterable[Start]) -> dict[str, float]:
        """Slots of each node that are free beside those trials; none of a node that an exclusive trial has."""
        free = dict(self.nodes)
        for start in running:
            for node, slots in start.takes.items():
                if node in free:
                    free[node] = 0.0 if self.exclusive else free[node] - slots
        return free

    def _place(self, job: Job, free: Mapping[str, float]) -> tuple[str, ...] | None:
        """The node of each rank: the fullest that holds them all, or several where the job may straddle and no node could ever hold it."""
        fitting = [node for node, slots in free.items() if slots + _EPSILON >= job.slots]
        if fitting:
            return (min(fitting, key=lambda node: (free[node], node)),) * job.ranks
        if not job.straddles or max(self.nodes.values(), default=0.0) >= job.slots:
            return None
        share = job.slots / job.ranks
        places = [node for node in sorted(free, key=lambda node: (-free[node], node)) for _ in range(int((free[node] + _EPSILON) / share))]
        return tuple(places[: job.ranks]) if len(places) >= job.ranks else None

    def _reservation(self, head: Job, now_s: float) -> tuple[float, list[Start]]:
        """When the head can start at the latest, as far as is known, and what still runs then."""
        ends = sorted(self.running.values(), key=lambda start: self._end_s(start, now_s))
        for ended in range(1, len(ends) + 1):
            if self._place(head, self._free(ends[ended:])):
                return self._end_s(ends[ended - 1], now_s), ends[ended:]
        return now_s, ends

    def _end_s(self, start: Start, now_s: float) -> float:
        """Expected end; one that is late is expected now, so that nothing more overtakes the head on its account."""
        return max(now_s, start.start_s + start.job.seconds * self._scale)


def simulate(jobs: Sequence[Job], nodes: Mapping[str, float], *, exclusive: bool, took_s: Mapping[str, float] | None = None) -> Schedule:
    """What the packer would do when trials take what is predicted, or what ``took_s`` says by key.

    Raises:
        ValueError: A job that no node can hold, nor all of them if it may straddle.
    """
    packer = Packer(nodes=nodes, exclusive=exclusive)
    packer.add(jobs)
    real_s = {job.key: job.seconds for job in jobs} | dict(took_s or {})
    starts: list[Start] = []
    ends: list[tuple[float, str]] = []
    now_s = 0.0
    while packer.waiting or ends:
        while start := packer.start(now_s):
            starts.append(start)
            heapq.heappush(ends, (now_s + real_s[start.job.key], start.job.key))
        if not ends:
            job = packer.waiting[0]
            raise ValueError(f"job {job.key}: slots={job.slots:g} fit no node; the nodes have {dict(nodes)}")
        now_s, key = heapq.heappop(ends)
        packer.finish(key, now_s)
    return Schedule(makespan_s=now_s, bound_s=_bound_s(jobs, real_s, nodes, exclusive=exclusive), starts=tuple(starts))


def _bound_s(jobs: Sequence[Job], real_s: Mapping[str, float], nodes: Mapping[str, float], *, exclusive: bool) -> float:
    longest_s = max((real_s[job.key] for job in jobs), default=0.0)
    work = sum(real_s[job.key] * (1.0 if exclusive else job.slots) for job in jobs)
    slots = len(nodes) if exclusive else sum(nodes.values())
    return max(longest_s, work / slots)
