"""The Record: what one trial leaves behind, and the only thing that crosses from measuring to reporting.

History of the format (``schema``):
    1: first. Fields added since have a default, which older records of schema 1 are read with; a field that changes its meaning makes a 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, PlainSerializer, TypeAdapter, ValidationError

from wansweep.case import Case, Model, Task
from wansweep.errors import NewerSchemaError
from wansweep.imported import Imported
from wansweep.privacy import public

SCHEMA = 1

# Part of file names.
CaseId = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
# A number that tables can hold; a damaged record may say any.
Whole = Annotated[int, Field(ge=0, lt=2**53)]


class Outcome(StrEnum):
    """How a trial ended. Every planned case ends as exactly one row, whatever its outcome."""

    OK = "ok"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASH = "crash"
    INVALID = "invalid"
    SKIPPED = "skipped"
    UNSTABLE = "unstable"

    @property
    def is_answer(self) -> bool:
        """Whether the outcome tells the user something about the case, not about an accident.

        Answers are not run again by a resume, and leave the exit code at 0.
        """
        return self not in (Outcome.CRASH, Outcome.TIMEOUT)


class StageKind(StrEnum):
    """The windows of a trial, in the order a run meets them. All but Total_Execution are leaves and never overlap."""

    MODEL_INITIALIZATION = "Model_Initialization"
    COMPILATION = "Compilation"
    PREPROCESS = "Preprocess"
    T5_ENCODING = "T5_Encoding"
    STEP_LOADING = "Loading"
    STEP_INFERENCE = "Inference"
    VAE_DECODING = "VAE_Decoding"
    SAVE = "Save"
    TOTAL_EXECUTION = "Total_Execution"


class Expert(StrEnum):
    """Which A14B expert a step runs in: `transformer` is the high-noise one, `transformer_2` the low-noise one."""

    HIGH = "high"
    LOW = "low"


def stage_name(kind: StageKind, model: Model, *, step: int | None = None) -> str:
    """The stage as users know it: ``TI2V_Preprocess``, ``Step_3_Inference``, ``VAE_Decoding``."""
    match kind:
        case StageKind.PREPROCESS:
            return f"{ {Model.TI2V_5B: 'TI2V', Model.T2V_A14B: 'T2V', Model.I2V_A14B: 'I2V'}[model] }_Preprocess"
        case StageKind.STEP_LOADING | StageKind.STEP_INFERENCE:
            assert step is not None, kind
            return f"Step_{step}_{kind}"
        case _:
            return str(kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One measured figure of a stage, or why there is none.

    Attributes:
        value: In the unit that ends the figure's name; a mean over time for gauges, an increase for counters. Null with ``why``.
        why: ``unsupported``, ``no_permission``, ``too_short``, ``no_sample``, ``gap``, ``error``, ``not_applicable``; null with a value.
        n_samples: Samples it was made from; null for what was read at the stage's own edges.
        coverage: Share of the stage, 0 to 1, that the samples speak for; null likewise.
        max: Largest sample; null where that means nothing.
    """

    value: float | None
    why: str | None = None
    n_samples: Whole | None = None
    coverage: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A named window of a trial on one rank.

    Attributes:
        kind: Which window.
        name: As users know it (`stage_name`).
        rank: Of the gang.
        start_s: Since the trial's origin, on the host's monotonic clock, one origin for all ranks.
        duration_s: Length; null for a stage that had begun but not ended when the rank died.
        step: Denoising step, from 0; null outside the loop.
        expert: Which expert ran; null where a model has one.
        paused_s: Seconds within the window that are not in ``duration_s``: warm-up generations.
        figures: What was measured of it, by column name of stages.parquet or of `telemetry.samples`; one that is absent was not tried.
    """

    kind: StageKind
    name: str
    rank: Whole
    start_s: float
    duration_s: float | None
    step: Whole | None = None
    expert: Expert | None = None
    paused_s: float = 0.0
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankFacts:
    """Who a rank was.

    Attributes:
        rank: Of the gang.
        device_uuid: Of its GPU as NVML writes it; null on a CPU.
        device_name: As torch or the platform names it.
        device_total_bytes: What CUDA gives out at most; null on a CPU.
        cores: CPUs that it reserved.
        pid: Of its process; samples of its process tree stand under ``host:<pid>``.
    """

    rank: Whole
    device_uuid: str | None
    device_name: str
    device_total_bytes: Whole | None
    cores: float
    pid: Whole | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerFacts:
    """What measuring cost and what went wrong with it.

    Attributes:
        cpu_s: CPU seconds of the sampler process.
        wall_s: Seconds it ran.
        nvml_s: Mean seconds to read one GPU once.
        errors: What it could not do, a line each.
    """

    cpu_s: float | None
    wall_s: float | None
    nvml_s: float | None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortage:
    """What was missing when memory ran out. Null what nobody said.

    Attributes:
        of_host: Of the host's memory, or of the device's.
        stage: In which it ran out, as users know it; null outside of any.
        requested_bytes: That were asked for.
        allocated_bytes: That tensors held on the device.
        reserved_bytes: That torch's allocator held of it.
        device_free_bytes: That were left of it.
        device_total_bytes: That it has for CUDA.
    """

    of_host: bool
    stage: str | None = None
    requested_bytes: Whole | None = None
    allocated_bytes: Whole | None = None
    reserved_bytes: Whole | None = None
    device_free_bytes: Whole | None = None
    device_total_bytes: Whole | None = None


class Timing(StrEnum):
    """How the ends of a stage were timed."""

    PERF_COUNTER = "perf_counter"
    SYNC = "sync"
    EVENTS = "events"


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """So many of so many; counts.

    Attributes:
        count: Those that did.
        of: Those that could.
    """

    count: Whole
    of: Whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """What was really in force, read back from the loaded pipeline, beside what the case declared.

    Attributes:
        device: torch device type of the rank: ``cuda`` or ``cpu``.
        device_name: As torch or the platform names it.
        task: As run.
        width, height, frames: Pixels and frames as run; smaller than declared with tiny weights.
        weights: Where they came from: ``tiny``, ``random``, a folder or a hub id.
        dtypes: Component to number format.
        hooks: Component to the offload hook installed on it.
        attention: Backend of diffusers' dispatcher.
        quant: Quantisation in force on the experts; each with its own where they differ.
        cache: Cache in force.
        parallel: Parallel degrees in force.
        shift: Flow shift the scheduler has.
        timesteps: The schedule, in the model's 0 to 1000.
        switch_step: First step of the low-noise expert; null with one expert or when it is never reached.
        latents_sha256: Over the final latents' bytes; equal seeds on equal software give equal hashes.
        video: File name of the saved video, when it was kept.
        revision: Commit of the hub's repository; null for weights from elsewhere.
        converted: Folder in the cache that was opened in place of files in another number format; null when they were opened themselves.
        devices: Component to where its weights were once everything was placed.
        stage_devices: Stage, with the expert where there are two, to component to where its weights were when the stage ended.
        vae: Tiling and slicing in force on the VAE; empty for neither.
        fused_qkv: Whether both experts project query, key and value at once.
        quantised_layers: Component to its quantised layers, of those that a quantiser takes.
        block_computations: Expert to how often its last block computed, of how often it would have without a cache.
        expert_swaps: How often an expert was brought to the device; null without offload=expert.
        compile: torch.compile's scope and backend.
        graphs: Graphs that torch.compile made before the first step; null without it.
        solver: Class of the scheduler, by diffusers' name.
        forwards: Of the transformer in a step on this rank, counted: 2 with CFG, else 1; null under torch.compile, which hides them.
        batch: Videos made at once.
        vae_decodes: Decodes of the VAE, counted; a slice is one.
        output_sha256: Over the video as 8-bit RGB, a frame after the other; null where it was not taken.
        shard_bytes: Expert to the bytes of its weights that rank 0 holds between forwards, of all; empty without fsdp.
        ranks_error: By how much the ranks' final latents differ at most; null for a gang of one.
        text_encoder_quant: Quantisation in force on T5.
        group: Option of group offload to its value in the hooks of the experts; empty without it.
    """

    device: str
    device_name: str
    task: Task
    width: Whole
    height: Whole
    frames: Whole
    weights: str
    dtypes: dict[str, str]
    hooks: dict[str, str]
    attention: str
    quant: str
    cache: str
    parallel: str
    shift: float
    timesteps: tuple[float, ...]
    switch_step: Whole | None
    latents_sha256: str
    video: str | None = None
    revision: str | None = None
    converted: str | None = None
    devices: dict[str, str] = field(default_factory=dict)
    stage_devices: dict[str, dict[str, str]] = field(default_factory=dict)
    vae: str = ""
    fused_qkv: bool = False
    quantised_layers: dict[str, Share] = field(default_factory=dict)
    block_computations: dict[str, Share] = field(default_factory=dict)
    expert_swaps: Whole | None = None
    compile: str = "none"
    graphs: Whole | None = None
    solver: str = "UniPCMultistepScheduler"
    forwards: Whole | None = None
    batch: Whole = 1
    vae_decodes: Whole | None = None
    output_sha256: str | None = None
    shard_bytes: dict[str, Share] = field(default_factory=dict)
    ranks_error: float | None = None
    text_encoder_quant: str = "none"
    group: dict[str, str] = field(default_factory=dict)


_STAGES = TypeAdapter(tuple[Stage, ...])


def _compact(stages: tuple[Stage, ...]) -> object:
    """Stages without the fields at their default: a third of the bytes, since most figures are a value alone."""
    return _STAGES.dump_python(stages, mode="json", exclude_defaults=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One trial: what was asked, what happened, and what was measured.

    Attributes:
        case: As declared.
        trial: Which repeat of the case, from 0.
        outcome: How it ended.
        reason: One line why, empty for ok; names rank and stage where one failed.
        resolved: What was in force; null when the trial did not get that far.
        stages: Every stage of every rank that began.
        started_utc: Wall clock, ISO 8601.
        startup_s: From the trial's start to its first stage: process start and imports, outside Total_Execution.
        wall_s: The whole trial as its controller saw it.
        warm: Whether the rank processes had run another trial before.
        node: Host it ran on.
        timing: How stages were timed; null when no rank got that far.
        warmup_s: Seconds of each whole generation before the measured one, in order; the first holds the first-run effects.
        weights_cached: Share of the weight files that the page cache held before loading.
        ranks: Who the ranks were.
        sampler: What sampling cost; null when there was no sampler.
        imported: Set for a record that was read from another tool's report, with what that does not say.
        origin_s: The stages' zero on CLOCK_MONOTONIC, which samples are timed by; null in records older than this field.
        log_tail: Last lines that the rank which failed wrote to its stdout and stderr; empty for one that did not fail.
        nodes: Ray's ids of the nodes that the ranks were on, each once.
        shared_with: Trials that ran on the same node at the same time, as ``label #repeat``.
        earlier_attempts: One line for each time the trial was lost with its node before this.
        run: Run folder that the trial was copied from, of a merged one; empty where it ran.
        departures: What was otherwise than when the folder was made, as ``torch: 2.12.0 -> 2.13.0``; of a forced resume.
        shortage: What was missing, for an oom; null in records older than this field.
        device_notes: What was not clean about the GPUs before or after the trial, a line each.
        schema: Version of this format.
    """

    case: Case
    case_id: CaseId
    label: str
    trial: Whole
    outcome: Outcome
    reason: str
    resolved: Resolved | None
    stages: Annotated[tuple[Stage, ...], PlainSerializer(_compact)]
    started_utc: str
    startup_s: float | None
    wall_s: float
    warm: bool
    node: str
    timing: Timing | None = None
    warmup_s: tuple[float, ...] = ()
    weights_cached: Figure | None = None
    ranks: tuple[RankFacts, ...] = ()
    sampler: SamplerFacts | None = None
    imported: Imported | None = None
    origin_s: float | None = None
    log_tail: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    shared_with: tuple[str, ...] = ()
    earlier_attempts: tuple[str, ...] = ()
    run: str = ""
    departures: tuple[str, ...] = ()
    shortage: Shortage | None = None
    device_notes: tuple[str, ...] = ()
    schema: Whole = SCHEMA


