"""Sweeps of sweeps: what `full` is made of, and what a command line does to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wansweep import composition
from wansweep.case import Model, Preset
from wansweep.composition import sweep_names
from wansweep.config import read_request
from wansweep.errors import ConfigError
from wansweep.levers import Offload
from wansweep.sweep import Sweep


def full(*overrides: str) -> Sweep:
    return read_request(["+sweep=full", *overrides]).sweep


@pytest.fixture(scope="module")
def whole() -> Sweep:
    return full()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    sweeps = {
        "steps": "axes: {steps: [2, 4]}",
        "more_steps": "axes: {steps: [4, 8], offload: [none, model]}, exclude: [{steps: 8, offload: none, why: slow}]",
        "both": "groups: [steps, more_steps]",
        "nested": "groups: [both]",
        "odd": "groups: [steps], axes: {seed: [1]}",
    }
    (tmp_path / "sweep").mkdir()
    for name, body in sweeps.items():
        (tmp_path / "sweep" / f"{name}.yaml").write_text(f"# @package _global_\nsweep: {{name: {name}, {body}}}\n")
    return tmp_path


def test_full_has_every_case_of_every_sweep_that_ships_once(whole: Sweep) -> None:
    ids = [case.id for case in whole.cases]
    assert len(set(ids)) == len(ids)
    for name in sweep_names():
        assert {case.id for case in read_request([f"+sweep={name}"]).sweep.cases} <= set(ids), name
    assert len({case.label for case in whole.cases}) == len(ids)
    assert sum(exclusion.reason.startswith("same settings as ") for exclusion in whole.excluded) >= 7


def test_labels_say_the_group_and_named_cases_keep_their_names(whole: Sweep) -> None:
    groups = tuple(f"{name}-" for name in sweep_names())
    assert all(case.label == case.name or case.label.startswith(groups) for case in whole.cases)
    assert "04_14B_Speed_Preview_480p" in {case.label for case in whole.cases}


def test_a_base_override_is_laid_over_the_cases_of_every_group() -> None:
    assert {case.steps for case in full("base.steps=3", "weights=tiny").cases} == {3}
    assert {case.offload for case in full("base.offload=model").cases} == {Offload.MODEL}


@pytest.mark.parametrize(
    "overrides", [[], ["base.steps=3", "weights=random"], ["procedure=careful", 'base.prompt="a, b: [x]"'], ["~base.seed"]]
)
def test_groups_composed_together_are_what_each_is_by_itself(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    together = full(*overrides)
    monkeypatch.setattr(composition, "_stands_alone", lambda name, config_dir: False)
    assert full(*overrides) == together


def test_a_model_chooses_among_the_cases_of_the_groups(whole: Sweep) -> None:
    chosen = full("model=t2v_a14b")
    assert {case.model for case in (*chosen.cases, *(left.case for left in chosen.excluded))} == {Model.T2V_A14B}
    assert [case.id for case in chosen.cases] == [case.id for case in whole.cases if case.model is Model.T2V_A14B]
    with pytest.raises(ConfigError, match=r"model=i2v_a14b: none of the groups has a case of it \(cache, mlperf\)"):
        full("sweep.groups=[cache,mlperf]", "model=i2v_a14b")


def test_equal_cases_of_two_groups_are_the_first_one_s(conf: Path) -> None:
    sweep = read_request(["+sweep=both"], config_dir=conf).sweep
    assert [(case.label.split("-")[0], case.steps, str(case.offload)) for case in sweep.cases] == [
        ("steps", 2, "none"),
        ("steps", 4, "none"),
        ("more_steps", 4, "model"),
        ("more_steps", 8, "model"),
    ]
    assert {left.reason for left in sweep.excluded} == {"slow", f"same settings as {sweep.cases[1].label}"}


def test_an_exclude_about_an_overridden_field_may_match_nothing(conf: Path) -> None:
    cases = read_request(["+sweep=both", "base.steps=3"], config_dir=conf).sweep.cases
    assert [(case.steps, str(case.offload)) for case in cases] == [(3, "none"), (3, "model")]


def test_cases_of_groups_can_be_chosen_by_label() -> None:
    assert [case.label for case in full("sweep.only=[t5_dropped]").cases] == ["t5_dropped"]
    assert [case.preset for case in full("sweep.groups=[mlperf]").cases] == [Preset.MLPERF_LIKE] * 2


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+sweep=full", "sweep.axes.seed=[1,2]"], "sweep.axes: a sweep of groups has no axes of its own; set a field of every case"),
        (["+sweep=full", "sweep.cases.mine={steps: 2}"], "sweep.cases: a sweep of groups has no cases of its own"),
        (["+sweep=full", "sweep.groups=[offlod]"], "sweep.groups: no sweep 'offlod'; did you mean 'offload'?"),
        (["+sweep=full", "base.stpes=3"], "group quick: base.stpes: no such case field; did you mean 'steps'?"),
        (["+sweep=full", "base.frames=80"], "frames=80 is not 4n+1"),
        (["+sweep=nested"], "sweep.groups: both has groups itself (steps, more_steps); name those"),
        (["+sweep=odd"], "sweep.axes: a sweep of groups has no axes of its own"),
    ],
)
def test_what_groups_cannot_do_is_told_with_the_way_out(conf: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_request(overrides, config_dir=conf)
    assert told in str(caught.value)
