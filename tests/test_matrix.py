"""Expansion of a matrix, by example and by property."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import BASE
from wansweep.case import Model, Preset
from wansweep.errors import ConfigError
from wansweep.levers import Offload
from wansweep.matrix import Matrix, expand
from wansweep.presets import Settings

VALUES = {
    "steps": st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True),
    "offload": st.lists(st.sampled_from([str(o) for o in Offload]), min_size=1, max_size=4, unique=True),
    "seed": st.lists(st.integers(0, 1000), min_size=1, max_size=3, unique=True),
    "dtype": st.lists(st.sampled_from(["bf16", "fp16", "fp32"]), min_size=1, max_size=3, unique=True),
}
axes_of = st.fixed_dictionaries({}, optional=VALUES)


def matrix(**parts: object) -> Matrix:
    base = {**BASE, "model": "ti2v_5b", "task": "t2v"}
    whole = {"base": base, "presets": {}, "boundaries": {}, "cases": {}, "axes": {}, "zips": {}, "include": [], "exclude": [], **parts}
    return Matrix(**whole)  # type: ignore[arg-type]


def problems(**parts: object) -> str:
    with pytest.raises(ConfigError) as caught:
        expand(matrix(**parts))
    return str(caught.value)


@given(axes_of)
def test_axes_give_every_combination_once_and_in_order(axes: dict[str, list[object]]) -> None:
    cases, excluded = expand(matrix(axes=axes))
    assert not excluded
    expected = list(itertools.product(*axes.values()))
    assert [tuple(str(getattr(case, field)) for field in axes) for case in cases] == [tuple(map(str, values)) for values in expected]
    assert len({case.id for case in cases}) == len(cases) == math.prod(map(len, axes.values()))


@given(axes_of)
def test_labels_are_unique_and_safe_as_file_names(axes: dict[str, list[object]]) -> None:
    labels = [case.label for case in expand(matrix(axes=axes))[0]]
    assert len(set(labels)) == len(labels)
    assert all(label and set(label) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for label in labels)


@given(axes_of, st.data())
def test_an_excluded_case_is_told_and_nothing_else_is_lost(axes: dict[str, list[object]], data: st.DataObject) -> None:
    everything, _ = expand(matrix(axes=axes))
    victim = data.draw(st.sampled_from(everything))
    pattern = {field: getattr(victim, field) for field in axes} or {"steps": victim.steps}
    kept, excluded = expand(matrix(axes=axes, exclude=[{**pattern, "why": "because"}]))
    assert [left.case.id for left in excluded] == [victim.id]
    assert excluded[0].reason == "because"
    assert {case.id for case in kept} | {victim.id} == {case.id for case in everything}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=5, unique=True))
def test_a_zip_walks_its_columns_in_step(rows: list[tuple[int, int]]) -> None:
    steps, seeds = zip(*rows, strict=True)
    cases, _ = expand(matrix(zips={"pair": {"steps": list(steps), "seed": list(seeds)}}))
    assert [(case.steps, case.seed) for case in cases] == rows


def test_a_zip_is_one_axis_of_the_product() -> None:
    cases, _ = expand(matrix(axes={"offload": ["none", "model"]}, zips={"size": {"width": [640, 1280], "height": [352, 704]}}))
    assert [(case.offload, case.width, case.height) for case in cases] == [
        ("none", 640, 352),
        ("none", 1280, 704),
        ("model", 640, 352),
        ("model", 1280, 704),
    ]


def test_named_cases_come_first_under_their_names_and_included_ones_last() -> None:
    cases, _ = expand(matrix(cases={"mine": {"steps": 9}}, axes={"steps": [1, 2]}, include=[{"steps": 3}]))
    assert [(case.label.split("-")[0], case.steps) for case in cases] == [("mine", 9), ("ti2v_5b", 1), ("ti2v_5b", 2), ("ti2v_5b", 3)]


def test_two_equal_cases_are_one_and_the_second_is_told() -> None:
    cases, excluded = expand(matrix(axes={"steps": [1, 2]}, include=[{"steps": 2}]))
    assert [case.steps for case in cases] == [1, 2]
    assert excluded[0].reason == f"same settings as {cases[1].label}"


def test_one_setting_can_be_run_under_two_names() -> None:
    cases, _ = expand(matrix(cases={"one": {"steps": 5}, "two": {"steps": 5}}))
    assert [case.label for case in cases] == ["one", "two"]


SETTINGS = {
    (Preset.OFFICIAL, Model.TI2V_5B): Settings(fields={"task": "t2v", "width": 1280, "height": 704, "steps": 50}, boundary=None),
    (Preset.OFFICIAL, Model.T2V_A14B): Settings(
        fields={"width": 1280, "height": 704, "steps": 40, "guidance_2": 3.0}, boundary=0.875, sizes=("832x480",)
    ),
    (Preset.MLPERF_LIKE, Model.T2V_A14B): Settings(
        fields={"width": 1280, "height": 704, "steps": 20, "guidance_2": 3.0, "seed": 42}, boundary=0.875
    ),
}
OPEN = {**BASE, "model": "t2v_a14b", "task": "t2v", "width": None, "height": None, "steps": None, "guidance_2": None}


def preset_matrix(**parts: object) -> Matrix:
    return matrix(**{"base": OPEN, "presets": SETTINGS, "boundaries": {Model.T2V_A14B: 0.875}, **parts})


def test_a_preset_fills_what_base_leaves_open() -> None:
    cases, _ = expand(preset_matrix(axes={"model": ["ti2v_5b", "t2v_a14b"]}))
    assert [(case.steps, case.guidance_2, case.preset) for case in cases] == [(50, None, Preset.OFFICIAL), (40, 3.0, Preset.OFFICIAL)]


def test_a_preset_is_named_and_can_be_an_axis() -> None:
    cases, _ = expand(preset_matrix(axes={"preset": ["official", "mlperf-like"]}))
    assert [(case.steps, case.preset) for case in cases] == [(40, "official"), (20, "mlperf-like")]
    assert [case.label.split("-", 3)[3] for case in cases] == ["official", "mlperf_like"]


@pytest.mark.parametrize(
    "departure", [{"steps": 39}, {"shift": 3.0}, {"guidance_2": 2.0}, {"seed": 7}, {"width": 832, "height": 480}, {"frames": 77}]
)
def test_a_case_that_departs_from_its_preset_is_not_called_by_it(departure: dict[str, object]) -> None:
    held = {key: replace(settings, fields={**settings.fields, "shift": 5.0, "frames": 121}) for key, settings in SETTINGS.items()}
    plain, other = expand(
        preset_matrix(presets=held, cases={"plain": {"preset": "mlperf-like"}, "other": {"preset": "mlperf-like", **departure}})
    )[0]
    assert (plain.preset, other.preset) == (Preset.MLPERF_LIKE, None)


def test_another_boundary_or_size_decides_too() -> None:
    assert expand(preset_matrix(boundaries={Model.T2V_A14B: 0.5}))[0][0].preset is None
    sized = expand(preset_matrix(cases={"small": {"width": 832, "height": 480}, "odd": {"width": 640, "height": 480}}))[0]
    assert [case.preset for case in sized] == [Preset.OFFICIAL, None]


def test_settings_that_are_a_preset_s_are_called_so_however_they_were_written() -> None:
    cases, excluded = expand(preset_matrix(axes={"preset": ["official", "mlperf-like"]}, base={**OPEN, "steps": 20}))
    assert [case.preset for case in cases] == [Preset.MLPERF_LIKE]
    assert len(excluded) == 1


def test_a_preset_without_settings_for_the_model_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"preset=mlperf-like: there are no such settings for ti2v_5b; there are for t2v_a14b"):
        expand(preset_matrix(axes={"preset": ["mlperf-like"], "model": ["ti2v_5b"]}))


def test_gpus_and_degrees_complete_each_other() -> None:
    cases, _ = expand(matrix(cases={"by_gpus": {"gpus": 2}, "by_degree": {"ulysses": 4}, "alone": {}}))
    assert [(case.gpus, case.ulysses) for case in cases] == [(2, 2), (4, 4), (1, 1)]


def test_an_exclude_rule_that_matches_nothing_is_an_error() -> None:
    assert "exclude[0] (steps=7) matches none of the 2 combinations" in problems(axes={"steps": [1, 2]}, exclude=[{"steps": 7}])


def test_a_typo_in_an_exclude_rule_names_the_nearest_field() -> None:
    assert "sweep.exclude[0].stpes: no such case field; did you mean 'steps'?" in problems(axes={"steps": [4]}, exclude=[{"stpes": 4}])


def test_an_axis_that_overwrites_the_command_line_is_an_error() -> None:
    told = problems(axes={"steps": [1, 2]}, pinned=frozenset({"steps"}))
    assert "base.steps=4 of the command line is overwritten by sweep.axes.steps" in told


def test_a_field_that_two_axes_set_is_an_error() -> None:
    assert "sweep.axes.steps sets steps too" in problems(axes={"steps": [1]}, zips={"z": {"steps": [1], "seed": [2]}})


def test_a_zip_with_columns_of_unequal_length_is_an_error() -> None:
    assert "columns of unequal length (steps: 2, seed: 1)" in problems(zips={"z": {"steps": [1, 2], "seed": [1]}})


def test_every_problem_is_told_at_once() -> None:
    told = problems(axes={"steps": [1, "x"], "offlod": ["none"]}, cases={"a": {"dtype": "bf15"}, "a b": {}}, include=[{"seed": "y"}])
    assert len(told.splitlines()) == 5
    assert "sweep.axes.steps[1]='x'" in told
    assert "did you mean 'offload'?" in told
    assert "not one of bf16, fp16 or fp32" in told or "bf16, fp16, fp32" in told


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=5), st.booleans()), min_size=1, max_size=3))
def test_nonsense_fields_are_problems_and_never_anything_else(fields: dict[str, object]) -> None:
    try:
        cases, _ = expand(matrix(cases={"case": fields}))
    except ConfigError:
        return
    assert len(cases) == 1