RECORD = TypeAdapter(Record)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Versioned:
    schema: int


_VERSIONED = TypeAdapter(_Versioned)


def unrun(case: Case, trial: int, outcome: Outcome, reason: str) -> Record:
    """The record of a trial that left none itself: it was not tried, or whoever watched it is gone."""
    return Record(
        case=case,
        case_id=case.id,
        label=case.label,
        trial=trial,
        outcome=outcome,
        reason=reason,
        resolved=None,
        stages=(),
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        startup_s=None,
        wall_s=0.0,
        warm=False,
        node="",
    )


def to_json(record: Record) -> bytes:
    """The record as one JSON document, without home folders and tokens: every record that is kept or sent comes through here."""
    return RECORD.dump_json(_published(record))


def _published(record: Record) -> Record:
    """The record with its texts, which libraries and logs wrote, as they may be published; what a sweep declares was made so by its config."""
    resolved, sampler = record.resolved, record.sampler
    if resolved:
        resolved = replace(resolved, weights=public(resolved.weights), converted=public(resolved.converted) if resolved.converted else None)
    return replace(
        record,
        reason=public(record.reason),
        log_tail=tuple(map(public, record.log_tail)),
        earlier_attempts=tuple(map(public, record.earlier_attempts)),
        device_notes=tuple(map(public, record.device_notes)),
        resolved=resolved,
        sampler=replace(sampler, errors=tuple(map(public, sampler.errors))) if sampler else None,
    )


def from_json(document: bytes | str) -> Record:
    """The record in a JSON document.

    Raises:
        pydantic.ValidationError: It is cut short, or not a record.
        NewerSchemaError: A newer version wrote it.
    """
    try:
        record = RECORD.validate_json(document)
    except ValidationError:
        _refuse_newer(_schema(document))
        raise
    _refuse_newer(record.schema)
    return record


def _schema(document: bytes | str) -> int:
    """The schema that a document names which is no record of ours; 0 for none."""
    try:
        return _VERSIONED.validate_json(document).schema
    except ValidationError:
        return 0


def _refuse_newer(schema: int) -> None:
    if schema > SCHEMA:
        raise NewerSchemaError(f"schema {schema} is of a newer wansweep than this one, which reads up to {SCHEMA}: upgrade wansweep")
