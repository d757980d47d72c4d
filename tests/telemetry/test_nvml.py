from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import wansweep
from wansweep.telemetry.nvml import Driver, reason
from wansweep.telemetry.samples import Missing

from .nvml_stub import NvmlStub

ROOT = Path(wansweep.__file__).parent.parent


@pytest.mark.parametrize(("version", "branch"), [("580.159.03", 580), ("595.65", 595), (None, None), ("unknown", None)])
def test_the_branch_is_the_first_part_of_the_version(version: str | None, branch: int | None) -> None:
    assert Driver(version=version, cuda=None).branch == branch


@pytest.mark.parametrize(
    ("code", "why"), [(3, Missing.UNSUPPORTED), (4, Missing.NO_PERMISSION), (6, Missing.NO_SAMPLE), (15, Missing.ERROR), (12345, Missing.ERROR)]
)
def test_every_code_of_nvml_has_a_reason(code: int, why: Missing) -> None:
    assert reason(code) is why


def test_energy_between_two_boundaries_is_power_times_time(nvml_stub: Callable[..., NvmlStub]) -> None:
    stub = nvml_stub()
    stub.set(0, power_w=400)
    script = (
        "import sys, time\nfrom wansweep.telemetry import nvml\n"
        "with nvml.library():\n"
        "    counter = nvml.EnergyCounter(sys.argv[1])\n"
        "    a, t = counter.read_j().value, time.monotonic()\n"
        "    time.sleep(0.5)\n"
        "    b, s = counter.read_j().value, time.monotonic() - t\n"
        "    print((b - a) / s, nvml.EnergyCounter('GPU-ffffffff').read_j().why)"
    )
    env = {**stub.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, stub.uuid()], env=env, capture_output=True, text=True, check=True)
    watts, why = done.stdout.split()
    assert float(watts) == pytest.approx(400, rel=0.01)
    assert why == "error"


def test_a_uuid_is_taken_without_its_prefix_as_torch_gives_it(nvml_stub: Callable[..., NvmlStub]) -> None:
    stub = nvml_stub()
    script = "import sys\nfrom wansweep.telemetry import nvml\nwith nvml.library(): print(nvml.gpu(sys.argv[1]).uuid)"
    env = {**stub.env, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", script, stub.uuid().removeprefix("GPU-")]
    assert subprocess.run(arguments, env=env, capture_output=True, text=True, check=True).stdout.strip() == stub.uuid()
