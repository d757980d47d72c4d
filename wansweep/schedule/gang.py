"""The ranks of one trial at work: started, watched and ended together; whatever happens to them becomes a Record.

Lives in a trial's controller, on the node that holds the ranks, and loads no torch.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError as HostOutOfMemory
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from wansweep.record import Outcome, Record, SamplerFacts, Shortage, Stage, StageKind
from wansweep.schedule import processes
from wansweep.schedule.delivery import deliver
from wansweep.schedule.end import End, culprit
from wansweep.schedule.exits import Exits, killed_for_memory, told_to_ray
from wansweep.schedule.order import Order
from wansweep.schedule.processes import Arrival, Pulses, on_node
from wansweep.schedule.progress import Progress, gather
from wansweep.schedule.rank import Rank
from wansweep.sweep import Isolation
from wansweep.telemetry.attribute import attribute
from wansweep.telemetry.oom_kills import oom_kills
from wansweep.telemetry.sampling import Sampling
from wansweep.telemetry.tenants import Tenants, after, before, tenants
from wansweep.telemetry.trace import Trace
from wansweep.trial.stages import read_journal
from wansweep.trial.task import Ending, Hello, Seat, Task, numbered

# After a first rank fails, the others get this long to say why they did: an OOM on one rank is a broken collective on the rest.
SECOND_THOUGHT_S = 1.0
_NODE_DIED = "node has died"


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
        self._here = ray.get_runtime_context().get_node_id()
        self._arrivals: dict[int, Arrival] = {}
        self._hellos: dict[int, Hello] = {}
        self._died: set[int] = set()
        self._exits = Exits()
        self._lost: set[int] = set()
        self._pulses = Pulses()
        self._advances = Pulses()
        self._endings: list[Ending] = []
        self._sampling: Sampling | None = None
        self._killed_before = oom_kills()
        self._tenants: dict[str, Tenants] = {}
        self._device_notes: list[str] = []
        if not self._ranks:
            self._ranks = [self._new_rank(rank) for rank in range(order.case.gpus)]
        self._pending = {actor.arrive.remote(self._task.pulse(rank)): rank for rank, actor in enumerate(self._ranks)}
        self._pending |= {actor.hello.remote(rank, order.rank_cpus): rank for rank, actor in enumerate(self._ranks)}

    def _give_parts(self) -> None:
        """All ranks are there: start the node's sampler, and give each its part."""
        here = [rank for rank, arrival in self._arrivals.items() if arrival.node == self._here]
        if not self._warm:  # warm ranks are on their GPUs already
            self._tenants = tenants(self._gpus_here())
            self._device_notes = before(self._tenants, own=[self._arrivals[rank].pid for rank in here])
        self._sampling = Sampling(
            out=self._task.samples,
            gpus=self._gpus_here(),
            pids=[self._arrivals[rank].pid for rank in here],
            period_s=self._order.procedure.sample_period_s,
            of=self._order.title,
        )
        self._sampling.start()
        for rank, actor in enumerate(self._ranks):
            seat = Seat(rank=rank, world=len(self._ranks), rendezvous=self._rendezvous(), cores=self._order.rank_cpus)
            # As the process is called while it runs, in the dashboard's Cluster page, `ps` and `top`; also one that was warm.
            run = actor.run.options(name=f"Rank {rank} of {self._order.title}")
            self._pending[run.remote(self._task_of(rank), seat)] = rank

    def _gpus_here(self) -> list[str]:
        """GPUs of the ranks of this node."""
        here = [rank for rank, arrival in self._arrivals.items() if arrival.node == self._here]
        return [uuid for rank in here if (uuid := self._hellos[rank].facts.device_uuid)]

    def _rendezvous(self) -> str:
        """A file where all ranks see one: it takes no port, and nothing listens. Between nodes a port of rank 0's."""
        if self._order.one_node:
            return f"file://{self._task.scratch}/rendezvous"
        return f"tcp://{self._hellos[0].address}"

    def _task_of(self, rank: int) -> Task:
        """The task with the trial's origin on the clock of the rank's node."""
        arrival = self._arrivals[rank]
        if arrival.node == self._here:
            return self._task
        return replace(self._task, origin_s=self._origin_s - (time.perf_counter() - time.time()) + arrival.monotonic_s)

    def _new_rank(self, rank: int) -> Any:  # noqa: ANN401  (Ray's actor handles have no type)
        group = ray.util.get_current_placement_group()
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1 + rank)
        options = {"num_cpus": self._order.rank_cpus, "num_gpus": 1 if self._order.on_gpus else 0, "scheduling_strategy": place}
        return Rank.options(**options).remote(  # type: ignore[attr-defined]
            self._order.ranks_name, rank, self._order.work, self._order.one_node
        )

    def wait(self, seconds: float) -> End | None:
        """How the trial ended, or null when it goes on after that many seconds. The first rank that fails ends it."""
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
            return End(outcome=Outcome.OK)
        if (silent := self._silent()) is not None:
            reason = f"{self._where(silent)}no sign of life for procedure.hang_s={self._order.procedure.hang_s:g}"
            return End(outcome=Outcome.TIMEOUT, reason=reason, rank=silent)
        if (stalled := self._stalled()) is not None:
            reason = f"{self._where(stalled)}no stage began or ended for {self._order.procedure.stalls_after_s:g} s (procedure.stall_s)"
            return End(outcome=Outcome.TIMEOUT, reason=reason, rank=stalled)
        if time.perf_counter() >= deadline_s:
            late = min(self._pending.values())
            return End(outcome=Outcome.TIMEOUT, reason=f"{self._where(late)}not done after procedure.timeout_s={timeout_s:g}", rank=late)
        return None

    def _silent(self) -> int | None:
        """A rank of this node whose process shows no life, neither by its pulse nor by its journal; another node's files are not seen."""
        for rank in sorted(set(self._pending.values())):
            here = rank in self._arrivals and self._arrivals[rank].node == self._here
            signs = (self._task.pulse(rank), self._task.journal(rank))
            if here and self._pulses.silent_s(rank, *signs) > self._order.procedure.hang_s:
                return rank
        return None

    def _stalled(self) -> int | None:
        """A rank of this node that lives, and has written nothing to its journal for long: it waits for what never comes."""
        for rank in sorted(set(self._pending.values())):
            journal = self._task.journal(rank)
            if journal.exists() and journal.stat().st_size and self._advances.silent_s(rank, journal) > self._order.procedure.stalls_after_s:
                return rank
        return None

    def _worst(self) -> End:
        """The failure that explains the others', which are given a moment to tell theirs."""
        if self._pending:
            self._collect(ray.wait(list(self._pending), num_returns=len(self._pending), timeout=SECOND_THOUGHT_S)[0])
        worst = culprit(self._failures(), died=self._died)
        return End(outcome=worst.outcome, reason=f"{self._where(worst.rank)}{worst.reason}", rank=worst.rank, lost=worst.rank in self._lost)

    def _failures(self) -> list[Ending]:
        return [ending for ending in self._endings if ending.outcome is not Outcome.OK]

    def _collect(self, ready: list[Any]) -> None:
        """Turn what came back from ranks, or did not, into endings."""
        for reference in ready:
            rank = self._pending.pop(reference)
            try:
                answer: Arrival | Hello | Ending = ray.get(reference)
                match answer:
                    case Arrival():
                        self._arrivals[rank] = answer
                        if answer.node == self._here:
                            self._exits.hold(answer.pid)
                    case Hello():
                        self._hellos[rank] = answer
                    case Ending():
                        self._endings.append(answer)
            except HostOutOfMemory as error:
                reason = f"the host ran out of memory: {killed_for_memory(str(error)) or _first_line(error)}"
                self._endings.append(Ending(rank=rank, outcome=Outcome.OOM, reason=reason, resolved=None, shortage=Shortage(of_host=True)))
            except RayActorError as error:
                self._died.add(rank)
                if _NODE_DIED in str(error):
                    self._lost.add(rank)
                self._endings.append(self._of_the_dead(rank, error))
            except RayError as error:
                self._endings.append(Ending(rank=rank, outcome=Outcome.CRASH, reason=_first_line(error), resolved=None))

    def _of_the_dead(self, rank: int, error: RayActorError) -> Ending:
        """How a rank ended whose process is gone: killed by the kernel for its host's memory, or by who knows what."""
        here = rank in self._arrivals and self._arrivals[rank].node == self._here
        how = told_to_ray(str(error)) or (self._exits.of(self._arrivals[rank].pid) if here and rank not in self._lost else "")
        killed = oom_kills() if here and how in ("", "SIGKILL") else None
        if killed is not None and self._killed_before is not None and killed > self._killed_before:
            reason = f"the host ran out of memory: the kernel killed its process (oom_kill {self._killed_before} -> {killed})"
            return Ending(rank=rank, outcome=Outcome.OOM, reason=reason, resolved=None, shortage=Shortage(of_host=True))
        return Ending(rank=rank, outcome=Outcome.CRASH, reason=f"its process died: {how or _first_line(error)}", resolved=None)

    def record(self, end: End) -> Record:
        """What the trial leaves; ends the sampler."""
        outcome = end.outcome
        self._fetch_journals()
        self._exits.close()
        log_tail = self._log_tail(end)
        died_of = processes.fatal_signal(log_tail) if end.rank in self._died else ""
        ok = next((ending for ending in sorted(self._endings, key=lambda e: e.rank) if ending.resolved), None)
        trace = self._sampling.stop() if self._sampling else None
        stages = tuple(stage for rank in range(self._order.case.gpus) for stage in self._stages(rank))
        return Record(
            case=self._order.case,
            case_id=self._order.case.id,
            label=self._order.case.label,
            trial=self._order.trial,
            outcome=outcome,
            reason=f"{end.reason} ({died_of})" if died_of and died_of not in end.reason else end.reason,
            resolved=ok.resolved if ok and outcome is Outcome.OK else None,
            stages=self._attributed(stages, trace) if trace else stages,
            started_utc=self._started_utc,
            origin_s=self._origin_s,
            startup_s=min((stage.start_s for stage in stages), default=None),
            wall_s=time.perf_counter() - self._origin_s,
            warm=self._warm,
            node=socket.gethostname(),
            timing=ok.timing if ok else None,
            warmup_s=ok.warmup_s if ok else (),
            weights_cached=ok.weights_cached if ok else None,
            ranks=tuple(hello.facts for _, hello in sorted(self._hellos.items())),
            sampler=_sampler_facts(trace) if trace else None,
            log_tail=log_tail,
            shortage=self._shortage(end),
            device_notes=tuple(self._device_notes),
            nodes=tuple(dict.fromkeys(arrival.node for _, arrival in sorted(self._arrivals.items()))),
            earlier_attempts=self._order.earlier_attempts,
        )

    def _log_tail(self, end: End) -> tuple[str, ...]:
        """What the rank that failed wrote last; an invalid case's reason says it all."""
        if end.rank is None or end.rank not in self._arrivals or end.outcome is Outcome.INVALID:
            return ()
        arrival = self._arrivals[end.rank]
        if end.outcome is Outcome.TIMEOUT:
            on_node(arrival.node, processes.dump_stacks, arrival, otherwise=None)
        return on_node(arrival.node, processes.log_tail, arrival.logs, otherwise=())

    def _shortage(self, end: End) -> Shortage | None:
        """What was missing, of the rank that failed, and in which stage."""
        found = next((ending.shortage for ending in self._endings if ending.rank == end.rank and ending.shortage), None)
        return replace(found, stage=self._open_stage(end.rank) or None) if found and end.rank is not None else None

    def _fetch_journals(self) -> None:
        """Bring the journals of ranks on other nodes here."""
        for rank, arrival in self._arrivals.items():
            if arrival.node != self._here and (journal := on_node(arrival.node, _read, self._task.journal(rank), otherwise=b"")):
                self._task.journal(rank).write_bytes(journal)

    def _attributed(self, stages: tuple[Stage, ...], trace: Trace) -> tuple[Stage, ...]:
        """The stages with what was sampled in their windows."""
        uuids = {rank: hello.facts.device_uuid for rank, hello in self._hellos.items()}
        return attribute(
            stages,
            trace.samples,
            origin_s=self._origin_s,
            gpus={rank: uuid for rank, uuid in uuids.items() if uuid},
            pids={rank: arrival.pid for rank, arrival in self._arrivals.items()},
        )

    def finish(self, record: Record) -> tuple[Record, list[Any]]:
        """Hand over video and samples, clear the scratch folder, and end the ranks.

        Returns the record with what was left on the GPUs, and the ranks that may be used again.
        """
        folder = Path(self._order.run_folder)
        if self._order.procedure.keep_video:
            kept = folder / "videos" / f"{record.label}-{record.trial}.mp4"
            for i in range(record.case.batch):
                self._deliver_from_first(numbered(self._task.video, i), numbered(kept, i))
        self._deliver_from_first(self._task.sheet, folder / "frames" / f"{record.case_id}-{record.trial}.jpg")
        self._deliver_from_first(self._task.keepsake, folder / "drift" / f"{record.case_id}-{record.trial}.npz")
        trace = folder / "traces" / f"{record.case_id}-{record.trial}.jsonl"
        deliver(self._task.samples, trace, here=self._here, there=self._order.driver_node)
        warm = self._order.procedure.isolation is Isolation.WARM and record.outcome is Outcome.OK
        if not warm:
            self.end()
        for node in self._nodes():
            on_node(node, _remove, self._task.scratch, otherwise=None)
        if not warm:
            left = after(self._tenants, tenants(list(self._tenants)))
            record = replace(record, device_notes=(*record.device_notes, *left))
        return record, self._ranks if warm else []

    def _deliver_from_first(self, file: Path, to: Path) -> None:
        first = self._arrivals.get(0)
        deliver(file, to, here=first.node if first else self._here, there=self._order.driver_node)

    def end(self) -> None:
        """End ranks and sampler now, and see to it that they are gone."""
        for rank in self._ranks:
            ray.kill(rank)
        for node in self._nodes():
            on_node(node, processes.end, [arrival for arrival in self._arrivals.values() if arrival.node == node], otherwise=None)
        if self._sampling is not None:
            self._sampling.stop()

    def _nodes(self) -> set[str]:
        """Nodes that ranks are on, and this one."""
        return {self._here, *(arrival.node for arrival in self._arrivals.values())}

    def _stages(self, rank: int) -> list[Stage]:
        return read_journal(self._task.journal(rank))

    def _open_stage(self, rank: int) -> str:
        """The innermost stage that the rank has begun and not ended."""
        begun = [stage.name for stage in self._stages(rank) if stage.duration_s is None and stage.kind is not StageKind.TOTAL_EXECUTION]
        return begun[-1] if begun else ""

    def progress(self) -> Progress:
        """Where the trial is, for live views and metrics."""
        gpus = {rank: hello.facts.device_uuid for rank, hello in self._hellos.items()}
        pids = {rank: arrival.pid for rank, arrival in self._arrivals.items()}
        return gather(self._task, trial=self._order.trial, gpus=gpus, pids=pids)

    def _where(self, rank: int) -> str:
        """``rank 1 in Step_3_Inference: ``, as far as it is known."""
        parts = ([f"rank {rank}"] if self._order.case.gpus > 1 else []) + ([stage] if (stage := self._open_stage(rank)) else [])
        return f"{' in '.join(parts)}: " if parts else ""


def _read(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sampler_facts(trace: Trace) -> SamplerFacts:
    cost = trace.cost
    return SamplerFacts(
        cpu_s=cost.cpu_s if cost else None, wall_s=cost.wall_s if cost else None, nvml_s=cost.nvml_mean_s if cost else None, errors=trace.errors
    )


def _first_line(error: BaseException) -> str:
    """What an error says, on one line and short."""
    return " ".join(str(error).split())[:400]
