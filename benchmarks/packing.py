"""How full the packer keeps a node, foretold and real, and what running a trial costs beyond its work."""

from __future__ import annotations

import heapq
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.jobs import jobs
from wansweep.case import Case, Model, Task
from wansweep.plan.job import Job
from wansweep.plan.packing import simulate
from wansweep.record import Record
from wansweep.schedule.cluster import connect
from wansweep.schedule.tuning import run_trials
from wansweep.sweep import Cluster, Hardware, Isolation, ModelSource, Procedure, Sweep

NODE = {"node": 8.0}
CASES = 200
SEEDS = 15
TARGET = 1.15
# Of the real run: few and short, and the same work in simulation.
REAL_CASES = 16
REAL_WORK_S = 2.0
ALONE = 6


def run() -> None:
    """Print makespan over the lower bound, real over foretold makespan, and seconds that a trial costs."""
    exact, noisy, before = zip(*(_ratios(seed) for seed in range(SEEDS)), strict=True)
    print(f"{CASES} simulated cases of 1, 2, 4 and 8 GPUs on 8, three groups of weights, {SEEDS} seeds: makespan over the lower bound")
    for name, ratios in (("lengths as predicted", exact), ("lengths half to twice the predicted", noisy), ("in order, none overtakes", before)):
        print(f"  {name}: median {statistics.median(ratios):.3f}, worst {max(ratios):.3f}")
    print(f"  target under {TARGET}: {'met' if max(exact) < TARGET else 'MISSED'}")
    alone = _alone()
    print(f"a trial that does nothing, {ALONE} one after the other, medians: {alone}")
    _real()


def _ratios(seed: int) -> tuple[float, float, float]:
    drawn = jobs(seed, CASES, median_s=55.0)
    draw = random.Random(seed)
    took_s = {job.key: job.seconds * 2 ** draw.uniform(-1, 1) for job in drawn}
    exact = simulate(drawn, NODE, exclusive=False)
    noisy = simulate(drawn, NODE, exclusive=False, took_s=took_s)
    return exact.makespan_s / exact.bound_s, noisy.makespan_s / noisy.bound_s, _in_order_s(drawn) / exact.bound_s


def _in_order_s(drawn: Sequence[Job]) -> float:
    """Makespan when each starts as soon as it fits, and none before those declared before it."""
    now_s, free, ends = 0.0, 8.0, list[tuple[float, float]]()
    for job in drawn:
        while job.slots > free:
            now_s, slots = heapq.heappop(ends)
            free += slots
        free -= job.slots
        heapq.heappush(ends, (now_s + job.seconds, job.slots))
    return max(end for end, _ in ends)


class _Clock:
    """Keeps each record and when it came."""

    def __init__(self) -> None:
        self.records: list[tuple[float, Record]] = []

    def doing(self, label: str, trial: int, what: str) -> None:
        """Nothing."""

    def progress(self, now: object) -> None:
        """Not looked at."""

    def finishing(self) -> None:
        """Nothing."""

    def finished(self, record: Record) -> None:
        """Keep it."""
        self.records.append((time.perf_counter(), record))


def _alone() -> str:
    """Where the seconds of a trial without work go, beside the same worker by hand."""
    by_hand_s = statistics.median(_by_hand_s() for _ in range(3))
    clock = _swept([sleeping_case(str(n), gpus=1, seconds=0.0) for n in range(ALONE + 1)], exclusive=True)
    ends_s, records = [end for end, _ in clock.records], [record for _, record in clock.records]
    each_s = statistics.median(later - sooner for sooner, later in pairwise(ends_s))
    start_s = statistics.median(record.startup_s or 0.0 for record in records[1:])
    inside_s = statistics.median(record.wall_s - (record.startup_s or 0.0) for record in records[1:])
    return (
        f"{each_s:.2f} s from record to record; {start_s:.2f} s until its rank works (process, sampler), {inside_s:.2f} s to its record, "
        f"{each_s - start_s - inside_s:.2f} s to end it and to start the next (Tune, placement); the worker by hand {by_hand_s:.2f} s; "
        f"added {each_s - by_hand_s:.2f} s"
    )


def _by_hand_s() -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "benchmarks.sleeping", f"{folder}/journal"], check=True)
        return time.perf_counter() - begin_s


def _real() -> None:
    """The same trials foretold and run, on a Ray cluster of eight logical GPUs."""
    drawn = jobs(0, REAL_CASES, median_s=REAL_WORK_S)
    cases = [sleeping_case(job.key, gpus=job.ranks, seconds=job.seconds) for job in drawn]
    begin_s = time.perf_counter()
    clock = _swept(cases, exclusive=False)
    records = [record for _, record in clock.records]
    first_s = min(end_s - record.wall_s for end_s, record in clock.records)
    real_s = max(end_s for end_s, _ in clock.records) - first_s
    took_s = {record.case.name: record.wall_s for record in records}
    known = [Job(key=case.name, ranks=case.gpus, slots=case.gpus, seconds=took_s[case.name], group="") for case in cases]
    foretold = simulate(known, NODE, exclusive=False)
    beyond_s = statistics.mean(record.wall_s - float(record.case.prompt) for record in records)
    idle_s = (real_s - foretold.makespan_s) * sum(NODE.values()) / sum(job.slots for job in drawn)
    slots = sum(NODE.values())
    print(f"{len(records)} real trials that only sleep, on {slots:g} logical GPUs: {real_s:.1f} s; each {beyond_s:.2f} s beyond its sleep")
    print(
        f"  foretold from how long each took: {foretold.makespan_s:.1f} s; real over foretold {real_s / foretold.makespan_s:.3f}, "
        f"over the lower bound {real_s / foretold.bound_s:.3f}"
    )
    once_s = time.perf_counter() - begin_s - real_s
    print(f"  a GPU idles {idle_s:.2f} s a trial beyond what packing leaves; the cluster's start and stop take {once_s:.1f} s once")


def sleeping_case(name: str, *, gpus: int, seconds: float) -> Case:
    """A case whose ranks sleep."""
    # Its steps are what the scheduler takes for its length.
    return Case(
        model=Model.TI2V_5B,
        task=Task.T2V,
        width=256,
        height=160,
        frames=9,
        steps=max(1, round(seconds * gpus * 20)),
        shift=5.0,
        guidance=1.0,
        guidance_2=None,
        weights="tiny",
        prompt=str(seconds),
        negative_prompt="",
        name=name,
        label=name,
        gpus=gpus,
        ulysses=gpus,
    )


def _swept(cases: Sequence[Case], *, exclusive: bool) -> _Clock:
    """A sweep of sleeping ranks on a cluster of its own."""
    sweep = Sweep(
        name="sleeping",
        cases=tuple(cases),
        excluded=(),
        procedure=Procedure(repeats=1, timeout_s=600, isolation=Isolation.PROCESS, keep_video=False),
        cluster=Cluster(address="local", gpus=8, exclusive=exclusive),
        hardware=Hardware(name="cpu", gpus=8),
        models={Model.TI2V_5B: ModelSource(repo="none", revision=None, fps=16, boundary=None)},
        command="",
    )
    clock = _Clock()
    with connect(sweep.cluster) as connection, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "traces").mkdir()
        todo = [(case, 0) for case in cases]
        run_trials(sweep, todo, connection=connection, run_folder=folder, watcher=clock, work="benchmarks.sleeping")
    return clock
