from __future__ import annotations

import pytest

from tests.conftest import make_a14b, make_case
from wansweep.config import read_request
from wansweep.plan.planner import Verdict, plan
from wansweep.sweep import Hardware
from wansweep.tables.scaling import twin

CONTRACT = {
    "case_id",
    "label",
    "gpus",
    "verdict",
    "reason",
    "predicted_flop",
    "predicted_peak_bytes",
    "predicted_host_bytes",
    "predicted_total_s",
    "predicted_step_s",
}


def test_a_plan_has_every_case_in_order_with_the_contracts_names() -> None:
    rows = [row.as_row() for row in plan([make_case(), make_a14b(label="b")], Hardware(name="auto", gpus=1))]
    assert [row["label"] for row in rows] == ["case", "b"]
    assert all(CONTRACT | {"model", "width", "steps", "offload"} <= row.keys() for row in rows)


def test_flop_of_a_real_case_are_those_of_its_forwards_and_a_miniature_has_none() -> None:
    real, tiny = plan([make_a14b(weights="hub", steps=40), make_a14b()], Hardware(name="auto", gpus=1))
    # 40 steps of 13.05 PFLOP, and the T5 and the VAE beside them.
    assert real.predicted_flop is not None
    assert 40 * 13.04e15 < real.predicted_flop < 40 * 13.1e15
    assert tiny.predicted_flop is None


def test_a_case_for_more_gpus_than_the_hardware_has_is_skipped_with_the_reason() -> None:
    case = make_a14b(gpus=4, ulysses=4)
    short, enough, auto = (plan([case], Hardware(name=name, gpus=gpus))[0] for name, gpus in (("h100", 2), ("h100", 8), ("auto", 1)))
    assert (short.verdict, short.reason) == (Verdict.SKIP, "needs 4 GPUs, hardware.gpus=2")
    assert enough.verdict is auto.verdict is Verdict.RUN


@pytest.mark.parametrize("weights", ["hub", "tiny"])
def test_the_parallel_sweep_plans_clean_and_has_every_mode_beside_a_twin_on_one_gpu(weights: str) -> None:
    cases = read_request(["+sweep=parallel", f"weights={weights}"]).sweep.cases
    assert {planned.reason for planned in plan(cases, Hardware(name="h100", gpus=8))} == {""}
    modes = {case.parallel for case in cases}
    assert {"none", "ulysses8", "ring2", "ring2+ulysses2", "cfg2", "cfg2+ulysses4", "cfg2+ring2+ulysses2", "fsdp", "ulysses8+fsdp"} <= modes
    alone = {twin(case) for case in cases if case.gpus == 1}
    assert {twin(case) for case in cases} == alone
