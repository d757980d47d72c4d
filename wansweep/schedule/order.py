"""What Tune hands a trial, and how trials and ranks are called in Ray's dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from wansweep.case import Case
from wansweep.sweep import Isolation, ModelSource, Procedure

WORK = "wansweep.trial.runner"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What Tune hands a trial.

    Attributes:
        case: As declared.
        trial: Which repeat, from 0.
        source: Facts of the model.
        rank_cpus: CPUs a rank reserves.
        on_gpus: Whether a rank reserves a GPU.
        procedure: How to measure.
        run_folder: Where the mp4 and the samples go, when this node can see it.
        scratch: Folder on the node for what dies with the sweep; null for the system's own.
        place: Id of the node of each rank.
        driver_node: Id of the node that has the run folder; empty when that is every node's.
        work: Module whose ``introduce`` and ``run_rank`` the ranks run.
        earlier_attempts: Why each earlier attempt was lost.
    """

    case: Case
    trial: int
    source: ModelSource
    rank_cpus: float
    on_gpus: bool
    procedure: Procedure
    run_folder: str
    scratch: str | None
    place: tuple[str, ...] = ()
    driver_node: str = ""
    work: str = WORK
    earlier_attempts: tuple[str, ...] = ()

    @property
    def one_node(self) -> bool:
        """Whether the whole gang is on one node."""
        return len(set(self.place)) <= 1

    @property
    def key(self) -> str:
        """Names the trial within its sweep."""
        return f"{self.case.id}-{self.trial}"

    @property
    def title(self) -> str:
        """Names it to a reader."""
        return f"{self.case.label} #{self.trial}"

    @property
    def reserves(self) -> str:
        """``2 GPUs``, or ``2 CPU ranks`` on a cluster without any."""
        return f"{self.case.gpus} {'GPU' if self.on_gpus else 'CPU rank'}{'s' if self.case.gpus > 1 else ''}"

    @property
    def name(self) -> str:
        """As the trial is called in Ray's dashboard."""
        return f"{self.title} ({self.case.model}, {self.reserves})"

    @property
    def ranks_name(self) -> str:
        """As its ranks are called there. Ray takes an actor's name once, so ranks that go on to other cases cannot bear the first one's."""
        return self.name if self.procedure.isolation is Isolation.PROCESS else f"warm, {self.reserves},"
