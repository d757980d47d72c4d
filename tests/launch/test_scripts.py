"""The shell scripts at work: on this machine, and under programs that play Slurm with two nodes of one CPU on it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import psutil
import pytest

from tests.runs import ROOT
from tests.schedule.conftest import processes_of
from tests.schedule.stub import listening

FOUR = ("+sweep=four", "--config-dir", str(ROOT / "tests" / "conf"), "procedure.isolation=warm")
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$STUB_LOG"
if [[ $1 == show ]]; then printf '%s\\n' node1 node2; fi
"""
# Leaves its own options out and runs the rest here, whatever node was asked for.
SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$STUB_LOG"
while [[ $1 == --* ]]; do shift; done
if [[ $* == *hostname* ]]; then echo "${STUB_ADDRESSES:-127.0.0.1}"; exit; fi
exec "$@"
"""
# In place of Ray: a head that stays, and workers that end as they are told; whoever asks finds the head alone.
RAY = """#!/usr/bin/env bash
if [[ $* == *--head* ]]; then exec sleep 300; fi
eval "$STUB_WORKER"
"""
ASKED = """#!/usr/bin/env bash
[[ $4 == 1 ]]
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH: this checkout's wansweep, and the stubs of Slurm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    texts = {"scontrol": SCONTROL, "srun": SRUN, "wansweep": f'#!/usr/bin/env bash\nexec "{sys.executable}" -m wansweep "$@"\n'}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@contextmanager
def script(name: str, *arguments: str, programs: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The script in the background; what it started is ended with the ``with``."""
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **environment}
    command = ["bash", str(ROOT / "launch" / name), *arguments]
    with subprocess.Popen(command, cwd=programs.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            for member in processes_of(process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()


def quiet_port() -> int:
    """A port below those that the kernel hands out, so that nobody is given it before Ray takes it."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def records(folder: Path) -> list[Path]:
    return sorted(folder.rglob("records/*.json"))


def wait_for_records(folder: Path, count: int, process: subprocess.Popen[str], *, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while len(records(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no record came"
        time.sleep(0.2)


def test_a_slurm_job_spans_its_nodes_stops_in_order_at_its_limit_and_goes_on_when_requeued(programs: Path, tmp_path: Path) -> None:
    job = str(100_000 + quiet_port())
    log = tmp_path / "slurm.log"
    slurm = {
        "SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_ON_NODE": "1", "SLURM_SUBMIT_DIR": str(tmp_path),
        "STUB_LOG": str(log),
    }  # fmt: skip
    reports = tmp_path / "reports" / f"slurm-{job}"
    with script("slurm.sbatch", *FOUR, programs=programs, **slurm) as first:
        wait_for_records(reports, 1, first)
        family = processes_of(first.pid)
        first.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@300 has Slurm do it
        _, err = first.communicate(timeout=240)
    assert first.returncode == 130, err
    assert "Ray joined: 2 CPUs, no GPU" in err
    calls = log.read_text().splitlines()
    assert calls[-1] == f"scontrol requeue {job}"
    starts = [call for call in calls if " ray start " in call]
    assert ["--nodelist=node1" in starts[0] and "--head" in starts[0], "--nodelist=node2" in starts[1] and "--address=" in starts[1]] == [
        True,
        True,
    ]
    assert not psutil.wait_procs([p for p in family if p.is_running()], timeout=120)[1]
    assert not Path(f"/tmp/ray-{job}").exists()
    before = {path.name: path.read_bytes() for path in records(reports)}
    assert 1 <= len(before) < 4
    with script("slurm.sbatch", *FOUR, programs=programs, SLURM_RESTART_COUNT="1", **slurm) as second:
        out, err = second.communicate(timeout=360)
    assert second.returncode == 0, err
    (folder,) = {path.parent.parent for path in records(reports)}
    assert out.splitlines()[-1] == str(folder)
    assert len(records(reports)) == 4
    assert {name: (folder / "records" / name).read_bytes() for name in before} == before
    assert pl.read_csv(folder / "summary.csv")["outcome"].to_list() == ["ok"] * 4


def slurm_without_ray(programs: Path, **more: str) -> dict[str, str]:
    """The environment of a job of two nodes where Ray is a stub."""
    for name, text in {"ray": RAY, "python": ASKED}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {
        "SLURM_JOB_ID": str(100_000 + quiet_port()), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_SUBMIT_DIR": str(programs.parent),
        "STUB_LOG": str(programs.parent / "slurm.log"), **more,
    }  # fmt: skip


def test_a_slurm_job_whose_second_node_has_no_ray_says_so_and_ends(programs: Path, tmp_path: Path) -> None:
    slurm = slurm_without_ray(programs, STUB_WORKER="exit 1", STUB_ADDRESSES="fe80::1 127.0.1.1\n10.1.0.7 172.17.0.1 fd00::2")
    with script("slurm.sbatch", *FOUR, programs=programs, **slurm) as job:
        _, err = job.communicate(timeout=240)
    assert job.returncode == 2, err
    assert "Ray did not come up on 2 of 2 nodes, the first at 10.1.0.7:" in err
    calls = (tmp_path / "slurm.log").read_text().splitlines()
    assert sum(" ray start " in call and "--nodelist=node2" in call for call in calls) == 4  # one, and three more
    assert calls[-1].endswith(f"rm -rf /tmp/ray-{slurm['SLURM_JOB_ID']}")  # on every node, once Ray is gone
    assert "requeue" not in "".join(calls)


def test_a_slurm_job_that_is_cancelled_before_its_sweep_begins_ends(programs: Path, tmp_path: Path) -> None:
    slurm = slurm_without_ray(programs, STUB_WORKER="exec sleep 300")
    with script("slurm.sbatch", *FOUR, programs=programs, **slurm) as job:
        while "--address=" not in ((tmp_path / "slurm.log").read_text() if (tmp_path / "slurm.log").exists() else ""):
            assert job.poll() is None, job.communicate()
            time.sleep(0.1)
        family = processes_of(job.pid)
        job.send_signal(signal.SIGTERM)
        _, err = job.communicate(timeout=240)
    assert job.returncode == 143, err
    assert not psutil.wait_procs([p for p in family if p.is_running()], timeout=120)[1]


def test_the_local_script_runs_sweeps_one_after_the_other_on_one_cluster_and_stops_it(programs: Path, tmp_path: Path) -> None:
    one = (*FOUR, "sweep.axes.seed=[1]", f"reports={tmp_path / 'reports'}")
    ray = {"RAY_PORT": str(quiet_port()), "RAY_START_ARGS": f"--num-cpus=2 --dashboard-port={quiet_port()}"}
    with script("local.sh", *one, "--", *one, "base.steps=3", programs=programs, **ray) as sweeps:
        wait_for_records(tmp_path / "reports", 1, sweeps)
        family = processes_of(sweeps.pid)
        sockets = listening(psutil.Process(sweeps.pid))
        _, err = sweeps.communicate(timeout=300)
    assert sweeps.returncode == 0, err
    # GCS, raylet, dashboard, agents, workers, driver: nobody can reach them from elsewhere.
    assert sockets
    assert sockets <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert err.count("Ray joined: 2 CPUs, no GPU") == 2
    assert len(records(tmp_path / "reports")) == 2
    assert not psutil.wait_procs([p for p in family if p.is_running()], timeout=120)[1]


def test_the_local_script_says_so_when_ray_does_not_start(programs: Path) -> None:
    with script("local.sh", *FOUR, programs=programs, RAY_PORT=str(quiet_port()), RAY_START_ARGS="--num-cpus=none") as sweeps:
        _, err = sweeps.communicate(timeout=240)
    assert sweeps.returncode == 2
    assert "Ray did not start on port" in err
    assert "RAY_PORT=N" in err


def test_the_local_script_hands_a_sigterm_to_its_sweep_and_waits_for_it(programs: Path) -> None:
    port = str(quiet_port())
    stubs = {
        "ray": f'exec "{sys.executable}" -m http.server --bind 127.0.0.1 {port}\n',
        "python": "exit 0\n",
        "wansweep": 'trap "echo the report is written; exit 130" TERM\necho running\nwhile sleep 0.1; do :; done\n',
    }
    for name, text in stubs.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (programs / name).chmod(0o755)
    with script("local.sh", "+sweep=quick", "--", "+sweep=offload", programs=programs, RAY_PORT=port) as sweeps:
        assert sweeps.stdout
        assert sweeps.stdout.readline() == "running\n"
        family = processes_of(sweeps.pid)
        sweeps.send_signal(signal.SIGTERM)
        out, _ = sweeps.communicate(timeout=240)
    assert (out, sweeps.returncode) == ("the report is written\n", 130)  # and the second sweep does not begin
    assert not psutil.wait_procs([p for p in family if p.is_running()], timeout=120)[1]


def test_the_local_script_takes_no_port_where_another_ray_may_be(programs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with script("local.sh", *FOUR, programs=programs, RAY_PORT=str(port)) as sweeps:
            _, err = sweeps.communicate(timeout=240)
    assert sweeps.returncode == 2
    assert f"something listens on port {port}" in err
    assert "RAY_PORT=N" in err
