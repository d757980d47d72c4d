"""Nothing lost: sweeps of stub trials through the real driver, Ray and store, whose processes are killed. `--kills 20` is the long form."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
import pytest

from tests.runs import ROOT
from tests.schedule.conftest import cmdline, processes_of, ranks
from wansweep.publish import read_parquet
from wansweep.record import Outcome
from wansweep.store import RunFolder

CONF = ROOT / "tests" / "conf"
END_S = 200


@dataclass(frozen=True, kw_only=True)
class Stub:
    """A command line of the program with stub work.

    Attributes:
        arguments: Without ``resume=``.
        reports: Where its run folders go.
        ledger: A line for each trial that began.
    """

    arguments: tuple[str, ...]
    reports: Path
    ledger: Path

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "tests.schedule.stub_driver", "run", *self.arguments, *more]

    @contextmanager
    def started(self, *more: str, process_group: int | None = None) -> Iterator[subprocess.Popen[str]]:
        """In the background; ended with the ``with``."""
        pipe = subprocess.PIPE
        with subprocess.Popen(self.command(*more), cwd=ROOT, stdout=pipe, stderr=pipe, text=True, process_group=process_group) as driver:
            try:
                yield driver
            finally:
                driver.kill()

    def ran(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*more), cwd=ROOT, capture_output=True, text=True, timeout=END_S, check=False)

    @property
    def folder(self) -> RunFolder:
        """The newest run folder."""
        return RunFolder(path=max(self.reports.glob("thirty/*")))

    @property
    def begun(self) -> list[str]:
        """Case ids of the trials that began, in order."""
        return self.ledger.read_text().split() if self.ledger.exists() else []


def stub(reports: Path, address: str, *, cases: int, seconds: float | Path = 0.1, more: tuple[str, ...] = ()) -> Stub:
    """Trials that take so long, or until that file is there."""
    ledger = reports / "ledger"
    arguments = (
        *("+sweep=thirty", "--config-dir", str(CONF), f"sweep.axes.seed=[{','.join(map(str, range(cases)))}]", f"reports={reports}"),
        *(f"base.prompt='{ledger} {seconds}'", f"cluster.address={address}", "cluster.exclusive=true", "procedure.isolation=warm", *more),
    )
    return Stub(arguments=arguments, reports=reports, ledger=ledger)


def files(folder: RunFolder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.records.glob("*.json")}


def wait_for(what: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    """Until it is so, or the driver has ended."""
    end_s = time.monotonic() + END_S
    while not what() and driver.poll() is None:
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.02)


class Reader(threading.Thread):
    """Reads all that a folder holds again and again while others write it, and notes what was not whole."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.torn: list[str] = []
        self.looks = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            self.look()

    def look(self) -> None:
        self.looks += 1
        records, unreadable = self.folder.read()
        self.torn += [f"{bad.name}: {bad.why}" for bad in unreadable]
        if len({(record.case_id, record.trial) for record in records}) != len(records):
            self.torn.append("a record twice")
        parsers = {
            "summary.parquet": lambda file: read_parquet(file).height,
            "stages.parquet": lambda file: read_parquet(file).height,
            "trace.json": lambda file: json.loads(file.read_text())["traceEvents"],
            "plan.json": lambda file: json.loads(file.read_text()),
            "report.md": lambda file: file.read_text().index("# Environment"),
            "report.html": lambda file: file.read_text().index("</html>"),
        }
        for name, parse in parsers.items():
            try:
                parse(self.folder.path / name)
            except FileNotFoundError:
                continue
            except Exception as error:  # noqa: BLE001  (whatever a torn file makes of its parser)
                self.torn.append(f"{name}: {error}")
        for trace in self.folder.traces.glob("*.parquet"):
            read_parquet(trace)


def without_times(folder: RunFolder) -> str:
    """The report, without what a clock, a process number or a warm process has a part in."""
    text = (folder.path / "report.md").read_text()
    text = re.sub(r"^- \*\*(Measured|Repeats|Memory|n/a)\*\*: .*$", r"- **\1**: #", text, flags=re.MULTILINE)
    text = re.sub(r"(fresh|warm) process", "# process", text)
    # The stub's stages are always the same; what was sampled in them is not, as the columns of CPU and host memory.
    return re.sub(r"^(\| \w+ \| [\d.]+ \| n/a \|) \S+ \| \S+ \|", r"\1 # | # |", text, flags=re.MULTILINE)


TIMED = ["startup_s", "cpu_pct", "peak_host_bytes", "warm", "left_out", "advice"]


