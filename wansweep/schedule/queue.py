"""The trials of a sweep between the packer and Tune: which starts, on which node, beside which others, and which must be tried again."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wansweep.case import Case
from wansweep.plan.dominance import needs_no_less
from wansweep.plan.job import Job
from wansweep.plan.packing import Packer, Predicted, guessed_s, weights_group
from wansweep.schedule.cluster import Capacity
from wansweep.schedule.order import Order
from wansweep.sweep import Cluster

# How often the cluster is asked which nodes it has.
LOOK_EVERY_S = 1.0
# A node under which a trial was lost gets no other until the cluster has had this long to notice that it is gone.
SUSPECT_S = 15.0
# A node of a cluster that others manage may be replaced; of one that we started none is.
RETURN_S = 60.0


@dataclass(kw_only=True)
class Queue:
    """Trials that wait and run.

    Attributes:
        capacity: Of the cluster when the sweep began.
        cluster: What the user asks of it.
        nodes_now: Reads what each living node offers, by id.
        return_s: Trials that no remaining node can hold wait so long for one that comes back.
        clock: Monotonic seconds.
    """

    capacity: Capacity
    cluster: Cluster
    nodes_now: Callable[[], Mapping[str, float]]
    return_s: float = RETURN_S
    clock: Callable[[], float] = time.monotonic
    _orders: dict[str, Order] = field(default_factory=dict)
    _predicted: dict[str, Predicted] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    _shared: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _suspect_until_s: dict[str, float] = field(default_factory=dict)
    _looked_s: float = float("-inf")
    _stranded_since_s: float | None = None

    def __post_init__(self) -> None:
        self._packer = Packer(nodes=self.capacity.nodes(gpus=self.capacity.on_gpus), exclusive=self.cluster.exclusive)

    def add(self, orders: Sequence[Order], predicted: Mapping[str, Predicted] | None = None) -> None:
        """Orders to run; with predictions by case id, where every one has some."""
        self._orders |= {order.key: order for order in orders}
        self._predicted |= predicted or {}
        self._packer.add(self._job(order) for order in orders)

    def _job(self, order: Order) -> Job:
        case = order.case
        predicted = self._predicted.get(case.id) or Predicted(total_s=guessed_s(case), peak_bytes=0)
        return Job(
            key=order.key,
            ranks=case.gpus,
            slots=self.capacity.need(case.gpus),
            seconds=predicted.total_s,
            peak_bytes=predicted.peak_bytes,
            group=weights_group(case),
            straddles=self.cluster.straddle and self.capacity.on_gpus,
        )

    @property
    def waiting(self) -> int:
        """Trials that have not started."""
        return len(self._packer.waiting)

    @property
    def over(self) -> bool:
        """Whether nothing waits, and nothing runs that might have to be tried again."""
        return not self._packer.waiting and not self._packer.running

    def admit(self, trial_id: str) -> Order | None:
        """What starts now under Tune's id, with its place; null when nothing does."""
        self.look()
        start = self._packer.start(self.clock())
        if start is None:
            return None
        key = start.job.key
        self._shared.pop(key, None)
        for other in self._packer.running.values():
            if other.job.key != key and set(other.nodes) & set(start.nodes):
                self._shared[key].add(self._orders[other.job.key].title)
                self._shared[other.job.key].add(self._orders[key].title)
        self._keys[trial_id] = key
        self._orders[key] = replace(self._orders[key], place=start.nodes)
        return self._orders[key]

    def shared_with(self, order: Order) -> tuple[str, ...]:
        """Trials that were on the order's nodes while it ran."""
        return tuple(sorted(self._shared[order.key]))

    def release(self, trial_id: str, *, learn: bool = True) -> None:
        """A trial is over; what it took is free."""
        if key := self._keys.pop(trial_id, None):
            self._packer.finish(key, self.clock(), learn=learn)

    def try_again(self, order: Order, reason: str) -> None:
        """Queue an order that was lost once more, and give its nodes nothing until it is known that they live."""
        until_s = self.clock() + SUSPECT_S
        if len(self._packer.nodes) > 1:
            self._suspect_until_s |= dict.fromkeys(order.place, until_s)
        attempt = len(order.earlier_attempts) + 1
        told = f"attempt {attempt}: {reason}"
        self.add([replace(order, place=(), earlier_attempts=(*order.earlier_attempts, told))])
        self._looked_s = float("-inf")

    def put_back(self, order: Order) -> None:
        """Queue an order that never began."""
        self.add([replace(order, place=())])

    def look(self) -> None:
        """Take note of nodes that came or went."""
        now_s = self.clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self._packer.nodes = {node: slots for node, slots in self.nodes_now().items() if self._suspect_until_s.get(node, 0.0) <= now_s}

    def gone(self, order: Order) -> bool:
        """Whether a node of the order's place is not there any more, or not to be trusted."""
        return not set(order.place) <= set(self._packer.nodes)

    def stranded(self) -> list[Order]:
        """Orders that no node can hold any more, none having come back for a while; they leave the queue."""
        self.look()
        if self._packer.running or any(until_s > self.clock() for until_s in self._suspect_until_s.values()):
            self._stranded_since_s = None
            return []
        left = [job for job in self._packer.waiting if not self._packer.could_hold(job)]
        if len(left) < len(self._packer.waiting) or not left:
            self._stranded_since_s = None
            return []
        if self._stranded_since_s is None:
            self._stranded_since_s = self.clock()
        if self.clock() - self._stranded_since_s < self.return_s:
            return []
        self.clear()
        return [self._orders[job.key] for job in left]

    def dominating(self, case: Case) -> list[Order]:
        """Orders of other cases that need no less memory than one that ran out of it; they leave the queue."""
        jobs = {job.key: self._orders[job.key] for job in self._packer.waiting}
        gone = {key: order for key, order in jobs.items() if order.case != case and needs_no_less(order.case, case)}
        self._packer.drop(gone)
        return list(gone.values())

    def clear(self) -> None:
        """Start no more."""
        self._packer.clear()
