"""What a trial's controller and its ranks say to each other. Imports nothing heavy: the controller never loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wansweep.case import Case
from wansweep.record import Figure, Outcome, RankFacts, Resolved, Shortage, Timing
from wansweep.sweep import ModelSource, Procedure


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """A rank's place in its gang.

    Attributes:
        rank: From 0.
        world: Ranks of the gang.
        rendezvous: A file on the gang's node, or ``tcp://host:port`` of rank 0 where it has several; unused by a gang of one.
        cores: CPUs that the rank reserved; as many threads, at least one.
    """

    rank: int
    world: int
    rendezvous: str
    cores: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """What a rank says of itself before it is given anything to do.

    Attributes:
        facts: Who it is.
        address: Host and port for the process group of a gang over several nodes.
    """

    facts: RankFacts
    address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How one rank ended.

    Attributes:
        rank: Of the gang.
        outcome: ok, oom, invalid or crash; what kills a process is its controller's to tell.
        reason: One line, empty for ok.
        resolved: What was in force; null when the rank did not get through a video.
        timing: How its stages were timed; null when it did not get that far.
        warmup_s: Seconds of each warm-up generation.
        weights_cached: Share of the weight files in the page cache before loading.
        shortage: What was missing, for an oom; its stage is the reader's of the journal to tell.
    """

    rank: int
    outcome: Outcome
    reason: str
    resolved: Resolved | None
    timing: Timing | None = None
    warmup_s: tuple[float, ...] = ()
    weights_cached: Figure | None = None
    shortage: Shortage | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What every rank of a trial is told.

    Attributes:
        case: As declared.
        source: Facts of its model.
        origin_s: Zero of the trial's clock (`Stages.origin_s`).
        scratch: Folder on the node for journals, samples and the video.
        procedure: How to measure.
    """

    case: Case
    source: ModelSource
    origin_s: float
    scratch: Path
    procedure: Procedure

    def journal(self, rank: int) -> Path:
        """The rank's journal of stages."""
        return self.scratch / f"rank{rank}.jsonl"

    def pulse(self, rank: int) -> Path:
        """File whose time of change is the rank's last sign of life."""
        return self.scratch / f"rank{rank}.alive"

    @property
    def samples(self) -> Path:
        """What the node's sampler writes."""
        return self.scratch / "samples.jsonl"

    @property
    def video(self) -> Path:
        """Where rank 0 saves the mp4; the first of a batch (`numbered`)."""
        return self.scratch / "video.mp4"

    @property
    def sheet(self) -> Path:
        """Where rank 0 saves the contact sheet."""
        return self.scratch / "frames.jpg"

    @property
    def keepsake(self) -> Path:
        """Where rank 0 keeps what the video can be held against another's by (`drift.keepsake`)."""
        return self.scratch / "keepsake.npz"


def numbered(path: Path, i: int) -> Path:
    """The file of a batch's video: the path itself for the first, ``NAME-1.mp4`` for the second."""
    return path if i == 0 else path.with_stem(f"{path.stem}-{i}")
