"""Who is on a GPU before and after a trial: the arithmetic, and NVML's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from wansweep.telemetry.tenants import Tenants, after, before
from wansweep.units import GIB

from .nvml_stub import NvmlStub

CLEAN = {"GPU-0": Tenants(used_bytes=GIB, processes={})}


def test_a_clean_gpu_has_nothing_to_tell() -> None:
    assert before(CLEAN, own=[]) == after(CLEAN, CLEAN) == []


def test_a_foreign_process_is_told_with_its_memory_and_our_own_is_not() -> None:
    there = {"GPU-0": Tenants(used_bytes=GIB, processes={7: 2 * GIB, 8: None, 9: GIB})}
    assert before(there, own=[9]) == ["GPU-0: pid 7 was there before the trial and holds 2.00 GiB", "GPU-0: pid 8 was there before the trial"]


def test_what_came_and_stayed_is_a_leak_and_what_was_there_before_is_not() -> None:
    then = {"GPU-0": Tenants(used_bytes=GIB, processes={7: GIB})}
    now = {"GPU-0": Tenants(used_bytes=3 * GIB, processes={7: GIB, 8: 2 * GIB})}
    assert after(then, now) == [
        "GPU-0: pid 8 is there after it and holds 2.00 GiB",
        "GPU-0: 2.00 GiB more in use after the trial than before it",
    ]


def test_nvml_says_who_is_there(nvml_stub: Callable[..., NvmlStub]) -> None:
    stub = nvml_stub()
    stub.set(0, processes=2, process_pid=4711, process_bytes=3 * GIB)
    script = (
        "import json, sys\nfrom wansweep.telemetry.tenants import tenants\n"
        "found = tenants([sys.argv[1], 'GPU-none'])\n"
        "print(json.dumps({uuid: dict(one.processes) for uuid, one in found.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", script, stub.uuid()], env=stub.env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {stub.uuid(): {"4711": 3 * GIB, "4712": 3 * GIB}}
