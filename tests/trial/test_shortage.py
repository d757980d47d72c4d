"""What was missing when memory ran out, from the words of torch's versions."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import make_case
from wansweep.record import Shortage
from wansweep.trial.shortage import ran_out, shortage

GIB, MIB = 2**30, 2**20
NEW = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 139.72 GiB of which 512.00 MiB is free. Process 4711 has "
    "100.00 GiB memory in use. Including non-PyTorch memory, this process has 39.00 GiB memory in use. Of the allocated memory 30.00 GiB is "
    "allocated by PyTorch, and 8.00 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_ALLOC_CONF=expandable_segments:True"
)
OLD = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.75 GiB total capacity; 6.50 GiB already allocated; 11.00 MiB free; 6.75 GiB "
    "reserved in total by PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb"
)


def test_the_words_of_todays_torch() -> None:
    assert shortage(torch.OutOfMemoryError(NEW)) == Shortage(
        of_host=False,
        requested_bytes=round(2.5 * GIB),
        allocated_bytes=30 * GIB,
        reserved_bytes=38 * GIB,
        device_free_bytes=512 * MIB,
        device_total_bytes=round(139.72 * GIB),
    )


def test_the_words_of_earlier_torch() -> None:
    missing = shortage(torch.OutOfMemoryError(OLD))
    assert (missing.requested_bytes, missing.allocated_bytes, missing.reserved_bytes) == (20 * MIB, round(6.5 * GIB), round(6.75 * GIB))
    assert (missing.device_free_bytes, missing.device_total_bytes) == (11 * MIB, round(7.75 * GIB))


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"])
def test_a_library_that_got_no_memory_ran_out_too(words: str) -> None:
    assert ran_out(RuntimeError(words))
    assert shortage(RuntimeError(words)).requested_bytes is None


def test_the_host_really_refuses() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**47, dtype=torch.uint8)
    assert ran_out(refused.value)
    assert shortage(refused.value) == Shortage(of_host=True, requested_bytes=2**47)
    assert ran_out(MemoryError())


def test_another_error_is_no_shortage() -> None:
    assert not ran_out(RuntimeError(f"shape mismatch in {make_case().label}"))
