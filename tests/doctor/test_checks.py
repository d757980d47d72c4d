"""Each check on what it is handed: machines that are not this one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs import ROOT
from wansweep.case import Model, Task
from wansweep.doctor import gpus, levers, memory, software, storage
from wansweep.doctor.finding import Finding, State
from wansweep.levers import Attention, Offload, Quant
from wansweep.plan.architecture import ARCHITECTURES
from wansweep.telemetry.limits import HostLimits
from wansweep.telemetry.nvml import Driver, Gpu
from wansweep.trial.ability import Ability, Asking, Device, Torch
from wansweep.units import GIB

H200 = Gpu(
    uuid="GPU-1", name="NVIDIA H200", memory_bytes=141 * 10**9, compute_capability="9.0", ecc=True, mig=False, persistence=True,
    power_limit_w=700.0, pcie_gen=5, pcie_width=16, pcie_gen_max=5, pcie_width_max=16, sm_clock_max_mhz=1980, mem_clock_max_mhz=3201, gpm=True,
)  # fmt: skip
SEEN = Device(uuid="GPU-1", name="NVIDIA H200", total_bytes=140 * 10**9, capability="9.0")
TORCH = Torch(version="2.13.0+cu130", cuda="13.0", devices=(SEEN,), architectures=("sm_90",))


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_gpu_that_both_see_is_told_once_with_both_memories() -> None:
    finding = only(list(gpus.gpus((H200,), None, TORCH)))
    assert (finding.state, finding.what) == (State.OK, "GPU 0")
    assert finding.detail == "NVIDIA H200, 131.3 GiB, GPU-1; torch sees 130.4 GiB of it, compute capability 9.0"


@pytest.mark.parametrize(
    ("torch", "visible", "told"),
    [
        (replace(TORCH, version="2.13.0+cpu", cuda=None, devices=()), None, "is a CPU build"),
        (replace(TORCH, devices=(), refusal="The NVIDIA driver on your system is too old"), None, "driver on your system is too old"),
        (replace(TORCH, devices=()), "", "CUDA_VISIBLE_DEVICES= hides it"),
        (replace(TORCH, devices=(replace(SEEN, refusal="no kernel image is available"),)), None, "no kernel image is available"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_a_problem_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, torch: Torch, visible: str | None, told: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    finding = only(list(gpus.gpus((H200,), None, torch)))
    assert finding.state is State.PROBLEM
    assert told in finding.detail
    assert finding.fix


def test_a_gpu_that_one_side_alone_sees_is_told() -> None:
    stranger = replace(TORCH, devices=(SEEN, replace(SEEN, uuid="GPU-2")))
    _, other = gpus.gpus((H200,), None, stranger)
    assert (other.what, other.state) == ("GPU-2", State.WARN)


def test_a_card_that_is_partitioned_is_a_problem() -> None:
    assert only(list(gpus.gpus((replace(H200, mig=True),), None, TORCH))).fix.endswith("nvidia-smi -i 0 -mig 0")


@pytest.mark.parametrize(("can", "state"), [("12.8", State.PROBLEM), ("13.0", State.OK), ("13.1", State.OK)])
def test_a_driver_older_than_torchs_cuda_is_a_problem(can: str, state: State) -> None:
    assert only(list(gpus.driver((H200,), Driver(version="580.1", cuda=can), TORCH))).state is state


def test_a_driver_of_an_older_minor_version_is_a_warning_and_persistence_another() -> None:
    fit, persistence = gpus.driver((replace(H200, persistence=False),), Driver(version="580.1", cuda="13.0"), replace(TORCH, cuda="13.2"))
    assert (fit.state, persistence.state, persistence.fix) == (State.WARN, State.WARN, "sudo nvidia-smi -pm 1")


def test_every_lever_that_ships_is_tried() -> None:
    assert {f"attention={name}" for name in Attention} <= set(levers.LEVERS)
    assert {f"offload={name}" for name in Offload} <= set(levers.LEVERS)
    assert {f"quant={name}" for name in Quant} - {"quant=none", "quant=gguf"} <= set(levers.LEVERS)
    assert set(levers.LEVERS) >= levers.VITAL


@pytest.mark.parametrize(
    ("why", "fix"),
    [
        ("Xformers Attention backend 'xformers' is not usable because of missing package", "pip install xformers"),
        ("Sage Attention backend '_sage_qk_int8_pv_fp16_triton' is not usable because of missing package", "pip install sageattention"),
        ("Backend 'sage_hub' is not usable because the `kernels` package isn't available.", "pip install -U kernels"),
        ("InvalidCxxCompiler: No working C++ compiler found", "apt-get install g++"),
        ("fatal error: Python.h: No such file or directory", "apt-get install python3-dev"),
        ("No module named 'torchao'", "pip install 'wansweep[quant]'"),
        ("something nobody has seen", "python -m wansweep.trial.trying attention=x"),
    ],
)
def test_what_a_library_lacks_has_a_fix_to_paste(why: str, fix: str) -> None:
    assert fix in levers.fix_for(Ability(lever="attention=x", runs=False, why=why))


def test_a_vital_lever_that_does_not_run_is_a_problem_and_another_is_not() -> None:
    vital, other = levers.levers([Ability(lever=lever, runs=False, why="?") for lever in ("attention=native", "attention=sage")])
    assert (vital.state, other.state) == (State.PROBLEM, State.NOT_HERE)


KILLER = """
import os, signal, sys, time
for lever in sys.argv[1:]:
    print('{"said": "trying", "lever": "%s"}' % lever, flush=True)
    print("a library's chatter", flush=True)
    if lever == "b=1": os.kill(os.getpid(), signal.SIGSEGV)
    if lever == "c=1": time.sleep(60)
    print('{"said": "ability", "lever": "%s", "runs": true}' % lever, flush=True)
