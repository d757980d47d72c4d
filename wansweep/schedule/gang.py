"""The ranks of one trial at work: started, watched and ended together; whatever happens to them becomes a Record.

Lives in a trial's controller, on the node that holds the ranks, and loads no torch.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError as HostOutOfMemory
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from wansweep.record import Outcome, Record, SamplerFacts, Stage, StageKind
from wansweep.schedule.order import Order
from wansweep.schedule.progress import Progress, gather
from wansweep.schedule.rank import Rank
from wansweep.sweep import Isolation
from wansweep.telemetry.attribute import attribute
from wansweep.telemetry.sampling import Sampling
from wansweep.telemetry.trace import Trace
from wansweep.trial.stages import read_journal
from wansweep.trial.task import Ending, Hello, Seat, Task

# After a first rank fails, the others get this long to say why they did: an OOM on one rank is a broken collective on the rest.
SECOND_THOUGHT_S = 1.0
_SEVERITY = (Outcome.OOM, Outcome.INVALID, Outcome.CRASH)


class Gang:
    """One trial's ranks and the node's sampler.

    Args:
        order: What to run.
        warm: Rank actors of an earlier trial that are to be used again; empty starts new ones.
    """

    def __init__(self, order: Order, *, warm: Sequence[Any]) -> None:
        """Start the ranks, or take the warm ones, and ask each who it is."""
        self._order = order
        self._ranks = list(warm)
        self._started_utc = datetime.now(UTC).isoformat(timespec="seconds")
        self._origin_s = time.perf_counter()
        scratch = Path(tempfile.mkdtemp(prefix="wansweep-trial-", dir=order.scratch))
        self._task = Task(case=order.case, source=order.source, origin_s=self._origin_s, scratch=scratch, procedure=order.procedure)
        self._warm = bool(self._ranks)
        self._hellos: dict[int, Hello] = {}
        self._endings: list[Ending] = []
        self._sampling: Sampling | None = None
        if not self._ranks:
            self._ranks = [self._new_rank(rank) for rank in range(order.case.gpus)]
        self._pending = {actor.hello.remote(rank, order.rank_cpus): rank for rank, actor in enumerate(self._ranks)}

    def _give_parts(self) -> None:
        """All ranks are there: start the node's sampler, and give each its part."""
        hellos = [self._hellos[rank] for rank in range(len(self._ranks))]
        gpus = [hello.facts.device_uuid for hello in hellos if hello.facts.device_uuid]
        self._sampling = Sampling(
            out=self._task.samples,
            gpus=gpus,
            pids=[hello.pid for hello in hellos],
            period_s=self._order.procedure.sample_period_s,
        )
        self._sampling.start()
        for rank, actor in enumerate(self._ranks):
            seat = Seat(rank=rank, world=len(hellos), rendezvous=f"tcp://{hellos[0].address}", cores=self._order.rank_cpus)
            self._pending[actor.run.remote(self._task, seat)] = rank

    def _new_rank(self, rank: int) -> Any:  # noqa: ANN401  (Ray's actor handles have no type)
        group = ray.util.get_current_placement_group()
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1 + rank)
        options = {"num_cpus": self._order.rank_cpus, "num_gpus": 1 if self._order.on_gpus else 0, "scheduling_strategy": place}
        return Rank.options(**options).remote(self._order.ranks_name, rank)  # type: ignore[attr-defined]

    def wait(self, seconds: float) -> tuple[Outcome, str] | None:
        """How the trial ended and why, or null when it goes on after that many seconds. The first rank that fails ends it."""
        timeout_s = self._order.procedure.timeout_s
        deadline_s = self._origin_s + timeout_s
        until_s = min(time.perf_counter() + seconds, deadline_s)
        while self._pending and not self._failures():
            ready, _ = ray.wait(list(self._pending), timeout=max(0.0, until_s - time.perf_counter()))
            if not ready:
                break
            self._collect(ready)
            if not self._pending and self._sampling is None and not self._failures():
                self._give_parts()
        if self._failures():
            return self._worst()
        if not self._pending:
            return Outcome.OK, ""
        if time.perf_counter() >= deadline_s:
            late = self._where(min(self._pending.values()))
            return Outcome.TIMEOUT, f"{late}not done after procedure.timeout_s={timeout_s:g}"
        return None

    def _worst(self) -> tuple[Outcome, str]:
        """The failure that explains the others', which are given a moment to tell theirs."""
        if self._pending:
            self._collect(ray.wait(list(self._pending), num_returns=len(self._pending), timeout=SECOND_THOUGHT_S)[0])
        worst = min(self._failures(), key=lambda ending: (_SEVERITY.index(ending.outcome), ending.rank))
        return worst.outcome, f"{self._where(worst.rank)}{worst.reason}"

    def _failures(self) -> list[Ending]:
        return [ending for ending in self._endings if ending.outcome is not Outcome.OK]

    def _collect(self, ready: list[Any]) -> None:
        """Turn what came back from ranks, or did not, into endings."""
        for reference in ready:
            rank = self._pending.pop(reference)
            try:
                answer: Hello | Ending = ray.get(reference)
                if isinstance(answer, Hello):
                    self._hellos[rank] = answer
                else:
                    self._endings.append(answer)
            except HostOutOfMemory as error:
                reason = f"the host ran out of memory: {_first_line(error)}"
                self._endings.append(Ending(rank=rank, outcome=Outcome.OOM, reason=reason, resolved=None))
            except RayActorError as error:
                self._endings.append(Ending(rank=rank, outcome=Outcome.CRASH, reason=f"its process died: {_first_line(error)}", resolved=None))
            except RayError as error:
                self._endings.append(Ending(rank=rank, outcome=Outcome.CRASH, reason=_first_line(error), resolved=None))

    def record(self, outcome: Outcome, reason: str) -> Record:
        """What the trial leaves; ends the sampler."""
        ok = next((ending for ending in sorted(self._endings, key=lambda e: e.rank) if ending.resolved), None)
        trace = self._sampling.stop() if self._sampling else None
        stages = tuple(stage for rank in range(self._order.case.gpus) for stage in self._stages(rank))
        return Record(
            case=self._order.case,
            case_id=self._order.case.id,
            label=self._order.case.label,
            trial=self._order.trial,
            outcome=outcome,
            reason=reason,
            resolved=ok.resolved if ok and outcome is Outcome.OK else None,
            stages=self._attributed(stages, trace) if trace else stages,
            started_utc=self._started_utc,
            startup_s=min((stage.start_s for stage in stages), default=None),
            wall_s=time.perf_counter() - self._origin_s,
            warm=self._warm,
            node=socket.gethostname(),
            timing=ok.timing if ok else None,
            warmup_s=ok.warmup_s if ok else (),
            weights_cached=ok.weights_cached if ok else None,
            ranks=tuple(hello.facts for _, hello in sorted(self._hellos.items())),
            sampler=_sampler_facts(trace) if trace else None,
        )

    def _attributed(self, stages: tuple[Stage, ...], trace: Trace) -> tuple[Stage, ...]:
        """The stages with what was sampled in their windows."""
        uuids = {rank: hello.facts.device_uuid for rank, hello in self._hellos.items()}
        return attribute(
            stages,
            trace.samples,
            origin_s=self._origin_s,
            gpus={rank: uuid for rank, uuid in uuids.items() if uuid},
            pids={rank: hello.pid for rank, hello in self._hellos.items()},
        )

    def finish(self, record: Record) -> list[Any]:
        """Hand over video and samples, clear the scratch folder, and end the ranks; the ones that may be used again are returned."""
        folder = Path(self._order.run_folder)
        if self._order.procedure.keep_video:
            _hand_over(self._task.video, folder / "videos" / f"{record.label}-{record.trial}.mp4")
        _hand_over(self._task.samples, folder / "traces" / f"{record.case_id}-{record.trial}.jsonl")
        shutil.rmtree(self._task.scratch, ignore_errors=True)
        if self._order.procedure.isolation is Isolation.WARM and record.outcome is Outcome.OK:
            return self._ranks
        self.end()
        return []

    def end(self) -> None:
        """End ranks and sampler now."""
        for rank in self._ranks:
            ray.kill(rank)
        if self._sampling is not None:
            self._sampling.stop()

    def _stages(self, rank: int) -> list[Stage]:
        return read_journal(self._task.journal(rank))

    def _open_stage(self, rank: int) -> str:
        """The innermost stage that the rank has begun and not ended."""
        begun = [stage.name for stage in self._stages(rank) if stage.duration_s is None and stage.kind is not StageKind.TOTAL_EXECUTION]
        return begun[-1] if begun else ""

    def progress(self) -> Progress:
        """Where the trial is, for live views and metrics."""
        gpus = {rank: hello.facts.device_uuid for rank, hello in self._hellos.items()}
        pids = {rank: hello.pid for rank, hello in self._hellos.items()}
        return gather(self._task, trial=self._order.trial, gpus=gpus, pids=pids)

    def _where(self, rank: int) -> str:
        """``rank 1 in Step_3_Inference: ``, as far as it is known."""
        parts = ([f"rank {rank}"] if self._order.case.gpus > 1 else []) + ([stage] if (stage := self._open_stage(rank)) else [])
        return f"{' in '.join(parts)}: " if parts else ""


def _hand_over(file: Path, to: Path) -> None:
    """Move a file into the run folder; on a node that does not see the folder, or a full disk, it stays behind and is lost."""
    if file.exists() and to.parent.is_dir():
        with contextlib.suppress(OSError):
            shutil.move(file, to)


def _sampler_facts(trace: Trace) -> SamplerFacts:
    cost = trace.cost
    return SamplerFacts(
        cpu_s=cost.cpu_s if cost else None, wall_s=cost.wall_s if cost else None, nvml_s=cost.nvml_mean_s if cost else None, errors=trace.errors
    )


def _first_line(error: BaseException) -> str:
    """What an error says, on one line and short."""
    return " ".join(str(error).split())[:400]
