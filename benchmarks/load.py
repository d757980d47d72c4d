"""A sweep of thousands of trials that do nothing, through the real driver, Tune, store and reports: trials a second, and what grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from benchmarks.memory import peak_bytes
from benchmarks.packing import sleeping_case
from wansweep.case import Model
from wansweep.publish import Publisher
from wansweep.record import Outcome, Record
from wansweep.schedule.cluster import connect
from wansweep.schedule.live import LiveView
from wansweep.schedule.progress import Progress
from wansweep.schedule.tuning import run_trials
from wansweep.store import RunFolder, create
from wansweep.sweep import Cluster, Hardware, Isolation, ModelSource, Procedure, Sweep
from wansweep.tables.results import Results
from wansweep.telemetry.environment import environment

CASES = 300
# In a fresh process each a trial costs what starting two processes costs, however many there are.
FRESH_CASES = 40
GPUS = 8
MARKS_PCT = (10, 25, 50, 75, 100)
# The driver's memory, handles and scratch files at the end over those at a tenth of the trials, where everything has been loaded once.
FLAT = 1.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """The driver when so many trials were over.

    Attributes:
        done: Trials that are over.
        since_s: Since the first trial ended.
        rss_bytes: Of the driver.
        cpu_s: CPU seconds of the driver so far.
        handles: Files and sockets that the driver has open.
        threads: Of the driver.
        processes: Below the driver: Ray, controllers, ranks, samplers.
        tree_bytes: Resident memory of the driver and all below it; pages that they share count in each.
        run_files: Files in the run folder.
        scratch_files: Files in the folder of what dies with the sweep: Ray's and Tune's.
    """

    done: int
    since_s: float
    rss_bytes: int
    cpu_s: float
    handles: int
    threads: int
    processes: int
    tree_bytes: int
    run_files: int
    scratch_files: int


class _Marker:
    """Passes on what it is told, and looks at the driver when a share of the trials is over."""

    def __init__(self, view: LiveView, total: int, run_folder: Path, scratch: Path) -> None:
        self._view = view
        self._at = sorted({max(1, total * pct // 100) for pct in MARKS_PCT})
        self._run_folder, self._scratch = run_folder, scratch
        self._me = psutil.Process()
        self._began_s = 0.0
        self.done = 0
        self.marks: list[Mark] = []

    def doing(self, label: str, trial: int, what: str) -> None:
        self._view.doing(label, trial, what)

    def progress(self, now: Progress) -> None:
        self._view.progress(now)

    def finishing(self) -> None:
        self._view.finishing()

    def finished(self, record: Record) -> None:
        self._view.finished(record)
        self.done += 1
        self._began_s = self._began_s or time.perf_counter()
        if self.done in self._at:
            self.marks.append(self._mark())

    def _mark(self) -> Mark:
        cpu, below = self._me.cpu_times(), self._me.children(recursive=True)
        rss_bytes = self._me.memory_info().rss
        return Mark(
            done=self.done,
            since_s=time.perf_counter() - self._began_s,
            rss_bytes=rss_bytes,
            cpu_s=cpu.user + cpu.system,
            handles=self._me.num_fds(),
            threads=self._me.num_threads(),
            processes=len(below),
            tree_bytes=rss_bytes + sum(map(_rss_bytes, below)),
            run_files=_files(self._run_folder),
            scratch_files=_files(self._scratch),
        )


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _files(folder: Path) -> int:
    """How many lie below; folders come and go meanwhile, which `os.walk` bears and `Path.rglob` does not."""
    return sum(len(files) for _, _, files in os.walk(folder))


def run(cases: int = CASES) -> None:
    """Print trials a second, what a trial costs the driver, and how flat the driver stays: with processes kept, and with a fresh one each."""
    for isolation, count in ((Isolation.WARM, cases), (Isolation.PROCESS, min(cases, FRESH_CASES))):
        with tempfile.TemporaryDirectory(prefix="wansweep-load-") as reports:
            command = [sys.executable, "-m", "benchmarks.load", reports, str(count), str(isolation)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        _tell(count, isolation, [Mark(**mark) for mark in found["marks"]], found["end"])


def _tell(count: int, isolation: Isolation, marks: Sequence[Mark], end: dict[str, Any]) -> None:
    first, last = marks[0], marks[-1]
    print(f"{count} trials that do nothing on {GPUS} logical GPUs, isolation={isolation}: {end['ok']} ok, {end['rows']} rows in the summary")
    cost_s = (last.cpu_s - first.cpu_s) / (last.done - first.done)
    print(f"  {(last.done - 1) / last.since_s:.2f} trials a second; {1000 * cost_s:.0f} ms CPU of the driver each, reports included")
    for mark in marks:
        files = f"{mark.run_files} files in the run folder, {mark.scratch_files} in scratch"
        memory = f"driver {mark.rss_bytes / 1e6:.0f} MB, all processes {mark.tree_bytes / 1e9:.1f} GB"
        print(f"  at {mark.done}: {memory}; {mark.handles} handles, {mark.threads} threads, {mark.processes} processes; {files}")
    ratios = {name: getattr(last, name) / getattr(first, name) for name in ("rss_bytes", "handles", "scratch_files")}
    told = ", ".join(f"{name.removesuffix('_bytes')} {ratio:.2f}" for name, ratio in ratios.items())
    print(f"  end over a tenth: {told} (target at most {FLAT}: {'met' if max(ratios.values()) <= FLAT else 'MISSED'})")
    large = {name: size for name, size in end["sizes_bytes"].items() if name.startswith(("report", "trace"))}
    sizes = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in large.items())
    rendered = f"rendered {end['renders']} times, {100 * end['render_share']:.0f} % of the time, the last in {end['rendered_s']:.1f} s: {sizes}"
    print(f"  peak of the driver {end['peak_bytes'] / 1e6:.0f} MB; {rendered}")


class _Timed(Publisher):
    """Keeps how long each rendering took."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.took_s: list[float] = []

    def render(self) -> Results:
        begin_s = time.perf_counter()
        results = super().render()
        self.took_s.append(time.perf_counter() - begin_s)
        return results


