"""What a trial's controller and its ranks say to each other. Imports nothing heavy: the controller never loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wansweep.case import Case
from wansweep.record import Outcome, Resolved
from wansweep.sweep import ModelSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """A rank's place in its gang.

    Attributes:
        rank: From 0.
        world: Ranks of the gang.
        rendezvous: ``tcp://host:port`` of rank 0; unused by a gang of one.
        threads: CPU threads that the rank may use.
    """

    rank: int
    world: int
    rendezvous: str
    threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How one rank ended.

    Attributes:
        rank: Of the gang.
        outcome: ok, oom, invalid or crash; what kills a process is its controller's to tell.
        reason: One line, empty for ok.
        resolved: What was in force; null when the rank did not get through a video.
    """

    rank: int
    outcome: Outcome
    reason: str
    resolved: Resolved | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What every rank of a trial is told.

    Attributes:
        case: As declared.
        source: Facts of its model.
        origin_s: Zero of the trial's clock (`Stages.origin_s`).
        scratch: Folder on the node for journals and the video.
        keep_video: Whether the mp4 is wanted afterwards.
        timeout_s: For collectives.
    """

    case: Case
    source: ModelSource
    origin_s: float
    scratch: Path
    keep_video: bool
    timeout_s: float

    def journal(self, rank: int) -> Path:
        """The rank's journal of stages."""
        return self.scratch / f"rank{rank}.jsonl"

    @property
    def video(self) -> Path:
        """Where rank 0 saves the mp4."""
        return self.scratch / "video.mp4"
