"""Going on with a run folder that was made for another sweep, or elsewhere. What is run then is tests/schedule/test_kills.py's subject."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.makers import make_record
from tests.runs import wansweep
from wansweep.config import read_request
from wansweep.errors import ConfigError, StoreError
from wansweep.publish import Publisher, read_results
from wansweep.report import markdown
from wansweep.resume import resume
from wansweep.store import RunFolder, create, open_folder
from wansweep.sweep import Sweep
from wansweep.tables import comparison
from wansweep.tables.changes import Verdict
from wansweep.telemetry.environment import ENVIRONMENT, Environment, environment
from wansweep.telemetry.nvml import Gpu

HERE = environment()


@cache
def asked(*overrides: str) -> Sweep:
    return read_request(["+sweep=quick", *overrides]).sweep


def with_torch(version: str | None) -> Environment:
    return replace(HERE, packages={**HERE.packages, "torch": version})


def with_gpus(*names: str) -> Environment:
    nothing = dict.fromkeys(Gpu.__dataclass_fields__)
    return replace(HERE, gpus=tuple(Gpu(**{**nothing, "uuid": f"GPU-{i}", "name": name}) for i, name in enumerate(names)))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path, asked(), HERE)


def refusal(folder: RunFolder, sweep: Sweep, here: Environment = HERE) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        resume(folder.path, sweep, here, force=False)
    *lines, way_out = (line.removeprefix(f"resume={folder.path}: ") for line in refused.value.problems)
    assert (
        way_out
        == f"repeat its own command ({folder.sweep().command}), start anew without resume=, or go on all the same with resume.force=true"
    )
    assert not folder.resumed.exists()
    return lines


def test_the_same_sweep_on_the_same_machine_goes_on_and_leaves_no_trace(folder: RunFolder) -> None:
    before = sorted(folder.path.rglob("*"))
    assert resume(folder.path, asked(), HERE, force=False).departures == ()
    assert resume(folder.path, asked(), HERE, force=True).departures == ()
    assert sorted(folder.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("procedure.warmups=2", "procedure.warmups is 0 there, 2 here"),
        ("procedure.isolation=warm", "procedure.isolation is process there, warm here"),
        ("procedure.repeats=3", "procedure.repeats is 1 there, 3 here"),
        ("cluster.exclusive=true", "cluster.exclusive is False there, True here"),
        ("models.ti2v_5b.revision=abc", "models.ti2v_5b.revision is None there, abc here"),
        ("sweep.only=[ti2v_5b]", "made for other cases (8 differ, ti2v_5b_image is only in the folder)"),
        ("base.prompt=another", "made for other cases (18 differ, ti2v_5b is only in the sweep asked for)"),
    ],
)
def test_a_sweep_that_differs_is_refused_with_both_values(folder: RunFolder, override: str, told: str) -> None:
    assert refusal(folder, asked(override)) == [told]


@pytest.mark.parametrize("override", ["procedure.timeout_s=9", "procedure.hang_s=99", "procedure.retries=0", "procedure.try_anyway=true"])
def test_patience_is_no_part_of_a_figure_and_may_change(folder: RunFolder, override: str) -> None:
    assert resume(folder.path, asked(override, "cluster.address=auto"), HERE, force=False).departures == ()


@pytest.mark.parametrize(
    ("elsewhere", "told"),
    [
        (with_torch("9.9"), f"torch is {HERE.packages['torch']} there, 9.9 here"),
        (with_torch(None), f"torch is {HERE.packages['torch']} there, unknown here"),
        (with_gpus("NVIDIA L4", "NVIDIA L4"), f"gpus is none there, 2 x NVIDIA L4 here; cpu is {HERE.cpu} there, unknown here"),
        (replace(HERE, cpu="another CPU"), f"cpu is {HERE.cpu} there, another CPU here"),
    ],
)
def test_an_environment_that_differs_is_refused_with_both_values(folder: RunFolder, elsewhere: Environment, told: str) -> None:
    assert refusal(folder, asked(), elsewhere) == told.split("; ")


def test_what_is_only_noted_between_runs_does_not_stand_in_the_way(folder: RunFolder) -> None:
    noted = replace(HERE, python="3.99", git=None, command=("another",))
    assert resume(folder.path, asked(), noted, force=False).departures == ()


def test_the_cpu_of_a_driver_does_not_matter_where_trials_run_on_a_cluster(folder: RunFolder) -> None:
    assert resume(folder.path, asked("cluster=auto"), replace(HERE, cpu="another CPU"), force=False).departures == ()


def test_all_that_differs_is_told_at_once(folder: RunFolder) -> None:
    assert len(refusal(folder, asked("procedure.warmups=2", "base.prompt=another"), with_torch("9.9"))) == 3


def test_a_forced_resume_keeps_what_it_went_on_with_and_changes_no_file(folder: RunFolder) -> None:
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    other = asked("procedure.warmups=2")
    resumed = resume(folder.path, other, with_torch("9.9"), force=True)
    assert resumed.departures == ("procedure.warmups: 0 -> 2", f"torch: {HERE.packages['torch']} -> 9.9")
    assert folder.environments() == [HERE, with_torch("9.9")]
    assert folder.sweeps() == [asked(), other]
    assert {file: file.read_bytes() for file in before} == before
    assert {file.name for file in folder.resumed.iterdir()} == {"001-sweep.yaml", "001-environment.json"}


def test_what_was_once_forced_goes_on_without_force_and_is_told_again(folder: RunFolder) -> None:
    first = resume(folder.path, asked(), with_torch("9.9"), force=True)
    again = resume(folder.path, asked(), with_torch("9.9"), force=False)
    assert again == first
    assert resume(folder.path, asked(), HERE, force=False).departures == ()
    with pytest.raises(ConfigError, match="torch is"):
        resume(folder.path, asked(), with_torch("8.8"), force=False)
    resume(folder.path, asked(), with_torch("8.8"), force=True)
    assert len(folder.environments()) == 3


def test_a_forced_resume_with_other_cases_has_the_cases_of_both_each_with_its_own_command(folder: RunFolder) -> None:
    other = asked("base.prompt=another", "sweep.only=[ti2v_5b,t2v_a14b]")
    resume(folder.path, other, HERE, force=True)
    sweep = open_folder(folder.path).sweep()
    assert {case.id for case in sweep.cases} == {case.id for case in (*asked().cases, *other.cases)}
    assert len({case.label for case in sweep.cases}) == len(sweep.cases) == 11
    new = sweep.cases[-2]
    assert new.label == f"ti2v_5b-{new.id}"
    assert asked("base.prompt=another", f"sweep.only=[{new.id}]").cases[0].id == new.id
    assert sweep.command_for(new.label) == f"python -m wansweep +sweep=quick base.prompt=another 'sweep.only=[{new.id}]'"
    old = sweep.cases[0]
    assert sweep.command_for(old.label) == f"python -m wansweep +sweep=quick 'sweep.only=[{old.id}]'"


def test_the_report_says_which_trials_a_forced_resume_ran_and_compare_leaves_them_out(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wansweep.publish.write_tables", lambda *_: None)  # seconds, for what is looked at below
    first, second = asked().cases[:2]
    Publisher(folder).add(make_record(first))
    resumed = resume(folder.path, asked(), with_torch("9.9"), force=True)
    Publisher(resumed.folder, departures=resumed.departures).add(make_record(second))
    results = read_results(folder)
    sections = markdown.sections(results)
    told = f"- **Resumed under other conditions** (resume.force): torch: {HERE.packages['torch']} -> 9.9; of trial #0"
    assert told in sections[second.id]
    assert "resume.force" not in sections[first.id]
    changes = {case.case_id: case for case in comparison.compare(results, results).cases}
    assert changes[second.id].verdicts == (Verdict.NOT_COMPARABLE,)
    assert "trials of a forced resume: torch" in changes[second.id].why
    assert Verdict.NOT_COMPARABLE not in changes[first.id].verdicts


def test_a_folder_with_records_of_a_newer_wansweep_is_not_gone_on_with(folder: RunFolder) -> None:
    (folder.records / f"{asked().cases[0].id}-0.json").write_text('{"schema": 99}')
    with pytest.raises(StoreError, match=r"schema 99 .*: upgrade wansweep; its trial may be finished"):
        Publisher(folder)


def test_the_command_line_takes_resume_and_force_beside_each_other_in_any_order() -> None:
    for order in (["resume=a/b", "resume.force=true"], ["resume.force=true", "resume=a/b"], ["++resume=a/b", "resume.force=true"]):
        request = read_request(["+sweep=quick", *order])
        assert (request.resume, request.force) == (Path("a/b"), True)
        assert request.sweep.command == "python -m wansweep +sweep=quick"
    assert read_request(["+sweep=quick", "resume=null"]).resume is None
    assert read_request(["+sweep=quick", "resume=a"]).force is False


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("resume.force=true", "resume.force=true: nothing to go on with; name the run folder too, as resume=RUN_DIR"),
        ("resume.forse=true", "resume.forse: no such key; did you mean 'force'?"),
        ("resume.force=perhaps", "resume.force='perhaps': "),
    ],
)
def test_a_wrong_resume_is_one_line(typed: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_request(["+sweep=quick", typed])
    assert str(refused.value).startswith(told)
    assert len(refused.value.problems) == 1


def test_a_refused_resume_is_exit_code_2_with_the_way_out_and_starts_nothing(folder: RunFolder) -> None:
    (folder.path / "environment.json").write_bytes(ENVIRONMENT.dump_json(with_torch("1.0")))
    done = wansweep("run", "+sweep=quick", f"resume={folder.path}")
    assert (done.returncode, done.stdout) == (2, "")
    first, last = done.stderr.splitlines()
    assert first == f"wansweep: resume={folder.path}: torch is 1.0 there, {HERE.packages['torch']} here"
    assert last.endswith("or go on all the same with resume.force=true")
