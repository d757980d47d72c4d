from __future__ import annotations

from dataclasses import replace

from tests.conftest import make_a14b, make_case
from wansweep import twins
from wansweep.case import Case
from wansweep.config import read_request
from wansweep.sweep import Sweep

QUICK = read_request(["+sweep=quick"]).sweep


def sweep(*cases: Case, drift: bool = True, repeats: int = 1) -> Sweep:
    return replace(QUICK, cases=cases, procedure=replace(QUICK.procedure, drift=drift, repeats=repeats))


def held(*cases: Case) -> dict[str, str]:
    labels = {case.id: case.label for case in cases}
    return {labels[id_]: twin.label for id_, twin in twins.references(cases).items()}


def test_a_lossy_case_is_held_against_the_lossless_one_that_is_nearest_in_every_other_lever() -> None:
    cases = (
        make_case(label="offloaded", offload="model"),
        make_case(label="plain"),
        make_case(label="fp8", quant="fp8_cast"),
        make_case(label="fp8_offloaded", quant="fp8_cast", offload="model"),
        make_case(label="fp32", dtype="fp32"),
        make_case(label="fp16", dtype="fp16"),
        make_case(label="sage", attention="sage"),
    )
    assert held(*cases) == {
        "offloaded": "plain",
        "fp8": "plain",
        "fp8_offloaded": "offloaded",
        "fp32": "plain",
        "fp16": "plain",
        "sage": "plain",
    }


def test_cases_asked_for_other_videos_are_no_twins() -> None:
    plain = make_case(label="plain")
    others = [
        make_case(label=name, quant="fp8_cast", **{name: value})
        for name, value in {"seed": 7, "steps": 9, "prompt": "a dog", "frames": 49, "solver": "euler", "batch": 2, "guidance": 1.0}.items()
    ]
    assert held(plain, *others, make_a14b(label="model", quant="fp8_cast")) == {}
    assert twins.why_alone(others[0], [plain, *others]).endswith("(seed 42 -> 7)")


def test_only_workloads_with_lossy_and_lossless_cases_keep_anything_and_only_when_asked() -> None:
    plain, fp8, other = make_case(label="plain"), make_case(label="fp8", quant="fp8_cast"), make_case(label="other", steps=9)
    assert twins.kept(sweep(plain, fp8, other)) == {plain.id, fp8.id}
    assert twins.kept(sweep(plain, fp8, other, drift=False)) == set()


def test_a_twin_runs_twice_at_least_so_that_there_is_a_floor() -> None:
    plain, fp8, offloaded = make_case(label="plain"), make_case(label="fp8", quant="fp8_cast"), make_case(label="off", offload="model")
    assert twins.repeats(sweep(plain, fp8, offloaded)) == {plain.id: 2, fp8.id: 1, offloaded.id: 1}
    assert set(twins.repeats(sweep(plain, fp8, repeats=3)).values()) == {3}
    assert set(twins.repeats(sweep(plain, fp8, drift=False)).values()) == {1}
