"""Configs that make no sense: one line a problem and exit code 2, never a traceback, never a sweep of nonsense."""

from __future__ import annotations

import copy
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import SCALARS, answered, many, nested, paths, put
from wansweep import config
from wansweep.case import Case
from wansweep.composition import compose
from wansweep.errors import ConfigError, WansweepError
from wansweep.matrix import NAME_RULE, expand
from wansweep.sweep import Sweep

SWEEPS = ("quick", "seed", "offload", "precision", "official")
COMPOSED = {name: compose([], sweep=name) for name in SWEEPS}
PLACES = {name: [path for path in paths(tree) if path] for name, tree in COMPOSED.items()}
FIELDS = list(COMPOSED["quick"]["base"])
VALUES = nested()
SWEEP = config.read_request(["+sweep=quick"]).sweep


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """A shipped sweep as Hydra composes it, with a few of its values changed to anything."""
    name = draw(st.sampled_from(SWEEPS))
    tree = copy.deepcopy(COMPOSED[name])
    for _ in range(draw(st.integers(1, 3))):
        anywhere = st.tuples(st.sampled_from(PLACES[name]), VALUES)
        base = st.tuples(st.tuples(st.just("base"), st.sampled_from(FIELDS)), SCALARS)
        axis = st.tuples(st.tuples(st.just("sweep"), st.just("axes"), st.sampled_from(FIELDS)), st.lists(SCALARS, max_size=3))
        part = st.tuples(st.tuples(st.just("sweep"), st.sampled_from(["include", "exclude", "only", "zips", "cases", "groups"])), VALUES)
        put(tree, *draw(st.one_of(anywhere, base, axis, part)))
    return tree


def hold_sane(cases: tuple[Case, ...]) -> None:
    """What every accepted case is, said another way than the rules say it."""
    assert len({case.id for case in cases}) == len({case.label for case in cases}) == len(cases)
    for case in cases:
        assert NAME_RULE.fullmatch(case.label) or len(case.label) > 100
        assert "/" not in case.label
        assert case.label.strip(".")
        assert case.gpus >= 1
        assert case.steps >= 1
        assert 0 <= case.seed < 2**63
        assert case.width % 16 == case.height % 16 == 0
        assert 0 < case.width <= 16_384
        numbers = (case.shift, case.guidance, case.guidance_2 or 0.0, case.cache_threshold or 0.0)
        assert all(math.isfinite(number) and number >= 0 for number in numbers)


@many(1700)
@given(trees())
def test_a_composed_config_with_anything_in_it_is_refused_in_our_words_or_makes_sense(tree: dict[str, Any]) -> None:
    try:
        root = config._checked(tree)
        cases, _ = expand(config._matrix(root, []))
        problems = config._case_lines(cases)
    except WansweepError:
        return
    if not problems:
        hold_sane(cases)


KEYS = [
    *("base", "sweep", "procedure", "cluster", "hardware", "models", "model", "weights", "preset", "reports", "resume", "format", "stack"),
    *(
        "calibrate",
        "hydra",
        "hydra.run.dir",
        "sweep@x",
        "defaults",
        "sweep.axes.steps",
        "base.steps",
        "base.prompt",
        "sweep.cases.x",
        "sweep.only",
    ),
    *("sweep.groups", "sweep.name", "procedure.repeats", "cluster.address", "hardware.gpus", "models.ti2v_5b.fps"),
]
ODD = [
    "[1,2]",
    "{a:1}",
    "${base.steps}",
    "null",
    "choice(1,2)",
    "range(3)",
    "quick",
    "1,2",
    "'x",
    "tiny",
    "${oc.env:NO_SUCH}",
    "[quick]",
    "../../x",
]
WORDS = st.text(max_size=12)
ASSIGNMENTS = st.builds(
    lambda sign, key, value: f"{sign}{key}={value}", st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), WORDS | st.sampled_from(ODD)
)
OVERRIDES = st.lists(st.one_of(WORDS, ASSIGNMENTS, st.sampled_from(KEYS).map(lambda key: f"~{key}")), max_size=3)


@many(150)
@given(OVERRIDES, st.sampled_from([["+sweep=quick"], ["sweep=seed"], []]))
def test_a_command_line_of_anything_is_refused_in_our_words_or_makes_sense(overrides: list[str], named: list[str]) -> None:
    try:
        request = config.read_request([*overrides, *named])
    except WansweepError:
        return
    hold_sane(request.sweep.cases)


LINES = [
    *("# @package _global_", "base: {model: t2v_a14b}", "sweep:", "  name: x", "  axes:", "    steps: [1, 2]", "    seed: 3", "\tx: 1", "- a"),
    *(
        "  cases: {a: {steps: 2}}",
        "  include: [x]",
        "  exclude:",
        "    - {steps: 1}",
        "  zips: {z: {steps: [1], seed: [2, 3]}}",
        "defaults: [no]",
    ),
    *("sweep: null", "name: &a x", "  name: *a", "x: !!python/object/apply:os.system [true]", "? [1]: 2", "{", "a: ${b}", "base: ${sweep}"),
    *(
        "sweep: {name: ../x}",
        "1: 2",
        "base: {1: 2}",
        "sweep: {cases: {1: {steps: 2}}}",
        "---",
        "%YAML 9",
        "<<: {a: 1}",
        "base: ???",
        "x: 2001-13-45",
    ),
]


def _dumped(value: object) -> str:
    try:
        return str(yaml.safe_dump(value))
    except yaml.YAMLError:
        return ""


TEXTS = st.one_of(st.lists(st.sampled_from(LINES), max_size=8).map("\n".join), st.text(max_size=60), VALUES.map(_dumped))
FILES = st.one_of(TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=40))