"""


def test_a_lever_that_kills_or_hangs_its_process_is_told_and_the_rest_are_tried() -> None:
    asking = Asking(["a=1", "b=1", "c=1", "d=1"], command=[sys.executable, "-c", KILLER])
    try:
        found = {ability.lever: ability for ability in asking.answers(timeout_s=5) if isinstance(ability, Ability)}
    finally:
        asking.close()
    assert {lever: ability.runs for lever, ability in found.items()} == {"a=1": True, "b=1": False, "c=1": False, "d=1": True}
    assert "ended with -11" in found["b=1"].why
    assert found["c=1"].why == "not done after 5 s"
    assert levers.fix_for(found["b=1"]).startswith("leave this lever out")


def test_a_process_that_cannot_start_leaves_every_lever_untried_with_the_reason() -> None:
    asking = Asking(["a=1", "b=1"], command=[sys.executable, "-c", "raise SystemExit('no torch')"])
    try:
        found = list(asking.answers(timeout_s=30))
    finally:
        asking.close()
    assert [(ability.lever, ability.runs, ability.why) for ability in found if isinstance(ability, Ability)] == [
        ("a=1", False, "its process ended with 1: no torch"),
        ("b=1", False, "its process ended with 1: no torch"),
    ]


@pytest.mark.parametrize("model", Model)
def test_the_room_that_weights_need_is_that_of_their_architectures(model: Model) -> None:
    from wansweep.trial import networks

    real = ARCHITECTURES[model]
    pipe = networks.build(real, Task.I2V if model is Model.I2V_A14B else Task.T2V, boundary=real.boundary, device="meta")
    parts = {name: part for name in ("transformer", "transformer_2", "text_encoder", "vae") if (part := getattr(pipe, name))}
    needed = sum((4 if name == "vae" else 2) * p.numel() for name, part in parts.items() for p in part.parameters())
    assert needed == storage.WEIGHTS_BYTES[model]


def test_a_disk_is_measured_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    speed = storage.measured(tmp_path, size_bytes=16 * 1024**2)
    assert speed.write_bytes_per_s > 0
    assert speed.read_bytes_per_s is None or speed.read_bytes_per_s > 0
    assert list(tmp_path.iterdir()) == []


def test_a_cache_folder_that_is_not_there_yet_is_judged_by_what_is_above_it(tmp_path: Path) -> None:
    room, speed, reports = storage.storage(tmp_path / "not" / "yet", tmp_path / "reports")
    assert str(tmp_path) in room.detail
    assert speed.area == "storage"
    assert reports.state is State.OK


LIMITS = HostLimits(logical_cores=16, usable_cores=16.0, memory_bytes=256 * GIB, memory_limit_bytes=None)


def told(limits: HostLimits, *, gpus_here: int, abilities: list[Ability], shm: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in memory.memory(gpus_here, abilities, limits=limits, shm=shm)}


def test_a_container_with_less_memory_than_the_weights_is_warned_of(tmp_path: Path) -> None:
    small = replace(LIMITS, memory_limit_bytes=32 * GIB, usable_cores=1.0)
    pinned = [Ability(lever="offload=expert_pinned", runs=False, why="cannot pin")]
    found = told(small, gpus_here=1, abilities=pinned, shm=tmp_path / "none")
    assert {what: finding.state for what, finding in found.items() if what != "swap"} == {
        "host memory": State.WARN, "cores": State.WARN, "shared memory": State.WARN, "pinned memory": State.WARN,
    }  # fmt: skip
    assert "t2v_a14b, i2v_a14b" in found["host memory"].detail
    assert "32 GiB of the machine's 256, by its cgroup" in found["host memory"].detail


def test_a_roomy_machine_is_well(tmp_path: Path) -> None:
    found = told(LIMITS, gpus_here=2, abilities=[Ability(lever="offload=expert_pinned", runs=True)], shm=tmp_path)
    assert found["host memory"].state is found["cores"].state is State.OK


def test_versions_other_than_tested_and_packages_that_are_missing_are_told_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = software._installed
    monkeypatch.setattr(software, "_installed", lambda name: None if name == "ftfy" else "9.9+cpu" if name == "ray" else real(name))
    found = {finding.what: finding for finding in software.versions()}
    assert (found["packages"].state, found["packages"].detail) == (State.PROBLEM, "not installed: ftfy")
    assert found["tested set"].state is State.WARN
    assert "ray 9.9+cpu (tested: 2.60.0)" in found["tested set"].detail
    assert found["tested set"].fix == f"pip install -c {ROOT / 'constraints.txt'} ray"


def test_the_tested_set_is_the_constraints_and_covers_every_package_that_is_looked_at() -> None:
    pins = software.tested((ROOT / "constraints.txt").read_text())
    assert set(software.PACKAGES) <= set(pins)
    assert pins["torch"] == "2.13.0"
