"""The command line and conf/ to a Sweep, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from wansweep.case import Model, Task
from wansweep.composition import sweep_names
from wansweep.config import read_request
from wansweep.errors import ConfigError
from wansweep.levers import Offload
from wansweep.plan.rules import problems
from wansweep.sweep import Isolation

SEED_NAMES = [
    "01_5B_Speed_Preview_704p",
    "01_Speed_Preview_480p",
    "02_5B_Efficiency_Mode_704p",
    "02_Efficiency_Mode_720p",
    "03_5B_Performance_Mode_704p",
    "03_Performance_Mode_720p",
    "04_14B_Speed_Preview_480p",
]


@pytest.mark.parametrize("name", sweep_names())
@pytest.mark.parametrize("weights", ["tiny", "hub"])
def test_every_shipped_sweep_composes_into_cases_that_can_run(name: str, weights: str) -> None:
    sweep = read_request([f"+sweep={name}", f"weights={weights}"]).sweep
    assert sweep.name == name
    assert sweep.cases
    assert not [problem for case in sweep.cases for problem in problems(case)]
    assert len({case.label for case in sweep.cases}) == len(sweep.cases)


def test_the_seven_cases_of_the_seed_report_are_there_under_their_names() -> None:
    cases = {case.label: case for case in read_request(["+sweep=seed"]).sweep.cases}
    assert list(cases) == SEED_NAMES
    first, last = cases["01_5B_Speed_Preview_704p"], cases["04_14B_Speed_Preview_480p"]
    assert (first.model, first.width, first.height, first.frames, first.steps, first.offload) == (
        Model.TI2V_5B,
        1280,
        704,
        121,
        5,
        Offload.MODEL,
    )
    assert (last.model, last.width, last.height, last.frames, last.steps, last.shift) == (Model.T2V_A14B, 832, 480, 81, 5, 12.0)
    assert cases["03_5B_Performance_Mode_704p"].offload is Offload.NONE


def test_the_official_shift_is_used_and_not_that_of_the_converted_checkpoints() -> None:
    cases = read_request(["+sweep=quick"]).sweep.cases
    assert {case.model: case.shift for case in cases} == {Model.TI2V_5B: 5.0, Model.T2V_A14B: 12.0, Model.I2V_A14B: 5.0}


def test_a_base_override_reaches_every_case() -> None:
    assert {case.steps for case in read_request(["+sweep=quick", "base.steps=3"]).sweep.cases} == {3}


def test_groups_and_their_fields_can_be_overridden() -> None:
    request = read_request(
        ["+sweep=quick", "procedure=careful", "procedure.repeats=5", "procedure.isolation=warm", "cluster=auto", "reports=elsewhere"]
    )
    assert (request.sweep.procedure.repeats, request.sweep.procedure.isolation) == (5, Isolation.WARM)
    assert request.sweep.cluster.address == "auto"
    assert request.reports == Path("elsewhere")


def test_cases_and_axes_can_be_added_and_dropped_on_the_command_line() -> None:
    request = read_request(
        [
            "+sweep=quick",
            "sweep.cases.mine={model: i2v_a14b, steps: 2}",
            "~sweep.cases.ti2v_5b",
            "sweep.axes.offload=[none]",
            "sweep.axes.seed=[1,2]",
        ]
    )
    cases = {case.label: case for case in request.sweep.cases}
    assert cases["mine"].task is Task.I2V
    assert "ti2v_5b" not in cases
    assert sum(case.name == "" for case in request.sweep.cases) == 2


def test_only_keeps_the_named_cases() -> None:
    sweep = read_request(["+sweep=quick", "sweep.only=[i2v_a14b]"]).sweep
    assert [case.label for case in sweep.cases] == ["i2v_a14b"]


def test_a_folder_of_the_users_own_is_searched_too(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "ours.yaml").write_text("# @package _global_\nsweep: {name: ours, axes: {steps: [1, 2]}}\n")
    assert len(read_request(["+sweep=ours", "weights=tiny"], config_dir=tmp_path).sweep.cases) == 2


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+sweep=quik"], "sweep=quik: no such sweep; did you mean 'quick'?"),
        ([], "no sweep named: add +sweep=NAME"),
        (["+sweep=quick", "base.stpes=3"], "base.stpes: no such case field; did you mean 'steps'?"),
        (["+sweep=quick", "wieghts=tiny"], "wieghts=tiny: no such key; did you mean 'weights'?"),
        (["+sweep=quick", "procedure.repeat=3"], "procedure.repeat: no such key; did you mean 'repeats'?"),
        (["+sweep=quick", "procedure=carefull"], "procedure=carefull: no such procedure; did you mean 'careful'?"),
        (["+sweep=quick", "base.steps=four"], "base.steps='four': input should be a valid integer"),
        (["+sweep=quick", "base.steps=0"], "steps=0 is under 1; nearest: 1"),
        (["+sweep=quick", "procedure.repeats=0"], "procedure.repeats=0: input should be greater than or equal to 1"),
        (["+sweep=quick", "sweep.axes.offload=[none,modle]"], "sweep.axes.offload[1]='modle': not one of none, expert_pinned"),
        (["+sweep=quick", "base.frames=80"], "frames=80 is not 4n+1; nearest: 77, 81"),
        (["+sweep=quick", "base.width=1290"], "width=1290 is no multiple of 32 (stride 16 x patch 2 of ti2v_5b); nearest: 1280, 1312"),
        (["+sweep=quick", "base.height=8"], "height=8 is no multiple of 32 (stride 16 x patch 2 of ti2v_5b); nearest: 32"),
        (["+sweep=quick", "sweep.cases.t2v_a14b.task=i2v"], "task=i2v: t2v_a14b does t2v only"),
        (["+sweep=quick", "sweep.cases.ti2v_5b.ulysses=5"], "ulysses=5 does not divide the 24 heads of ti2v_5b at this size; nearest: 4"),
        (["+sweep=quick", "sweep.cases.ti2v_5b={gpus: 2, ulysses: 4, model: ti2v_5b}"], "gpus=2 is not the product of the parallel degrees"),
        (["+sweep=quick", "sweep.exclude=[{offload: none}]"], "sweep.exclude[0] (offload=none) matches none of the 4 combinations"),
        (
            ["+sweep=seed", "base.steps=3"],
            "base.steps=3 of the command line is overwritten by sweep.cases.01_5B_Speed_Preview_704p.steps and 6 more",
        ),
        (["+sweep=offload", "model=i2v_a14b"], "model=i2v_a14b: no case of this sweep is of it; it has t2v_a14b, ti2v_5b"),
        (["+sweep=quick", "base.steps=1,2"], "write sweep.axes.steps=[...]"),
        (["+sweep=quick", "base.steps"], "base.steps: not an override"),
        (["+sweep=quick", "sweep.only=[nope]"], "sweep.only=nope: no case has this label or id"),
        (["+sweep=quick", "hardware=rtx409"], "hardware=rtx409: no such hardware; did you mean 'rtx4090'?"),
        (["+sweep=quick", "format=yaml"], "format='yaml': not one of table, json"),
        (["+sweep=quick", "sweep.cases.a/b={}"], "sweep.cases.a/b"),
    ],
)
def test_a_wrong_command_line_is_told_the_key_the_rule_and_the_way_out(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_request(overrides)
    assert told in str(caught.value)


@pytest.mark.parametrize("sweep", ["quick", "seed", "offload", "parallel", "official"])
@pytest.mark.parametrize("model", [Model.TI2V_5B, Model.T2V_A14B])
def test_a_model_chooses_among_the_cases_of_a_sweep_that_sets_it(sweep: str, model: Model) -> None:
    whole, chosen = (read_request([f"+sweep={sweep}", *more]).sweep.cases for more in ([], [f"model={model}"]))
    assert [(case.label, case.id) for case in chosen] == [(case.label, case.id) for case in whole if case.model is model]


def test_an_axis_of_the_command_line_may_leave_an_exclude_of_the_sweep_without_a_match() -> None:
    cases = read_request(["+sweep=offload", "sweep.axes.model=[t2v_a14b]"]).sweep.cases
    assert {case.model for case in cases} == {Model.T2V_A14B}
    with pytest.raises(ConfigError, match=r"sweep.exclude\[0\]"):
        read_request(["+sweep=offload", "sweep.exclude=[{offload: none, steps: 1}]"])


def test_all_problems_of_a_command_line_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_request(["+sweep=quick", "base.frames=80", "base.width=1290"])
    assert len(caught.value.problems) == 4  # one of frames, one of width for each family


def test_a_broken_yaml_of_the_users_own_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "bad.yaml").write_text("# @package _global_\nsweep: {name: bad, axes: [\n")
    with pytest.raises(ConfigError) as caught:
        read_request(["+sweep=bad"], config_dir=tmp_path)
    assert len(str(caught.value).splitlines()) == 1
