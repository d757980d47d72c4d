"""Packing: which trial starts next, and on which node. Pure, so that the scheduler that runs a sweep and the plan that foretells it are one.

List scheduling in a good order, with a reservation for its head (EASY backfilling: Lifka, "The ANL/IBM SP scheduling system", 1995; order
by size and length: Coffman, Garey, Johnson, Tarjan, SIAM J. Comput. 9, 1980). A smaller trial may overtake the head only where it
does not delay it, so none starves. Lengths are predictions: only their ratios matter, because the packer learns their scale from the
trials that ended.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from wansweep.case import Case
from wansweep.plan.flops import case_flop
from wansweep.plan.job import Job, Start
from wansweep.plan.places import Places
from wansweep.plan.waiting import Waiting, in_order

# What a GPU does in a second where nothing better is known. Only ratios matter until a trial has ended, and its length gives the scale.
_GUESSED_FLOPS = 1e14
# A trial that takes this share of the time that is left, if all GPUs were busy to the end, goes first.
URGENCY = 0.5
# A trial that is foretold to end with the head's reservation is not held back by the last digit of a sum.
_TOLERANCE = 1 + 1e-9


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


class Packer:
    """Trials that wait and that run, on nodes.

    Args:
        nodes: Slots of each node by its name.
        exclusive: At most one trial a node.

    Attributes:
        waiting: In the order in which they should start.
        running: By key.
    """

    def __init__(self, *, nodes: Mapping[str, float], exclusive: bool) -> None:
        self.waiting = Waiting()
        self.running: dict[str, Start] = {}
        self._exclusive = exclusive
        self._places = Places(nodes, exclusive=exclusive)
        self._ahead = _Ahead()
        self._work_s = 0.0
        self._expected_s = 0.0
        self._took_s = 0.0

    @property
    def nodes(self) -> Mapping[str, float]:
        """Slots of each node by its name."""
        return self._places.nodes

    @nodes.setter
    def nodes(self, nodes: Mapping[str, float]) -> None:
        """Nodes come and go."""
        if nodes != self._places.nodes:
            self._places = Places(nodes, exclusive=self._exclusive, running=self.running.values())

    def add(self, jobs: Iterable[Job]) -> None:
        """Put jobs among those that wait."""
        self._wait(Waiting(in_order([*self.waiting, *jobs])))

    def drop(self, keys: Container[str]) -> None:
        """Take jobs from those that wait."""
        self._wait(self.waiting.without(keys))

    def clear(self) -> None:
        """Let none wait."""
        self._wait(Waiting())

    def start(self, now_s: float) -> Start | None:
        """The next trial that starts now; null when none can, or none should because it would delay the head."""
        # What no node can hold waits for one that may come back, and holds nothing up.
        forms = [form for form in self.waiting.forms if self._places.holds(form)]
        if not forms:
            return None
        self._advance_the_urgent(now_s)
        head = self.waiting.first(dict.fromkeys(forms, math.inf))
        assert head is not None
        if nodes := self._places.place(head.form):
            return self._started(head, nodes, now_s)
        placed = {form: nodes for form in forms if (nodes := self._places.place(form))}
        end = self._places.next_for(head.form, self._scale) if placed else None
        if end is None:
            return None
        # Until the head's place is there, or as long as it likes beside it.
        left_s = _TOLERANCE * max(0.0, end[0] - now_s) / self._scale
        beside = {form: self._places.room_after(head.form, end, form, nodes) for form, nodes in placed.items()}
        job = self.waiting.first({form: math.inf if free else left_s for form, free in beside.items()})
        return self._started(job, placed[job.form], now_s) if job else None

    def finish(self, key: str, now_s: float, *, learn: bool = True) -> None:
        """A trial is over; its length corrects the scale of the predictions unless an accident ended it."""
        start = self.running.pop(key, None)
        if start is None:
            return
        self._places.give(start)
        self._ahead.give(start)
        if learn:
            self._expected_s += start.job.seconds
            self._took_s += now_s - start.start_s

    def could_hold(self, job: Job) -> bool:
        """Whether the nodes could hold the job if nothing else ran."""
        return self._places.holds(job.form)

    def _advance_the_urgent(self, now_s: float) -> None:
        """Put first whatever would outlast all the rest if it waited: a long trial of one GPU must not be left for the end."""
        if self._exclusive and len(self.nodes) == 1:
            return  # one after the other: no order is shorter
        slots = len(self.nodes) if self._exclusive else sum(self.nodes.values())
        share = URGENCY / slots if slots else 0.0
        if not self.waiting.may_urge(share * self._work_s):
            return  # none is so long, even if all that runs ended now
        self.waiting.urge(share * (self._work_s + self._ahead.left(now_s, self._scale)))

    def _share(self, job: Job) -> float:
        """What the job takes while it runs: slots, or a whole node."""
        return 1.0 if self._exclusive else job.slots

    def _wait(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self._work_s = sum(job.seconds * self._share(job) for job in waiting)

    @property
    def _scale(self) -> float:
        """Real seconds a predicted one; to nine digits, so that what took as long as predicted leaves it at 1."""
        return round(self._took_s / self._expected_s, 9) or 1.0 if self._expected_s > 0 else 1.0

    def _started(self, job: Job, nodes: tuple[str, ...], now_s: float) -> Start:
        start = Start(job=job, nodes=nodes, start_s=now_s)
        self.waiting.remove(job)
        self._work_s = self._work_s - job.seconds * self._share(job) if self.waiting else 0.0
        self.running[job.key] = start
        self._places.take(start)
        self._ahead.take(start, self._share(job))
        return start


class _Ahead:
    """Work that running trials have ahead of them, added up as they come and go."""

    def __init__(self) -> None:
        self._shares: dict[str, tuple[Start, float]] = {}
        self._ends: list[tuple[float, str]] = []
        self._scale = 1.0
        self._share = self._end_s = 0.0

    def take(self, start: Start, share: float) -> None:
        """A trial begins that takes such a share while it runs."""
        self._shares[start.job.key] = start, share
        self._add(start, share)

    def give(self, start: Start) -> None:
        """A trial is over."""
        _, share = self._shares.pop(start.job.key)
        self._share -= share
        self._end_s -= share * self._end(start)

    def left(self, now_s: float, scale: float) -> float:
        """Predicted seconds ahead, each trial's times its share, at so many real seconds a predicted one; one that is late has none."""
        if scale != self._scale:
            self._scale, self._share, self._end_s, self._ends = scale, 0.0, 0.0, []
            for start, share in self._shares.values():
                self._add(start, share)
        while self._ends and self._ends[0][1] not in self._shares:
            heapq.heappop(self._ends)
        if self._ends and self._ends[0][0] < now_s:
            return sum(max(0.0, self._end(start) - now_s) * share for start, share in self._shares.values()) / scale
        return max(0.0, self._end_s - now_s * self._share) / scale

    def _add(self, start: Start, share: float) -> None:
        self._share += share
        self._end_s += share * self._end(start)
        heapq.heappush(self._ends, (self._end(start), start.job.key))

    def _end(self, start: Start) -> float:
        return start.start_s + start.job.seconds * self._scale


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
            job = next(iter(packer.waiting))
            raise ValueError(f"job {job.key}: slots={job.slots:g} fit no node; the nodes have {dict(nodes)}")
        now_s, key = heapq.heappop(ends)
        packer.finish(key, now_s)
    return Schedule(makespan_s=now_s, bound_s=_bound_s(jobs, real_s, nodes, exclusive=exclusive), starts=tuple(starts))


def _bound_s(jobs: Sequence[Job], real_s: Mapping[str, float], nodes: Mapping[str, float], *, exclusive: bool) -> float:
    longest_s = max((real_s[job.key] for job in jobs), default=0.0)
    work = sum(real_s[job.key] * (1.0 if exclusive else job.slots) for job in jobs)
    slots = len(nodes) if exclusive else sum(nodes.values())
    return max(longest_s, work / slots)
