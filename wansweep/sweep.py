"""The Sweep: which cases, how they are measured, on what. Frozen; what config.py makes and everything after it reads."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wansweep.case import Case, Model

_WORDS = ("null", "true", "false", "nan", "inf", "-inf", "-nan")


class Isolation(StrEnum):
    """Whether a trial's rank processes are its own."""

    PROCESS = "process"
    WARM = "warm"


class GpuTiming(StrEnum):
    """How the ends of stages are timed on a GPU: events read after the run, or a wait at each."""

    EVENTS = "events"
    SYNC = "sync"


@dataclass(frozen=True, kw_only=True, slots=True)
class Procedure:
    """How to measure.

    Attributes:
        repeats: Trials a case.
        warmups: Generations that a trial throws away before the measured one.
        cooldown_s: Rest before a trial's first stage.
        timeout_s: A trial that takes longer is ended.
        isolation: Fresh processes a trial, or kept ones.
        keep_video: Keep the mp4s in the run folder.
        timing: How stages are timed on a GPU.
        sample_period_s: Of the sampler process.
        try_anyway: Run cases that are predicted not to fit.
        drift: Hold the videos of lossy cases against their lossless twins' (`twins`); of one trial: keep what that takes.
        vram_cap_gib: What a rank's allocator may take of its GPU, to see what a smaller card would do; null for all of it.
        hang_s: A rank that gives no sign of life for so long has hung, and its trial is ended.
        stall_s: A rank that lives, but begins and ends no stage for so long, has stalled, and its trial is ended; null: half of timeout_s.
        retries: How often a trial that was lost with its node is tried again elsewhere.
        convert: Convert weight files that are in another number format than the case once into the cache, instead of casting at every load.
    """

    repeats: Annotated[int, Field(ge=1, le=10_000)]
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    isolation: Isolation
    keep_video: bool
    warmups: Annotated[int, Field(ge=0, le=10_000)] = 0
    cooldown_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    timing: GpuTiming = GpuTiming.EVENTS
    sample_period_s: Annotated[float, Field(ge=0.02, le=60)] = 0.1
    hang_s: Annotated[float, Field(ge=5, allow_inf_nan=False)] = 120.0
    retries: Annotated[int, Field(ge=0, le=1000)] = 2
    convert: bool = True
    try_anyway: bool = False
    drift: bool = False
    vram_cap_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    stall_s: Annotated[float, Field(ge=5, allow_inf_nan=False)] | None = None

    @property
    def stalls_after_s(self) -> float:
        """`stall_s`, or what stands for it."""
        return self.timeout_s / 2 if self.stall_s is None else self.stall_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Where to run.

    Attributes:
        address: ``local`` (start one), ``auto`` (a running one, else start one) or host:port.
        gpus: GPUs of a cluster that we start; null means all that are there.
        exclusive: One trial a node at a time.
        straddle: A gang that no node can hold may be spread over several.
        grace_s: After a SIGTERM, as batch systems send it, running trials have so long to finish; then they are stopped and the report is made.
    """

    address: Annotated[str, Field(pattern=r"^(local|auto|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})$")]
    gpus: Annotated[int, Field(ge=0, le=4096)] | None
    exclusive: bool
    straddle: bool = False
    grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What to plan for.

    Attributes:
        name: A row of the GPU table, ``cpu``, or ``auto`` for what this machine has.
        gpus: How many.
        price_per_gpu_hour: In any currency; null leaves cost out.
    """

    name: str
    gpus: Annotated[int, Field(ge=1, le=1_000_000)]
    price_per_gpu_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Facts of a family that are no setting of a case.

    Attributes:
        repo: Hub id of the checkpoint in diffusers' layout.
        revision: Of the repo; null for the newest.
        fps: Frames a second of the video that is saved.
        boundary: Share of the schedule above which the high-noise expert runs; null for a model with one.
    """

    repo: str
    revision: str | None
    fps: int
    boundary: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A case that was left out, and why."""

    case: Case
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A named, ordered set of cases and how to measure them.

    Attributes:
        command: The command line that asks for this sweep, pasteable.
        commands: Case id to the command line that asks for it, where that is another.
    """

    name: str
    cases: tuple[Case, ...]
    excluded: tuple[Exclusion, ...]
    procedure: Procedure
    cluster: Cluster
    hardware: Hardware
    models: dict[Model, ModelSource]
    command: str
    commands: dict[str, str] = field(default_factory=dict)

    def command_for(self, label: str) -> str:
        """The command line that runs one case of the sweep and no other, pasteable."""
        # By its id where the case has another label in the sweep that asks for it.
        id_ = next((case.id for case in self.cases if case.label == label and case.id in self.commands), None)
        asked = [word for word in shlex.split(self.commands.get(id_ or "", self.command)) if not word.startswith("sweep.only=")]
        name = id_ or label
        # Hydra reads 007, 1e3 and null as numbers and as nothing.
        plain = re.fullmatch(r"[A-Za-z0-9._-]*[A-DF-Za-df-z][A-Za-z0-9._-]*", name) and name.lower() not in _WORDS
        return shlex.join([*asked, f"sweep.only=[{name}]" if plain else f"sweep.only=['{name}']"])


def joined(there: Sweep, here: Sweep) -> Sweep:
    """The sweep of a folder that was made for one and gone on with as another: the cases of both, equal ones once, else what was asked last."""
    asked, known, taken = {case.id for case in here.cases}, {case.id for case in there.cases}, {case.label for case in there.cases}
    new = [replace(case, label=f"{case.label}-{case.id}") if case.label in taken else case for case in here.cases if case.id not in known]
    commands = {case.id: there.commands.get(case.id, there.command) for case in there.cases if case.id not in asked}
    commands |= {case.id: here.command for case in new if case.label.endswith(f"-{case.id}")}
    return replace(
        here,
        cases=(*there.cases, *new),
        excluded=tuple({left.case.id: left for left in (*there.excluded, *here.excluded)}.values()),
        models={**there.models, **here.models},
        commands=commands,
    )