def columns_without_times(folder: RunFolder) -> pl.DataFrame:
    return pl.read_parquet(folder.path / "summary.parquet").drop(TIMED, strict=False)


def test_a_driver_killed_at_random_moments_loses_no_record_doubles_none_and_ends_in_the_same_report(
    ray_address: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kills: int = request.config.getoption("--kills")
    moments = random.Random(kills)
    sweep = stub(tmp_path, ray_address, cases=10 + kills, seconds=0.3)
    whole = sweep.ran()
    assert whole.returncode == 0, whole.stderr
    unharmed = sweep.folder
    sweep.ledger.unlink()

    killed = 0
    reader: Reader | None = None
    while killed < kills:
        finished = files(sweep.folder) if reader else {}
        began = len(sweep.begun)
        with sweep.started(*([f"resume={sweep.folder.path}"] if reader else [])) as driver:
            if reader is None:
                while sweep.folder.path == unharmed.path:
                    time.sleep(0.02)
                reader = Reader(sweep.folder)
                reader.start()
            # In the middle of anything: the start, a trial, or what follows a record.
            match moments.choice(["start", "trial", "record"]):
                case "start":
                    time.sleep(moments.uniform(0.0, 3.0))
                case "trial":
                    wait_for(lambda began=began: len(sweep.begun) > began, driver)
                    time.sleep(moments.uniform(0.0, 0.4))
                case _:
                    wait_for(lambda finished=finished: len(files(sweep.folder)) > len(finished), driver)
                    time.sleep(moments.uniform(0.0, 0.4))
            killed += driver.poll() is None
            driver.kill()
            driver.wait()
        after = files(sweep.folder)
        assert {name: after[name] for name in finished} == finished, "a finished record changed or is lost"
        assert not {f"{id_}-0.json" for id_ in sweep.begun[began:]} & finished.keys(), "a finished trial ran again"
        if len(after) == 10 + kills:
            break
    assert reader is not None
    last = sweep.ran(f"resume={sweep.folder.path}")
    assert last.returncode == 0, last.stderr
    reader.over.set()
    reader.join()
    reader.look()
    print(f"killed {killed} times, {len(sweep.begun)} trials begun for {10 + kills}, read {reader.looks} times")
    assert reader.torn == []
    assert killed >= kills - 1
    assert len(files(sweep.folder)) == 10 + kills
    assert not [file for file in sweep.folder.path.rglob(".*") if file.is_file()]
    assert columns_without_times(sweep.folder).equals(columns_without_times(unharmed))
    assert without_times(sweep.folder) == without_times(unharmed)


def test_a_sigterm_lets_running_trials_finish_within_the_grace_and_starts_no_more(ray_address: str, tmp_path: Path) -> None:
    sweep = stub(tmp_path, ray_address, cases=4, seconds=3, more=("cluster.grace_s=60",))
    with sweep.started() as driver:
        wait_for_line(driver, ": starting")
        wait_for_begun(sweep, 1)
        driver.send_signal(signal.SIGTERM)
        out, err = driver.communicate(timeout=END_S)
    assert (driver.returncode, out.splitlines()[-1]) == (130, str(sweep.folder.path)), err
    assert pl.read_csv(sweep.folder.path / "summary.csv")["outcome"].to_list() == ["ok", None, None, None]
    assert len(sweep.begun) == 1


def test_a_trial_that_outlasts_the_grace_is_stopped_and_is_run_by_the_resume(ray_address: str, tmp_path: Path) -> None:
    sweep = stub(tmp_path, ray_address, cases=2, seconds=500, more=("cluster.grace_s=1",))
    with sweep.started() as driver:
        wait_for_begun(sweep, 1)
        sent_s = time.monotonic()
        driver.send_signal(signal.SIGTERM)
        out, err = driver.communicate(timeout=END_S)
        assert time.monotonic() - sent_s < 25, "a batch system kills after 30 s"
    assert (driver.returncode, out.splitlines()[-1]) == (130, str(sweep.folder.path)), err
    assert "Traceback" not in err
    assert "2 not run yet" in sweep.folder.report.read_text()
    assert sweep.folder.read() == ([], [])
    psutil.wait_procs(ranks(), timeout=120)
    assert not ranks()


def test_a_sigterm_before_anything_runs_is_exit_code_130_too(ray_address: str, tmp_path: Path) -> None:
    sweep = stub(tmp_path, ray_address, cases=2)
    with sweep.started() as driver:
        wait_for_line(driver, "Ray joined")
        driver.send_signal(signal.SIGTERM)
        _, err = driver.communicate(timeout=END_S)
    assert driver.returncode == 130, err
    assert "Traceback" not in err


def test_a_sigterm_to_the_whole_job_leaves_ray_to_its_driver(tmp_path: Path) -> None:
    sweep = stub(tmp_path, "local", cases=3, seconds=3, more=("cluster.grace_s=60",))
    with sweep.started(process_group=0) as driver:
        wait_for_begun(sweep, 1)
        family = processes_of(driver.pid)
        os.killpg(driver.pid, signal.SIGTERM)
        out, err = driver.communicate(timeout=END_S)
    assert (driver.returncode, out.splitlines()[-1]) == (130, str(sweep.folder.path)), err
    assert pl.read_csv(sweep.folder.path / "summary.csv")["outcome"].to_list() == ["ok", None, None]
    assert psutil.wait_procs(family, timeout=120)[1] == []


def test_a_killed_sampler_costs_figures_and_no_trial(ray_address: str, tmp_path: Path) -> None:
    sweep = stub(tmp_path, ray_address, cases=1, seconds=2)
    with sweep.started() as driver:
        wait_for_begun(sweep, 1)
        samplers = [p for p in processes_of(psutil.Process().pid) if "wansweep.telemetry.sampler" in cmdline(p)]
        assert samplers
        for sampler in samplers:
            sampler.kill()
        out, err = driver.communicate(timeout=END_S)
    assert driver.returncode == 0, err
    ((record,), _) = RunFolder(path=Path(out.splitlines()[-1])).read()
    assert record.outcome is Outcome.OK
    assert record.sampler is not None
    assert any("ended with -9" in error for error in record.sampler.errors), record.sampler


def test_a_driver_whose_raylet_is_killed_loses_nothing_recorded_and_can_be_resumed(tmp_path: Path, ray_address: str) -> None:
    # A fresh process a trial: warm ones would go on without their raylet for a while, and end well.
    alone, joined = (stub(tmp_path, address, cases=3, seconds=1, more=("procedure.isolation=process",)) for address in ("local", ray_address))
    with alone.started() as driver:
        wait_for_begun(alone, 2)
        family = processes_of(driver.pid)
        (raylet,) = (p for p in family if p.name() == "raylet")
        before = files(alone.folder)
        raylet.kill()
        _, err = driver.communicate(timeout=END_S)
    assert driver.returncode == 1, err
    assert ": crash (" in err
    assert before.items() <= files(alone.folder).items()
    psutil.wait_procs(family, timeout=120)
    done = joined.ran(f"resume={alone.folder.path}")
    assert done.returncode == 0, done.stderr
    assert before.items() <= files(alone.folder).items()
    assert pl.read_csv(alone.folder.path / "summary.csv")["outcome"].to_list() == ["ok"] * 3


def test_two_sweeps_at_once_on_one_cluster_and_two_resumes_of_one_folder_keep_apart(ray_address: str, tmp_path: Path) -> None:
    """Two that start at once take two folders of their own; a third that wants one of them is sent away, whoever reads is not."""
    gate = tmp_path / "gate"
    sweep = stub(tmp_path, ray_address, cases=3, seconds=gate, more=("cluster.exclusive=false",))
    with sweep.started() as one, sweep.started() as other:
        wait_for_begun(sweep, 2)
        folders = sorted(tmp_path.glob("thirty/*"))
        assert len(folders) == 2
        owners = {one.pid, other.pid}
        for folder in folders:
            refused = sweep.ran(f"resume={folder}")
            assert refused.returncode == 2
            told = re.fullmatch(rf"wansweep: {folder}: another wansweep \(pid (\d+) on {socket.gethostname()}, since .*\n", refused.stderr)
            assert told, refused.stderr
            owners.remove(int(told[1]))
        read = subprocess.run(
            [sys.executable, "-m", "wansweep", "report", str(folders[0])], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (read.returncode, "not run yet" in read.stdout) == (0, True), read.stderr
        gate.touch()
        for driver in (one, other):
            _, err = driver.communicate(timeout=END_S)
            assert driver.returncode == 0, err
    for folder in folders:
        assert pl.read_csv(folder / "summary.csv")["outcome"].to_list() == ["ok"] * 3
        assert not (folder / ".lock").exists()


def wait_for_line(driver: subprocess.Popen[str], text: str) -> None:
    assert driver.stderr is not None
    assert any(text in line for line in driver.stderr), f"ended without {text!r}"


def wait_for_begun(sweep: Stub, count: int) -> None:
    end_s = time.monotonic() + END_S
    while len(sweep.begun) < count:
        assert time.monotonic() < end_s, "no trial began"
        time.sleep(0.05)
