"""One rank's part of a trial: load, place, generate, save, and say how it ended."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.utils import export_to_video

from wansweep.case import Case
from wansweep.plan.geometry import as_run
from wansweep.record import Expert, Outcome, Resolved, StageKind
from wansweep.trial import options, parallel, pipeline
from wansweep.trial.generate import expert_schedule, generate
from wansweep.trial.options import Invalid
from wansweep.trial.stages import Stages, no_sync
from wansweep.trial.task import Ending, Seat, Task


def run_rank(task: Task, seat: Seat) -> Ending:
    """Run the rank's part; never raises. The trial's one broad ``except``: whatever happens becomes an ending."""
    torch.set_num_threads(seat.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with task.journal(seat.rank).open("ab", buffering=0) as journal:
            stages = Stages(model=task.case.model, rank=seat.rank, origin_s=task.origin_s, journal=journal, sync=_sync_of(device))
            resolved = _run(task, seat, device, stages)
        return Ending(rank=seat.rank, outcome=Outcome.OK, reason="", resolved=resolved)
    except Invalid as refusal:
        return _failed(seat, Outcome.INVALID, str(refusal))
    except torch.OutOfMemoryError as error:
        return _failed(seat, Outcome.OOM, str(error))
    except Exception as error:  # noqa: BLE001
        return _failed(seat, Outcome.CRASH, f"{type(error).__name__}: {error}")


def _failed(seat: Seat, outcome: Outcome, reason: str) -> Ending:
    return Ending(rank=seat.rank, outcome=outcome, reason=" ".join(reason.split())[:500], resolved=None)


def _run(task: Task, seat: Seat, device: torch.device, stages: Stages) -> Resolved:
    """Load, place, generate and save; the windows of contract.md."""
    case = as_run(task.case)
    path = pipeline.checkpoint(case, task.source)
    with parallel.process_group(seat, device, timeout_s=task.timeout_s):
        with stages(StageKind.TOTAL_EXECUTION):
            with stages(StageKind.MODEL_INITIALIZATION):
                pipe = pipeline.load(case, task.source, path)
                parallel.split_sequence(pipe, case, seat, device)
                options.apply_offload(pipe, case, device)
                pipeline.read_weights(pipe)
                installed = options.hooks(pipe)
                options.check_offload(case, installed)
            latents, video = generate(pipe, case, stages)
        if seat.rank == 0:
            with stages(StageKind.SAVE):
                save(video, task.video, fps=task.source.fps)
        return _resolved(task, pipe, case, path=path, hooks=installed, latents=latents)


def save(video: torch.Tensor, path: Path, *, fps: int) -> None:
    """Write a video (1 x frames x 3 x height x width, 0 to 1) as mp4."""
    export_to_video(list(video[0].permute(0, 2, 3, 1).float().cpu().numpy()), str(path), fps=fps)


def _resolved(task: Task, pipe: pipeline.WanPipe, case: Case, *, path: str, hooks: dict[str, str], latents: torch.Tensor) -> Resolved:
    timesteps = [float(t) for t in pipe.scheduler.timesteps.tolist()]
    experts = expert_schedule(pipe, timesteps)
    device = pipe._execution_device
    return Resolved(
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine(),
        task=case.task,
        width=case.width,
        height=case.height,
        frames=case.frames,
        weights=task.case.weights if task.case.weights == "tiny" else path,
        dtypes=options.dtypes(pipe),
        hooks=hooks,
        attention=options.attention_backend(),
        quant="none",
        cache="none",
        parallel=parallel.resolved_parallel(pipe),
        shift=float(pipe.scheduler.config.flow_shift),
        timesteps=tuple(timesteps),
        switch_step=experts.index(Expert.LOW) if Expert.LOW in experts else None,
        latents_sha256=hashlib.sha256(latents.float().cpu().contiguous().numpy().tobytes()).hexdigest(),
        video=task.video.name if task.keep_video else None,
    )


def _sync_of(device: torch.device) -> Callable[[], None]:
    return torch.cuda.synchronize if device.type == "cuda" else no_sync
