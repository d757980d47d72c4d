"""A trial as the packer sees it, and where one starts. Numbers and names only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A trial that is to start.

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

    @property
    def form(self) -> Form:
        """What decides where it can be."""
        return self.slots, self.ranks, self.straddles


# Slots, ranks and whether they straddle: jobs that are alike in these fit the same nodes.
Form = tuple[float, int, bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A trial that starts.

    Attributes:
        job: Which.
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