def drive(reports: Path, cases: int, isolation: Isolation) -> tuple[list[Mark], dict[str, Any]]:
    """Run the sweep in this process, which is its driver."""
    sweep = Sweep(
        name="load",
        cases=tuple(replace(sleeping_case(f"case_{n}", gpus=1, seconds=0.0), seed=n) for n in range(cases)),
        excluded=(),
        procedure=Procedure(repeats=1, timeout_s=600, isolation=isolation, keep_video=False),
        cluster=Cluster(address="local", gpus=GPUS, exclusive=False),
        hardware=Hardware(name="cpu", gpus=GPUS),
        models={Model.TI2V_5B: ModelSource(repo="none", revision=None, fps=16, boundary=None)},
        command="wansweep",  # none of its command lines makes this sweep
    )
    folder = create(reports, sweep, environment())
    publisher = _Timed(folder)
    todo = [(case, 0) for case in sweep.cases]
    with (
        connect(sweep.cluster) as connection,
        LiveView(total=len(todo), title=sweep.name, on_record=publisher.add, file=folder.live) as view,
    ):
        marker = _Marker(view, len(todo), folder.path, connection.scratch)
        run_trials(sweep, todo, connection=connection, run_folder=str(folder.path.resolve()), watcher=marker, work="benchmarks.sleeping")
    renders, meanwhile_s = len(publisher.took_s), sum(publisher.took_s)
    results = publisher.render()
    end = {
        "rows": results.summary.height,
        "ok": results.summary.filter(pl.col("outcome") == str(Outcome.OK)).height,
        "renders": renders + 1,
        "render_share": meanwhile_s / marker.marks[-1].since_s,
        "rendered_s": publisher.took_s[-1],
        "peak_bytes": peak_bytes(),
        "sizes_bytes": {path.name: path.stat().st_size for path in folder.path.iterdir() if path.is_file()},
    }
    return marker.marks, end


if __name__ == "__main__":
    marks, end = drive(Path(sys.argv[1]), int(sys.argv[2]), Isolation(sys.argv[3]))
    print(json.dumps({"marks": [asdict(mark) for mark in marks], "end": end}))
