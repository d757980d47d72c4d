"""Trials that wait, in the order in which they should start, kept so that the next of a form is found without looking at all of them.

Two parts: what is urgent, the longest first, and behind it the others as `in_order` has them. A trial that stops being urgent is the first of
the others.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wansweep.plan.job import Form, Job

# Rank of a job: urgent before others, the longest urgent first, then by place.
_Rank = tuple[bool, float, int]


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Groups with the most work first; within them the largest, the least memory, the longest; equals as they came.

    Least memory before length, because one that does not fit spares all that need no less.
    """
    found = list(jobs)
    work: defaultdict[str, float] = defaultdict(float)
    for job in found:
        work[job.group] += job.slots * job.seconds
    return sorted(found, key=lambda job: (-work[job.group], job.group, -job.slots, job.peak_bytes, -job.seconds))


@dataclass(kw_only=True, slots=True)
class _Line:
    """Jobs of one form: urgent ones as (-seconds, place, key), the others in order, and the lengths of the others."""

    urgent: list[tuple[float, int, str]] = field(default_factory=list)
    others: OrderedDict[str, Job] = field(default_factory=OrderedDict)
    lengths_s: list[float] = field(default_factory=list)

    def take(self, job: Job) -> None:
        """One of the others leaves them."""
        del self.others[job.key]
        self.lengths_s.pop(bisect.bisect_left(self.lengths_s, job.seconds))


class Waiting:
    """Jobs in order.

    Args:
        jobs: As they are to stand.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._jobs = {job.key: job for job in jobs}
        self._place = {key: place for place, key in enumerate(self._jobs)}
        self._lines: defaultdict[Form, _Line] = defaultdict(_Line)
        self._front = 0
        for job in self._jobs.values():
            self._lines[job.form].others[job.key] = job
        for line in self._lines.values():
            line.lengths_s = sorted(job.seconds for job in line.others.values())
        # The others by length; those that are none any more are dropped when they are met.
        self._lengths = sorted((job.seconds, -place, job.key) for place, job in enumerate(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        """In the order in which they should start."""
        urgent = sorted(entry for line in self._lines.values() for entry in line.urgent)
        others = sorted((self._place[key], key) for line in self._lines.values() for key in line.others)
        return iter([self._jobs[key] for *_, key in urgent] + [self._jobs[key] for _, key in others])

    @property
    def forms(self) -> list[Form]:
        """Of the jobs that wait."""
        return [form for form, line in self._lines.items() if line.urgent or line.others]

    def first(self, longest_s: Mapping[Form, float]) -> Job | None:
        """The first job of those forms that is no longer than its form's limit."""
        found = [ranked for form, within_s in longest_s.items() if (ranked := self._first(form, within_s))]
        return self._jobs[min(found)[1]] if found else None

    def urge(self, left_s: float) -> None:
        """Put first whatever is as long as that, the longest first."""
        while self._longest_s() >= left_s:
            seconds, _, key = self._lengths.pop()
            job = self._jobs[key]
            self._lines[job.form].take(job)
            bisect.insort(self._lines[job.form].urgent, (-seconds, self._place[key], key))
        while (last := max((line.urgent[-1] for line in self._lines.values() if line.urgent), default=None)) and -last[0] < left_s:
            line = self._lines[self._jobs[last[2]].form]
            line.urgent.pop()
            self._to_front(line, self._jobs[last[2]])

    def may_urge(self, left_s: float) -> bool:
        """Whether `urge` might change something, given a value that is no larger than the true one."""
        return self._longest_s() >= left_s or any(line.urgent for line in self._lines.values())

    def remove(self, job: Job) -> None:
        """Take one out."""
        line = self._lines[job.form]
        if job.key in line.others:
            line.take(job)
        else:
            line.urgent.remove((-job.seconds, self._place[job.key], job.key))
        del self._jobs[job.key], self._place[job.key]

    def without(self, keys: Container[str]) -> Waiting:
        """The others, as they stand."""
        return Waiting(job for job in self if job.key not in keys)

    def _first(self, form: Form, within_s: float) -> tuple[_Rank, str] | None:
        line = self._lines[form]
        at = bisect.bisect_left(line.urgent, (-within_s,))
        if at < len(line.urgent):
            length, place, key = line.urgent[at]
            return (False, length, place), key
        if not line.lengths_s or line.lengths_s[0] > within_s:
            return None
        key = next(key for key, job in line.others.items() if job.seconds <= within_s)
        return (True, 0.0, self._place[key]), key

    def _longest_s(self) -> float:
        """Length of the longest that is not urgent; less than any where there is none."""
        while self._lengths:
            seconds, _, key = self._lengths[-1]
            if key in self._jobs and key in self._lines[self._jobs[key].form].others:
                return seconds
            self._lengths.pop()
        return float("-inf")

    def _to_front(self, line: _Line, job: Job) -> None:
        self._front -= 1
        self._place[job.key] = self._front
        line.others[job.key] = job
        line.others.move_to_end(job.key, last=False)
        bisect.insort(line.lengths_s, job.seconds)
        bisect.insort(self._lengths, (job.seconds, -self._front, job.key))
