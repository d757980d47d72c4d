from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from wansweep.telemetry import torch_probe
from wansweep.telemetry.samples import Missing

MIB = 2**20


def test_without_cuda_every_figure_is_null_and_says_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    memory = dataclasses.asdict(torch_probe.memory())
    assert memory.pop("why") is Missing.UNSUPPORTED
    assert set(memory.values()) == {None}
    assert torch_probe.device_uuid() is Missing.UNSUPPORTED
    torch_probe.reset_peaks()


def test_asking_makes_no_cuda_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert torch_probe.memory().why is Missing.NOT_APPLICABLE


def test_each_figure_comes_from_the_allocator_key_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = {
        "allocated_bytes.all.peak": 3,
        "reserved_bytes.all.peak": 5,
        "allocated_bytes.all.current": 2,
        "reserved_bytes.all.current": 4,
        "num_alloc_retries": 1,
    }
    fake = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "memory_stats": lambda _: stats,
        "mem_get_info": lambda _: (30, 100),
        "host_memory_stats": lambda: {"allocated_bytes.peak": 7},
        "get_device_properties": lambda _: SimpleNamespace(uuid="0a1b"),
    }
    for name, function in fake.items():
        monkeypatch.setattr(torch.cuda, name, function)
    assert torch_probe.memory() == torch_probe.TorchMemory(
        why=None,
        peak_allocated_bytes=3,
        peak_reserved_bytes=5,
        allocated_bytes=2,
        reserved_bytes=4,
        device_used_bytes=70,
        device_total_bytes=100,
        pinned_bytes=7,
        alloc_retries=1,
    )
    assert torch_probe.device_uuid() == "GPU-0a1b"
    monkeypatch.delattr(torch.cuda, "host_memory_stats")
    assert torch_probe.memory().pinned_bytes is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peaks_are_those_of_the_stage_and_nvml_knows_the_device() -> None:
    torch.zeros(1, device="cuda")
    torch_probe.reset_peaks()
    base = torch_probe.memory()
    block = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda")
    del block
    memory = torch_probe.memory()
    assert memory.peak_allocated_bytes is not None
    assert base.allocated_bytes is not None
    assert memory.peak_allocated_bytes - base.allocated_bytes == pytest.approx(256 * MIB, rel=0.01)
    torch_probe.reset_peaks()
    assert (torch_probe.memory().peak_allocated_bytes or 0) < 256 * MIB
    assert str(torch_probe.device_uuid()).startswith("GPU-")
