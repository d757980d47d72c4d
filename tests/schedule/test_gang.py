"""Gangs that end badly: one outcome that names the rank, its stage and the tail of its log; nothing is left; the next trial runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.schedule.conftest import cmdline, processes_of, ranks
from tests.schedule.stub import listening, ran, started
from tests.schedule.test_exits import KERNEL_TELLS
from wansweep.record import Outcome, Record

# On one node of two logical GPUs, one after the other.
BAD = {
    "killed": "kill 1 0.5",
    "faulted": "fault 1 0.5",
    "stopped": "stop 1 0.5",
    "out of memory": "oom 1 0.5",
    "left its collective": "exit 1 0.5",
}
# Longer than a rank that is well holds the GIL, which loading torch's libraries does for seconds where the disk is cold and cores are shared.
HANG_S = 15


# What is found by other rules, with tests of its own below. The kernel's kill needs a cgroup of our own making.
CGROUPS = Path("/sys/fs/cgroup/memory")
CAN_LIMIT = (CGROUPS / "memory.limit_in_bytes").exists() and os.access(CGROUPS, os.W_OK) and os.geteuid() == 0
MORE = {"deadlocked": "deadlock 0 0.5", **({"killed by the kernel": "hog 1 0.5"} if CAN_LIMIT else {})}


@pytest.fixture(scope="module")
def records() -> Iterator[dict[str, Record]]:
    cases = [*((label, 2, prompt) for label, prompt in {**BAD, **MORE}.items()), ("fine", 2, "sleep 0 0")]
    yield ran(cases, cluster={"gpus": 2, "exclusive": True}, procedure={"hang_s": HANG_S, "stall_s": 30})
    for group in CGROUPS.glob("wansweep-test-*"):
        with contextlib.suppress(OSError):
            group.rmdir()


def test_after_every_accident_the_next_trial_runs_and_every_trial_is_a_row(records: dict[str, Record]) -> None:
    """Each of the bad ones came as far as its step, on the GPUs of the one before, and the last one is fine."""
    assert list(records) == [*BAD, *MORE, "fine"]
    assert records["fine"].outcome is Outcome.OK
    assert records["fine"].log_tail == ()
    assert all({stage.rank for stage in record.stages} == {0, 1} for record in records.values())


@pytest.mark.parametrize(
    ("label", "outcome", "reason"),
    [
        ("killed", Outcome.CRASH, "its process died: SIGKILL" if KERNEL_TELLS else "its process died: The actor"),
        ("faulted", Outcome.CRASH, "its process died: SIGSEGV" if KERNEL_TELLS else " (SIGSEGV)"),
        ("stopped", Outcome.TIMEOUT, f"no sign of life for procedure.hang_s={HANG_S}"),
        ("out of memory", Outcome.OOM, "CUDA out of memory. Tried to allocate 20.00 GiB"),
        ("left its collective", Outcome.CRASH, "its process died: exit code 3" if KERNEL_TELLS else "its process died: The actor"),
    ],
)
def test_the_record_names_the_rank_its_stage_and_its_last_words(records: dict[str, Record], label: str, outcome: Outcome, reason: str) -> None:
    record = records[label]
    assert record.outcome is outcome
    assert record.reason.startswith("rank 1 in Step_3_Inference: ")
    assert reason in record.reason
    assert "rank 1 of 2 at work" in record.log_tail
    assert not any("rank 0" in line for line in record.log_tail)


def test_a_rank_that_lives_and_waits_for_ever_is_found_and_shows_where_it_waits(records: dict[str, Record]) -> None:
    record = records["deadlocked"]
    assert record.outcome is Outcome.TIMEOUT
    # Both wait, one for the lock; whichever began first is named.
    assert record.reason[:5] + record.reason[6:] == "rank  in Step_3_Inference: no stage began or ended for 30 s (procedure.stall_s)"
    assert any("stub_work.py" in line and "run_rank" in line for line in record.log_tail), record.log_tail


def test_what_was_missing_when_the_gpu_ran_out_is_in_the_record(records: dict[str, Record]) -> None:
    missing = records["out of memory"].shortage
    assert missing is not None
    assert (missing.of_host, missing.stage) == (False, "Step_3_Inference")
    gib = [missing.requested_bytes, missing.allocated_bytes, missing.reserved_bytes, missing.device_free_bytes]
    assert [amount and amount / 2**30 for amount in gib] == [20.0, 40.0, 42.5, 1.25]
    assert all(record.shortage is None for label, record in records.items() if record.outcome is not Outcome.OOM)


@pytest.mark.skipif(not CAN_LIMIT, reason="needs leave to make a memory cgroup")
def test_a_rank_that_the_kernel_killed_for_memory_is_an_oom_and_no_crash(records: dict[str, Record]) -> None:
    record = records["killed by the kernel"]
    assert record.outcome is Outcome.OOM
    assert "rank 1 in Step_3_Inference: the host ran out of memory: the kernel killed its process (oom_kill " in record.reason
    assert record.shortage is not None
    assert record.shortage.of_host


# A mount namespace in which a cgroup of our own looks like the node's: its memory counts nobody else's, and nobody else is killed for it.
BOXED = ("unshare", "-m", "sh", "-c", 'echo $$ > "$0/cgroup.procs" && mount --bind "$0" /sys/fs/cgroup/memory && exec "$@"')
CAN_BOX = CAN_LIMIT and shutil.which("unshare") is not None and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0


@pytest.mark.skipif(not CAN_BOX, reason="needs leave to make a memory cgroup and a mount namespace")
def test_what_rays_memory_monitor_kills_is_an_oom_of_the_host_and_the_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that took too much; and, where that is not enough, the trial's controller too, which is all that Tune sees of it."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.3")
    node = CGROUPS / f"wansweep-test-node-{os.getpid()}"
    node.mkdir()
    (node / "memory.limit_in_bytes").write_text(str(8 * 2**30))
    cases = [("swollen", 1, "swell 0 0"), ("all of it", 1, "feed 0 0"), ("fine", 1, "sleep 0 0")]
    try:
        records = ran(cases, within=(*BOXED, str(node)), cluster={"gpus": 1, "exclusive": True})
    finally:
        end_s = time.monotonic() + 10
        while node.exists() and time.monotonic() < end_s:  # what Ray leaves goes by itself
            with contextlib.suppress(OSError):
                node.rmdir()
            time.sleep(0.1)
    assert {label: record.outcome for label, record in records.items()} == {"swollen": "oom", "all of it": "oom", "fine": "ok"}
    assert records["swollen"].reason.startswith("Step_3_Inference: the host ran out of memory: Ray's memory monitor killed its process (")
    assert records["all of it"].reason.endswith("it kills from 30.0% on), its controller's")
    assert all(shortage and shortage.of_host for shortage in (records["swollen"].shortage, records["all of it"].shortage))


def test_a_log_says_why_and_gives_no_secret_away(records: dict[str, Record]) -> None:
    assert records["left its collective"].log_tail[-1] == "leaving without a word"
    assert any("OutOfMemoryError" in line for line in records["out of memory"].log_tail)
    for label in BAD:
        assert "token=*** of rank 1 in ~/models" in records[label].log_tail


def test_a_rank_that_is_killed_or_stopped_ends_the_gang_at_once(records: dict[str, Record]) -> None:
    """The others would go on for ten minutes."""
    for label, after_s in (("killed", 0.5), ("stopped", 0.5 + HANG_S)):
        assert records[label].wall_s - (records[label].startup_s or 0.0) < after_s + 30


def test_no_process_of_a_gang_is_left_when_its_record_is_there_not_even_a_stopped_one() -> None:
    with started(
        [("stopped", 2, "stop 1 0"), ("fine", 1, "sleep 0 3")], cluster={"gpus": 2, "exclusive": True}, procedure={"hang_s": 5}
    ) as sweep:
        assert sweep.stdout is not None
        deadline_s = time.monotonic() + 200
        while not (gang := ranks(below=sweep.pid)) or not any(rank.status() == psutil.STATUS_STOPPED for rank in gang):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        # As an administrator finds them in `ps`, and the dashboard's Cluster page.
        assert sorted(map(cmdline, gang)) == ["ray::Rank 0 of stopped #0", "ray::Rank 1 of stopped #0"]
        while "ray::Controller of stopped #0" not in map(cmdline, processes_of(sweep.pid)):  # but for the moments between two steps of Tune
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert any(
            "wansweep.telemetry.sampler" in title and title.endswith(" --of=stopped #0") for title in map(cmdline, processes_of(sweep.pid))
        )
        sockets = listening(psutil.Process(sweep.pid))
        assert '"label":"stopped"' in next(line for line in sweep.stdout if line.startswith("{"))
        assert not [rank for rank in gang if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE]
        assert '"outcome":"ok"' in next(line for line in sweep.stdout if line.startswith("{"))
        assert sweep.wait(timeout=240) == 0
    # What we start, nobody can reach from elsewhere: driver, Ray's own servers, its dashboard, controllers and ranks.
    assert sockets
    assert sockets <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
