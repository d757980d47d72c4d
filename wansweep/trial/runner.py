"""One rank's part of a trial: load, place, generate, save, and say how it ended."""

from __future__ import annotations

import hashlib
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import torch
from diffusers.utils import export_to_video
from diffusers.utils import logging as diffusers_logging
from torch.distributed.device_mesh import DeviceMesh
from transformers.utils import logging as transformers_logging

from wansweep.levers import Quant
from wansweep.plan.geometry import as_run
from wansweep.record import Expert, Figure, Outcome, RankFacts, Resolved, StageKind
from wansweep.telemetry import nvml, torch_probe
from wansweep.telemetry.page_cache import cached_fraction
from wansweep.telemetry.samples import Missing
from wansweep.trial import (
    attention,
    caches,
    communication,
    compilation,
    frames,
    options,
    parallel,
    pipeline,
    projections,
    quantise,
    solvers,
    vae,
)
from wansweep.trial.checkpoint import Checkpoint, NoWeightsError
from wansweep.trial.clock import Clock, clock_for
from wansweep.trial.experts import experts
from wansweep.trial.generate import expert_schedule, generate
from wansweep.trial.guidance import Guidance
from wansweep.trial.invalid import Invalid, hold
from wansweep.trial.offload import StageDevices
from wansweep.trial.placement import Placement
from wansweep.trial.probe import Probe
from wansweep.trial.shortage import ran_out, shortage
from wansweep.trial.spans import Span, Spans
from wansweep.trial.stages import Stages
from wansweep.trial.task import Ending, Seat, Task, numbered
from wansweep.units import GIB