@many(150)
@given(FILES)
def test_a_sweep_file_of_anything_is_refused_in_our_words_or_makes_sense(tmp_path_factory: pytest.TempPathFactory, file: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "conf"
    (folder / "sweep").mkdir(parents=True, exist_ok=True)
    (folder / "sweep" / "odd.yaml").write_bytes(file)
    try:
        request = config.read_request(["+sweep=odd"], config_dir=folder)
    except WansweepError:
        return
    hold_sane(request.sweep.cases)


# One wrong thing in a sweep that is right: what must be named in the answer.
NONSENSE = {
    "base.shift=nan": "shift",
    "base.shift=inf": "shift",
    "base.guidance=nan": "guidance",
    "base.guidance=-3": "guidance",
    "base.seed=99999999999999999999999": "seed",
    "base.steps=1000000001": "steps",
    "base.steps=true": "base.steps",
    "base.width=1000000000000": "width",
    "base.frames=4000000001": "frames",
    "base.cache_threshold=nan": "cache_threshold",
    "base.batch=1000000000": "batch",
    "base.compile_backend='no/such'": "compile_backend",
    "base.weights=''": "weights",
    "procedure.repeats=100000000000000000000": "procedure.repeats",
    "procedure.timeout_s=nan": "procedure.timeout_s",
    "procedure.cooldown_s=1e300": "procedure.cooldown_s",
    "cluster.gpus=-1": "cluster.gpus",
    "cluster.address=''": "cluster.address",
    "cluster.address='somewhere'": "cluster.address",
    "cluster.address='h:1; rm x'": "cluster.address",
    "reports=''": "reports",
    "resume=''": "resume",
    "calibrate=''": "calibrate",
    "sweep.name=..": "sweep.name",
    "sweep.name=a/b": "sweep.name",
    "models.ti2v_5b.fps=0": "models.ti2v_5b.fps",
    "models.ti2v_5b.boundary=7": "models.ti2v_5b.boundary",
    "models.ti2v_5b.repo='../x'": "models.ti2v_5b.repo",
    "models=x": "models",
    "procedure=null": "procedure",
    "hydra.run.dir=/tmp/x": "hydra.run.dir",
    "hydra.mode=MULTIRUN": "hydra.mode",
    f"sweep.cases={{{'a' * 101}:{{}}}}": "at most 100",
    "sweep.axes={"
    + ",".join(f"{name}:[{','.join(map(str, range(1, 41)))}]" for name in ("seed", "steps", "batch", "gpus"))
    + "}": "combinations",
    "~base.model": "model",
    "~base": "base: is not there",
    "hardware=[h100,l4]": "one hardware is wanted",
    "sweep.name=hf_abcdefghijkl": "sweep.name: holds what is or looks like a token",
    "sweep.exclude=[{steps:4,why:'sk-abcdefghijkl'}]": "sweep.exclude[0].why: holds what is",
    "cluster.address=hf_abcdefghijkl": "cluster.address: holds what is",
    "models.ti2v_5b.revision=../..": "models.ti2v_5b.revision",
    "hydra.searchpath=[file:///no/such]": "path=/no/such is not available",
    "model=t2v": "model=t2v: no such model; did you mean 'ti2v_5b'?",
}


@pytest.mark.parametrize("wrong", NONSENSE)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_one_wrong_value_in_a_right_sweep_is_named_and_ends_with_2(
    verb: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wansweep.running._run_trials", lambda *_, **__: pytest.fail("nonsense was run"))
    code, out, err = answered(verb, "+sweep=quick", "weights=tiny", f"reports={tmp_path}", wrong)
    assert (code, out) == (2, "")
    assert NONSENSE[wrong] in err
    assert all(line.startswith("wansweep: ") for line in err.splitlines())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["plan", "--config-dir"],
        ["plan", "+sweep=quick", "--config-dir", ""],
        ["report"],
        ["compare", "x"],
        ["recommend"],
        ["watch"],
        ["import"],
    ],
)
def test_an_option_that_is_none_ends_with_2(arguments: list[str]) -> None:
    code, out, err = answered(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: {model: ti2v_5b}\nsweep: {name: odd}\n", "first line of a sweep's file has to be `# @package _global_`"),
        ("# @package _global_\ndefaults: [odd]\nsweep: {name: odd}\n", "nested too deep, or draws in itself"),
        ("[" * 100_000, "nested too deep, or draws in itself"),
    ],
)
def test_a_sweep_file_that_is_wrong_as_a_file_is_told_with_the_way_out(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "odd.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(told)):
        config.read_request(["+sweep=odd"], config_dir=tmp_path)


def test_a_sweep_without_any_case_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "none.yaml").write_text(
        "# @package _global_\nbase: {model: ti2v_5b}\nsweep:\n  name: none\n  axes: {steps: [1]}\n  exclude: [{steps: 1}]\n"
    )
    with pytest.raises(ConfigError, match="no case"):
        config.read_request(["+sweep=none"], config_dir=tmp_path)


LABELS = st.one_of(
    st.sampled_from(["null", "true", "007", "1e3", "-1", "1.5", "nan", "a", "01_5B.x-y"]), st.from_regex(NAME_RULE, fullmatch=True)
)


@many(100)
@given(LABELS)
def test_the_command_that_runs_one_case_names_that_case_whatever_it_is_called(label: str) -> None:
    command = Sweep.command_for(SWEEP, label)
    override = OverridesParser.create().parse_override(shlex.split(command)[-1])
    assert (override.key_or_group, override.value()) == ("sweep.only", [label])
