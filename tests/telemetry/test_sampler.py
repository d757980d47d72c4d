from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import wansweep
from wansweep.telemetry.host import Tree
from wansweep.telemetry.join import by_metric, value_over
from wansweep.telemetry.samples import HOST, Missing, host_device
from wansweep.telemetry.sampling import Sampling
from wansweep.units import MIB

pytestmark = pytest.mark.alone

ROOT = Path(wansweep.__file__).parent.parent
GONE_WITHIN_S = 2.0

PARENT = """
import os, sys, time
from pathlib import Path
from wansweep.telemetry.sampling import Sampling
from wansweep.units import MIB
sampling = Sampling(out=Path(sys.argv[1]), pids=[os.getpid()])
sampling.start()
heir = os.fork() if sys.argv[2] == "heir" else 0  # holds the write end of the sampler's stdin open
if sys.argv[2] != "heir" or heir:
    print(sampling.pid, heir, flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + GONE_WITHIN_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_without_a_gpu_and_without_nvml_the_host_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with Sampling(out=tmp_path / "trace.jsonl", gpus=["GPU-1"], pids=[os.getpid()]) as sampling:
        start_s = time.monotonic()
        time.sleep(0.7)
        end_s = time.monotonic()
    series = by_metric(sampling.trace.samples)
    assert sampling.trace.errors == ()
    memory = value_over(series, device=host_device(os.getpid()), metric="host_rss_bytes", start_s=start_s, end_s=end_s)
    assert memory.value is not None
    assert memory.value > 2**20
    if sampling.trace.start is not None and sampling.trace.start.nvml is not None:
        busy = value_over(series, device="GPU-1", metric="gpu_busy_pct", start_s=start_s, end_s=end_s)
        assert busy.why is Missing.UNSUPPORTED


def test_it_leaves_itself_out_of_the_process_tree_that_started_it(tmp_path: Path) -> None:
    with Sampling(out=tmp_path / "trace.jsonl", pids=[os.getpid()]) as sampling:
        start_s = time.monotonic()
        time.sleep(0.5)
        series_end_s = time.monotonic()
        alone, both = sampling.tree().memory(), Tree(os.getpid()).memory()
    assert alone is not None
    assert both is not None
    assert both.anonymous_bytes - alone.anonymous_bytes > 4 * MIB
    sampled = value_over(
        by_metric(sampling.trace.samples), device=host_device(os.getpid()), metric="host_anonymous_bytes", start_s=start_s, end_s=series_end_s
    )
    assert sampled.value == pytest.approx(alone.anonymous_bytes, abs=2 * MIB)


def test_it_samples_on_while_one_c_call_of_the_trial_holds_the_gil(tmp_path: Path) -> None:
    with Sampling(out=tmp_path / "trace.jsonl") as sampling:
        start_s = time.monotonic()
        sum(range(60_000_000))
        end_s = time.monotonic()
    ticks = value_over(by_metric(sampling.trace.samples), device=HOST, metric="sampler_tick_s", start_s=start_s, end_s=end_s)
    assert ticks.n_samples >= (end_s - start_s) / 0.1 / 2  # a thread takes one or two


@pytest.mark.parametrize("kind", ["alone", "heir"])
def test_it_is_gone_within_2_s_when_its_trial_is_killed(tmp_path: Path, kind: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "trace.jsonl"), kind],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        sampler, heir = map(int, parent.stdout.readline().split())
        try:
            assert is_alive(sampler)
            parent.kill()
            parent.wait()
            assert wait_until_gone(sampler)
            assert kind == "alone" or is_alive(heir)
        finally:
            if heir:
                os.kill(heir, signal.SIGKILL)


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    sampling = Sampling(out=tmp_path / "trace.jsonl")
    starter = threading.Thread(target=sampling.start)
    starter.start()
    starter.join()
    time.sleep(0.5)
    assert sampling.pid is not None
    assert is_alive(sampling.pid)
    assert sampling.stop().errors == ()


def test_a_full_disk_is_an_error_in_the_trace_and_the_trial_goes_on(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sampling = Sampling(out=tmp_path / "trace.jsonl", pids=[os.getpid()])
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))  # inherited by the sampler: a write beyond it fails like a full disk
        sampling.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    start_s = time.monotonic()
    time.sleep(0.8)
    trace = sampling.stop()
    assert any("disk full" in error or "too large" in error for error in trace.errors)
    assert trace.cost is not None
    assert trace.cost.lost_samples > 0
    assert trace.samples  # what came before is there
    late = value_over(by_metric(trace.samples), device=HOST, metric="sampler_tick_s", start_s=start_s + 0.4, end_s=start_s + 0.8)
    assert late.value is None


def test_a_sampler_that_is_killed_is_an_error_in_the_trace(tmp_path: Path) -> None:
    with Sampling(out=tmp_path / "trace.jsonl") as sampling:
        assert sampling.pid is not None
        os.kill(sampling.pid, signal.SIGKILL)
        time.sleep(0.1)
    assert any("-9" in error for error in sampling.trace.errors)
    assert sampling.trace.start is not None


def test_a_folder_that_is_not_there_is_an_error_in_the_trace(tmp_path: Path) -> None:
    with Sampling(out=tmp_path / "nowhere" / "trace.jsonl") as sampling:
        pass
    assert any("No such file" in error for error in sampling.trace.errors)


def test_a_process_that_ends_while_it_is_sampled_leaves_nulls_and_no_zeros(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    with Sampling(out=tmp_path / "trace.jsonl", pids=[child.pid]) as sampling:
        child.communicate(b"\n", timeout=240)
        time.sleep(1.3)
        end_s = time.monotonic()
    series = by_metric(sampling.trace.samples)
    for metric in ("host_rss_bytes", "host_pss_bytes", "host_cpu_s"):
        value = value_over(series, device=host_device(child.pid), metric=metric, start_s=end_s - 1.0, end_s=end_s)
        assert (value.value, value.why) == (None, Missing.NO_SAMPLE)


def test_it_imports_no_torch() -> None:
    modules = ["sampler", "sampling", "join", "environment", "nvml", "gpu_reader", "host", "limits", "page_cache", "torch_probe"]
    imports = "; ".join(f"import wansweep.telemetry.{module}" for module in modules)
    heavy = "{'torch', 'polars', 'ray', 'numpy', 'diffusers'}"
    script = f"import sys; {imports}; sys.exit(' '.join({heavy} & sys.modules.keys()) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
