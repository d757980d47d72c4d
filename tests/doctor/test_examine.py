"""The whole examination, as a user asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.runs import wansweep
from tests.telemetry.nvml_stub import NvmlStub
from wansweep.doctor.examine import examine, guarded
from wansweep.doctor.finding import Finding, State
from wansweep.doctor.levers import LEVERS
from wansweep.doctor.show import AREAS, as_terminal, verdict


def test_a_machine_whose_driver_shows_gpus_that_torch_cannot_use_has_a_problem_and_exit_code_1(
    nvml_stub: Callable[..., NvmlStub],
) -> None:
    torch = pytest.importorskip("torch")
    if torch.version.cuda:
        pytest.skip("this torch has a CUDA build; the stub shows GPUs to a CPU build")
    stub = nvml_stub(gpus=2)
    stub.set(1, fault_gpm=4, fault_energy=3, mem_used=50e9)
    done = wansweep("doctor", "--format", "json", **stub.env)
    assert done.returncode == 1, done.stderr
    found = [Finding(**{**row, "state": State(row["state"])}) for row in json.loads(done.stdout)]
    assert {finding.area for finding in found} == set(AREAS)
    assert [finding for finding in found if finding.what == "check"] == []
    assert all(finding.fix for finding in found if finding.state in (State.WARN, State.PROBLEM))
    by_what = {finding.what: finding for finding in found}
    for index in (0, 1):
        assert by_what[f"GPU {index}"].state is State.PROBLEM
        assert stub.uuid(index) in by_what[f"GPU {index}"].detail
        assert "is a CPU build and does not see it" in by_what[f"GPU {index}"].detail
    assert by_what["power_w"].state is State.OK
    assert (by_what["sm_active_pct"].state, by_what["sm_active_pct"].detail) == (State.WARN, "not read on 1 of 2 GPUs: no_permission")
    assert "NVreg_RestrictProfilingToAdminUsers=0" in by_what["sm_active_pct"].fix
    assert by_what["energy_j"].state is State.NOT_HERE
    assert "GPU 1 idle" in by_what
    assert "2 GPUs" in by_what["cluster"].detail  # Ray reads the same driver
    assert set(LEVERS) <= set(by_what)
    assert by_what["attention=native"].state is by_what["quant=fp8_cast"].state is by_what["offload=model"].state is State.OK


def test_a_check_that_fails_is_a_finding_and_hides_no_other() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding(area="ray", what="cluster", state=State.OK, detail="there")
        raise OSError("no such device")

    first, second = guarded("ray", broken)
    assert (first.what, first.state) == ("cluster", State.OK)
    assert (second.what, second.state, second.detail) == ("check", State.WARN, "the check itself failed: OSError: no such device")


def test_an_examination_that_is_broken_off_leaves_no_process() -> None:
    findings = examine()
    assert next(findings).area == "versions"
    asking = findings.gi_frame.f_locals["asking"]
    findings.close()
    assert asking._process.poll() is not None


def test_the_terminal_shows_each_finding_with_its_fix_and_sums_up() -> None:
    findings = [
        Finding(area="levers", what="attention=native", state=State.OK, detail="runs"),
        Finding(area="levers", what="attention=flex", state=State.OK, detail="runs"),
        Finding(area="levers", what="quant=bnb_8bit", state=State.NOT_HERE, detail="No GPU found", fix="needs a GPU that has it"),
        Finding(area="ray", what="cluster", state=State.PROBLEM, detail="no answer", fix="ray start --head"),
    ]
    text = as_terminal(findings, width=100)
    assert "attention=native, flex" in text
    assert "→ ray start --head" in text
    assert text.splitlines()[-1] == verdict(findings) == "2 ok, 1 problem, 1 n/a: sweeps will fail here until the problems are mended"
