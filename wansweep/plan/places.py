"""Slots of nodes: what is free now, and when more will be. Kept a node at a time, so that a trial that comes or goes costs its nodes alone."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from wansweep.plan.job import Form, Start

# Ray counts resources in ten-thousandths.
EPSILON = 1e-4


# When a running trial is expected to end, in the clock of starts, and its number among them: of two at once the first that started is meant.
End = tuple[float, int]


class Places:
    """Nodes and the trials on them.

    Args:
        nodes: Slots of each by its name.
        exclusive: At most one trial a node.
        running: Trials that run already, in order of their starts; those on other nodes are passed over.
    """

    def __init__(self, nodes: Mapping[str, float], *, exclusive: bool, running: Iterable[Start] = ()) -> None:
        self.nodes = dict(nodes)
        self._exclusive = exclusive
        self._widest = max(self.nodes.values(), default=0.0)
        self._on: dict[str, dict[str, tuple[int, Start, float]]] = {node: {} for node in self.nodes}
        self._free = dict(self.nodes)
        self._fullest = sorted((slots, node) for node, slots in self.nodes.items())
        # After which end a node has so many slots, by node and slots; of a node forgotten when a trial comes or goes.
        self._ready: dict[str, dict[float, End | None]] = {node: {} for node in self.nodes}
        self._scale = 1.0
        self._count = 0
        for start in running:
            self.take(start)

    def take(self, start: Start) -> None:
        """A trial begins."""
        self._count += 1
        for node, slots in start.takes.items():
            if node in self.nodes:
                self._on[node][start.job.key] = self._count, start, slots
                self._look(node)

    def give(self, start: Start) -> None:
        """A trial is over."""
        for node in set(start.nodes) & self.nodes.keys():
            self._on[node].pop(start.job.key, None)
            self._look(node)

    def place(self, form: Form) -> tuple[str, ...] | None:
        """The node of each rank: the fullest that holds them all, or several where the job may straddle and no node could ever hold it."""
        slots, ranks, _ = form
        at = bisect.bisect_left(self._fullest, (slots - EPSILON, ""))
        return (self._fullest[at][1],) * ranks if at < len(self._fullest) else self._spread(form, self._free)

    def holds(self, form: Form) -> bool:
        """Whether the nodes could hold such a job if nothing else ran."""
        return self._widest + EPSILON >= form[0] or self._spread(form, self.nodes) is not None

    def next_for(self, form: Form, scale: float) -> End | None:
        """The end of a running trial, at so many real seconds a predicted one, after which such a job has its place at last; null for never."""
        if scale != self._scale:
            self._scale = scale
            for known in self._ready.values():
                known.clear()
        slots = form[0]
        if self._widest + EPSILON < slots:
            ends = sorted({end for node in self.nodes for end, _ in self._ends(node)})
            return next((end for end in ends if self._spread(form, {node: self._free_after(node, end) for node in self.nodes})), None)
        ready = [known[slots] if slots in known else self._next_on(node, slots) for node, known in self._ready.items()]
        return min((end for end in ready if end), default=None)

    def room_after(self, form: Form, end: End, other: Form, nodes: Sequence[str]) -> bool:
        """Whether a job has its place after that end, its next, although one of another form started on those nodes now and ran on."""
        slots, (other_slots, ranks, _) = form[0], other
        beside = Counter(nodes)
        if self._widest + EPSILON >= slots:
            found: Iterable[str] = (node for node, known in self._ready.items() if (ready := known.get(slots)) and ready <= end)
        else:
            found = self.nodes
        free = {node: self._free_after(node, end, beside[node] * other_slots / ranks) for node in found}
        return any(each + EPSILON >= slots for each in free.values()) or self._spread(form, free) is not None

    def _look(self, node: str) -> None:
        """Take note of what is free on a node."""
        self._fullest.pop(bisect.bisect_left(self._fullest, (self._free[node], node)))
        self._free[node] = self._left(node, [slots for _, _, slots in self._on[node].values()])
        bisect.insort(self._fullest, (self._free[node], node))
        self._ready[node].clear()

    def _left(self, node: str, taken: Sequence[float]) -> float:
        """Slots of a node beside what is taken of it; none beside an exclusive trial."""
        return 0.0 if self._exclusive and taken else self.nodes[node] - sum(taken)

    def _ends(self, node: str) -> list[tuple[End, float]]:
        """Trials on a node by their expected end, with the slots they take of it."""
        return sorted(((start.start_s + start.job.seconds * self._scale, number), slots) for number, start, slots in self._on[node].values())

    def _next_on(self, node: str, slots: float) -> End | None:
        """After which end a node has so many slots free."""
        ends = self._ends(node)
        found = None
        if self.nodes[node] + EPSILON >= slots:
            after = ([taken for _, taken in ends[number:]] for number in range(1, len(ends) + 1))
            found = next((end for (end, _), still in zip(ends, after, strict=True) if self._left(node, still) + EPSILON >= slots), None)
        self._ready[node][slots] = found
        return found

    def _free_after(self, node: str, end: End, beside: float = 0.0) -> float:
        """What is free on a node after an end, beside that and what still runs then."""
        still = [taken for other, taken in self._ends(node) if other > end]
        return self._left(node, [*still, beside] if beside else still)

    def _spread(self, form: Form, free: Mapping[str, float]) -> tuple[str, ...] | None:
        """Ranks over several nodes, the emptiest first; null for a job that may not, or that one node could hold."""
        slots, ranks, straddles = form
        if not straddles or self._widest >= slots:
            return None
        share = slots / ranks
        places = [node for node in sorted(free, key=lambda node: (-free[node], node)) for _ in range(int((free[node] + EPSILON) / share))]
        return tuple(places[:ranks]) if len(places) >= ranks else None
