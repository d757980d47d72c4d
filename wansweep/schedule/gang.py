"""A trial as Ray sees it: a controller in bundle 0 that never touches CUDA, and one rank actor a GPU in the other bundles.

The controller turns whatever happens to its ranks into a Record, so Tune never sees an error of a case. Tune's own failure handling,
retries and resume are not used: they cannot tell an OOM from a kill and know no time-outs (docs/design.md has the measurements).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError as HostOutOfMemory
from ray.exceptions import RayActorError, RayError
from ray.tune import PlacementGroupFactory, Trainable
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from wansweep.case import Case
from wansweep.record import Outcome, Record, SamplerFacts, Stage, StageKind, to_json
from wansweep.schedule.cluster import CONTROLLER_CPU
from wansweep.sweep import Isolation, ModelSource, Procedure
from wansweep.telemetry.attribute import attribute
from wansweep.telemetry.sampling import Sampling
from wansweep.telemetry.trace import Trace
from wansweep.trial.stages import read_journal
from wansweep.trial.task import Ending, Hello, Seat, Task

# How often a running trial tells the driver what it is doing.
REPORT_EVERY_S = 1.0
# After a first rank fails, the others get this long to say why they did: an OOM on one rank is a broken collective on the rest.
SECOND_THOUGHT_S = 1.0
_SEVERITY = (Outcome.OOM, Outcome.INVALID, Outcome.CRASH)


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
    """

    case: Case
    trial: int
    source: ModelSource
    rank_cpus: float
    on_gpus: bool
    procedure: Procedure
    run_folder: str
    scratch: str | None

    @property
    def reserves(self) -> str:
        """``2 GPUs``, or ``2 CPU ranks`` on a cluster without any."""
        return f"{self.case.gpus} {'GPU' if self.on_gpus else 'CPU rank'}{'s' if self.case.gpus > 1 else ''}"

    @property
    def name(self) -> str:
        """As the trial is called in Ray's dashboard."""
        return f"{self.case.label} #{self.trial} ({self.case.model}, {self.reserves})"

    @property
    def ranks_name(self) -> str:
        """As its ranks are called there. Ray takes an actor's name once, so ranks that go on to other cases cannot bear the first one's."""
        return self.name if self.procedure.isolation is Isolation.PROCESS else f"warm, {self.reserves},"


@ray.remote(max_restarts=0, max_task_retries=0)
class Rank:
    """One rank's process. Sees one GPU."""

    def __init__(self, name: str, rank: int) -> None:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self._name = f"{name} rank {rank}"

    def __repr__(self) -> str:
        return self._name

    def hello(self, rank: int, cores: float) -> Hello:
        """Import what a trial needs, and say who this rank is."""
        from wansweep.trial.runner import introduce

        with socket.socket() as probe:
            probe.bind(("", 0))
            address = f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
        return Hello(facts=introduce(rank, cores), pid=os.getpid(), address=address)

    def run(self, task: Task, seat: Seat) -> Ending:
        """The rank's part of a trial."""
        from wansweep.trial.runner import run_rank

        return run_rank(task, seat)


class CaseTrial(Trainable):  # type: ignore[misc]
    """The controller of one trial."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Bundle 0 for the controller, one bundle a rank, all on one node."""
        order: Order = config["order"]
        rank = {"CPU": order.rank_cpus, **({"GPU": 1} if order.on_gpus else {})}
        return PlacementGroupFactory([{"CPU": CONTROLLER_CPU}, *[rank] * order.case.gpus], strategy="STRICT_PACK")

    def setup(self, config: dict[str, Any]) -> None:
        """Keep the order; nothing is started here, because Tune may build an actor and then throw it away."""
        self._order: Order = config["order"]
        self._ranks: list[Any] = []
        self._warm = False
        self._begun = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next order in the same process and placement group."""
        self._order = new_config["order"]
        self._begun = False
        return True

    def __repr__(self) -> str:
        # Tune gives a controller one trial after another, and Ray takes its name once: the ranks name the case.
        return f"controller of trials with {self._order.reserves}"

    def step(self) -> dict[str, Any]:
        """Wait for the ranks a while; the record when the trial is over, else what it is doing."""
        if not self._begun:
            self._begin()
        ended = self._wait(REPORT_EVERY_S)
        if ended is None:
            return {"done": False, "label": self._order.case.label, "doing": self._doing()}
        record = self._record(*ended)
        self._finish(record)
        return {"done": True, "record": to_json(record)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: Tune asks when a trial is done; what matters is in the record."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing, for the same reason."""

    def cleanup(self) -> None:
        """End the ranks and the sampler with the controller."""
        if self._begun and self._sampling:
            self._sampling.stop()
        self._kill()

    def _begin(self) -> None:
        """Start the ranks, or take the warm ones, and ask each who it is."""
        order = self._order
        self._begun = True
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

    def _wait(self, seconds: float) -> tuple[Outcome, str] | None:
        """How the trial ended, or null when it goes on. The first rank that fails ends it."""
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
            rest, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=SECOND_THOUGHT_S) if self._pending else ([], None)
            self._collect(rest)
            worst = min(self._failures(), key=lambda ending: (_SEVERITY.index(ending.outcome), ending.rank))
            return worst.outcome, f"{self._where(worst.rank)}{worst.reason}"
        if not self._pending:
            return Outcome.OK, ""
        if time.perf_counter() >= deadline_s:
            return (
                Outcome.TIMEOUT,
                f"{self._where(next(iter(self._pending.values())))}not done after procedure.timeout_s={timeout_s:g}",
            )
        return None

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

    def _record(self, outcome: Outcome, reason: str) -> Record:
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

    def _finish(self, record: Record) -> None:
        """Hand over the video and the samples, end ranks that are not to be used again, and clear the scratch folder."""
        if self._order.procedure.isolation is Isolation.PROCESS or record.outcome is not Outcome.OK:
            self._kill()
        folder, name = Path(self._order.run_folder), f"{record.case_id}-{record.trial}"
        if self._order.procedure.keep_video:
            _hand_over(self._task.video, folder / "videos" / f"{record.label}-{record.trial}.mp4")
        _hand_over(self._task.samples, folder / "traces" / f"{name}.jsonl")
        shutil.rmtree(self._task.scratch, ignore_errors=True)

    def _kill(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)
        self._ranks = []

    def _stages(self, rank: int) -> list[Stage]:
        return read_journal(self._task.journal(rank))

    def _open_stage(self, rank: int) -> str:
        """The innermost stage that the rank has begun and not ended."""
        begun = [stage.name for stage in self._stages(rank) if stage.duration_s is None and stage.kind is not StageKind.TOTAL_EXECUTION]
        return begun[-1] if begun else ""

    def _doing(self) -> str:
        return self._open_stage(0) or ("starting" if not self._task.journal(0).exists() else "between stages")

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