def device_here() -> torch.device:
    """The rank's device. A rank sees one GPU at most, so its number is always 0."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def introduce(rank: int, cores: float) -> RankFacts:
    """Who the rank is, as torch sees its device. Makes no CUDA context."""
    if device_here().type == "cpu":
        name = platform.processor() or platform.machine()
        return RankFacts(rank=rank, device_uuid=None, device_name=name, device_total_bytes=None, cores=cores, pid=os.getpid())
    properties = torch.cuda.get_device_properties(0)
    uuid = torch_probe.device_uuid()
    return RankFacts(
        rank=rank,
        device_uuid=None if isinstance(uuid, Missing) else uuid,
        device_name=properties.name,
        device_total_bytes=properties.total_memory,
        cores=cores,
        pid=os.getpid(),
    )


def run_rank(task: Task, seat: Seat) -> Ending:
    """Run the rank's part; never raises. The trial's one broad ``except``: whatever happens becomes an ending."""
    torch.set_num_threads(max(1, round(seat.cores)))
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        with task.journal(seat.rank).open("ab", buffering=0) as journal, capped(task.procedure.vram_cap_gib, device_here()):
            return _Run(task, seat, device_here()).to_the_end(journal)
    except NoWeightsError as missing:
        return _failed(seat, Outcome.CRASH, str(missing))
    except Invalid as refusal:
        return _failed(seat, Outcome.INVALID, str(refusal))
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()  # into the rank's log, whose tail goes into the record
        if ran_out(error):
            return replace(_failed(seat, Outcome.OOM, str(error) or "the host ran out of memory"), shortage=shortage(error))
        return _failed(seat, Outcome.CRASH, f"{type(error).__name__}: {error}")


@contextmanager
def capped(gib: float | None, device: torch.device) -> Iterator[None]:
    """While the ``with`` lasts, torch's allocator may take so many GiB of the device; null for all of it.

    Raises:
        Invalid: There is no GPU to cap.
    """
    if gib is None:
        yield
        return
    if device.type != "cuda":
        raise Invalid(f"procedure.vram_cap_gib={gib:g}: there is no GPU here whose memory could be capped")
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total_bytes), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _failed(seat: Seat, outcome: Outcome, reason: str) -> Ending:
    return Ending(rank=seat.rank, outcome=outcome, reason=" ".join(reason.split())[:500], resolved=None)


class _Run:
    """A rank's part of one trial."""

    def __init__(self, task: Task, seat: Seat, device: torch.device) -> None:
        self.task = task
        self.seat = seat
        self.device = device
        self.case = as_run(task.case)
        self.weights = pipeline.checkpoint(self.case, task.source, convert=task.procedure.convert)
        self.warmup_s: list[float] = []
        self.mesh: DeviceMesh | None = None
        self.where: StageDevices | None = None

    def to_the_end(self, journal: BinaryIO) -> Ending:
        """Load, warm up, generate and save, in the windows of contract.md."""
        task, seat = self.task, self.seat
        cached = _cached(self.weights)
        time.sleep(task.procedure.cooldown_s)
        with parallel.process_group(seat, self.device, timeout_s=task.procedure.timeout_s), probe_here() as probe:
            clock = clock_for(self.device, task.procedure.timing)
            stages = Stages(model=self.case.model, clock=clock, rank=seat.rank, origin_s=task.origin_s, journal=journal, probe=probe)
            with ExitStack() as listening, ExitStack() as watching, stages(StageKind.TOTAL_EXECUTION):
                # What is compiled would compile the marks too.
                if seat.world > 1 and not compilation.needed(self.case):
                    stages.communication = listening.enter_context(communication.watched(clock))
                with stages(StageKind.MODEL_INITIALIZATION) as figures:
                    spans = Spans(self.device)
                    pipe, placement = self.load(spans)
                    figures.update(spans.figures())
                if compilation.needed(self.case):
                    with stages(StageKind.COMPILATION):
                        compilation.apply(pipe, self.case, placement)
                with stages.pause():
                    self.warm_up(pipe, placement, clock)
                    # Its checks come when the watching ends, which is after Total_Execution.
                    shown = watching.enter_context(options.watched(pipe, self.case, placement))
                stages.on_end = self.where = StageDevices(pipe)
                guidance = Guidance(self.mesh)
                latents, video = generate(pipe, self.case, stages, placement=placement, guidance=guidance)
            stages.on_end = None
            stages.settle()
            hold("batch", declared=self.case.batch, resolved=len(video))
            parallel.check(pipe, self.case, cfg=guidance.degree)
            ranks_error = parallel.agree(latents, seat)
            pipe.maybe_free_model_hooks()
            if seat.rank == 0:
                with stages(StageKind.SAVE):
                    save(video, task.video, fps=task.source.fps)
            keepsake = task.keepsake if task.procedure.drift else None
            output = frames.keep(video, task.sheet, keepsake, latents) if seat.rank == 0 else None
            return Ending(
                rank=seat.rank,
                outcome=Outcome.OK,
                reason="",
                resolved=replace(self.resolved(pipe, latents, shown, cfg=guidance.degree, ranks_error=ranks_error), output_sha256=output),
                timing=clock.timing,
                warmup_s=tuple(self.warmup_s),
                weights_cached=cached,
            )

    def load(self, spans: Spans) -> tuple[pipeline.WanPipe, Placement]:
        """The pipeline with every declared lever applied, and checked to be in force, and what moves its weights."""
        options.refuse(self.case)
        pipe = pipeline.load(self.case, self.task.source, self.weights, device=self.device, spans=spans)
        solvers.check(pipe, self.case, self.task.source.boundary)
        # Quantising is the one lever of these that rewrites weights; the others take next to no time.
        with spans(Span.H2D if set(self.case.quants.values()) == {Quant.NONE} else Span.CAST):
            options.apply_to_weights(pipe, self.case)
        with spans(Span.H2D):
            self.mesh = parallel.split(pipe, self.case, self.seat, self.device)
            parallel.check(pipe, self.case, cfg=self.case.cfg_parallel)
            placement = options.place(pipe, self.case, self.device, scratch=self.task.scratch)
        return pipe, placement

    def warm_up(self, pipe: pipeline.WanPipe, placement: Placement, clock: Clock) -> None:
        """Whole generations that are thrown away; only how long each took is kept. The cache is set before them, as it may need one itself."""

        def generate_once() -> None:
            # Not in the journal, but a sign that it goes on.
            stages = Stages(model=self.case.model, clock=clock, on_end=lambda *_: self.task.journal(self.seat.rank).touch())
            generate(pipe, self.case, stages, placement=placement, guidance=Guidance(self.mesh), last=False)

        options.enable_cache(pipe, self.case, generate_once)
        pipe.maybe_free_model_hooks()
        for _ in range(self.task.procedure.warmups):
            caches.reset(pipe)
            _wait(self.device)
            begin_s = time.perf_counter()
            generate_once()
            pipe.maybe_free_model_hooks()
            _wait(self.device)
            self.warmup_s.append(time.perf_counter() - begin_s)

    def resolved(
        self, pipe: pipeline.WanPipe, latents: torch.Tensor, shown: options.InForce, *, cfg: int, ranks_error: float | None
    ) -> Resolved:
        """What was really in force, read back from the pipeline."""
        timesteps = [float(t) for t in pipe.scheduler.timesteps.tolist()]
        order = expert_schedule(pipe, timesteps)
        case = self.case
        return Resolved(
            device=self.device.type,
            device_name=introduce(self.seat.rank, self.seat.cores).device_name,
            task=case.task,
            width=case.width,
            height=case.height,
            frames=case.frames,
            weights=self.weights.name,
            revision=self.weights.revision,
            converted=str(self.weights.folder) if self.weights.original else None,
            dtypes=options.dtypes(pipe),
            hooks=shown.hooks,
            attention=attention.resolved(pipe),
            quant=quantise.resolved(shown.families, "transformer", "transformer_2"),
            cache=caches.resolved(pipe, case),
            parallel=parallel.resolved_parallel(pipe, cfg=cfg),
            shift=solvers.shift(pipe),
            timesteps=tuple(timesteps),
            switch_step=order.index(Expert.LOW) if Expert.LOW in order else None,
            latents_sha256=hashlib.sha256(latents.float().cpu().contiguous().numpy().tobytes()).hexdigest(),
            video=self.task.video.name if self.task.procedure.keep_video else None,
            devices=shown.devices,
            stage_devices=self.where.seen if self.where else {},
            vae=vae.resolved(pipe),
            fused_qkv=projections.fused(pipe),
            quantised_layers=quantise.layers(shown.families),
            block_computations=shown.blocks,
            expert_swaps=shown.swaps,
            compile=compilation.resolved(pipe, case),
            graphs=shown.graphs,
            solver=solvers.resolved(pipe),
            forwards=shown.forwards,
            batch=len(latents),
            vae_decodes=shown.decodes,
            shard_bytes={name: parallel.shard_bytes(expert) for name, expert in experts(pipe).items()} if case.fsdp else {},
            ranks_error=ranks_error,
            text_encoder_quant=quantise.resolved(shown.families, "text_encoder"),
            group=shown.group,
        )


def save(video: torch.Tensor, path: Path, *, fps: int) -> None:
    """Write videos (B x frames x 3 x height x width, 0 to 1) as mp4: the first under the path, each other with its number after a dash."""
    for i, one in enumerate(video):
        export_to_video(list(one.permute(0, 2, 3, 1).float().cpu().numpy()), str(numbered(path, i)), fps=fps)


@contextmanager
def probe_here() -> Iterator[Probe]:
    """The reader of counters, with NVML open for the energy counter where there is a GPU."""
    uuid = torch_probe.device_uuid()
    if isinstance(uuid, Missing):
        yield Probe()
        return
    with nvml.library() as failed:
        yield Probe(None if failed else nvml.EnergyCounter(uuid))


def _cached(weights: Checkpoint) -> Figure:
    """How much of the weight files the page cache holds; ``not_applicable`` for random weights, which have no file."""
    reading = cached_fraction(weights.all_files())
    return Figure(value=reading.value, why=reading.why)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
