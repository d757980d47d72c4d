"""What of a sweep is run: not what has its record, nor what will not fit. Whole runs are in schedule/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.makers import make_record
from wansweep import cli, running
from wansweep.config import read_request
from wansweep.publish import Publisher
from wansweep.store import create
from wansweep.telemetry.environment import environment


@pytest.mark.parametrize("anyway", [False, True])
def test_a_run_does_not_try_what_will_not_fit_and_its_report_says_why(tmp_path: Path, *, anyway: bool) -> None:
    label = "t2v_a14b-1280x720x81-s40-model"
    asked = ["+sweep=offload", "hardware=rtx4090", "weights=random", f"sweep.only=[{label}]", f"reports={tmp_path}"]
    sweep = read_request([*asked, f"procedure.try_anyway={str(anyway).lower()}"]).sweep
    folder = create(tmp_path, sweep, environment())
    publisher = Publisher(folder)
    ids = {case.id for case in sweep.cases}
    todo = running.unfinished(sweep, ids, publisher.records)
    told: list[str] = []
    left, predicted = running.fitting(sweep, folder, publisher, todo, told.append)
    assert left == (todo if anyway else [])
    results = publisher.render()
    assert results.summary["outcome"].to_list() == [None if anyway else "skipped"]
    assert running.unfinished(sweep, ids, publisher.records) == (todo if anyway else [])
    assert running.unfinished(read_request([*asked, "procedure.try_anyway=true"]).sweep, ids, publisher.records) == todo
    assert results.summary["predicted_step_s"][0] > 10
    assert results.summary["predicted_total_s"][0] == predicted[todo[0][0].id].total_s
    report = folder.report.read_text()
    assert "- **Predicted**: time 39" in report
    assert ("will not fit by 11.9 GiB" in report) is not anyway


def test_plan_says_what_a_run_folder_still_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["+sweep=quick", "procedure.repeats=2", "hardware=cpu", "hardware.gpus=2"]
    sweep = read_request(asked).sweep
    folder = create(tmp_path, sweep, environment())
    done, begun, *rest = sweep.cases
    for case, trial in ((done, 0), (done, 1), (begun, 1)):
        folder.append(make_record(case, trial=trial))
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    going_on = ["plan", *asked, f"resume={folder.path}"]
    assert cli.main([*going_on, "format=json"]) == cli.OK
    assert [row["label"] for row in json.loads(capsys.readouterr().out)] == [case.label for case in (begun, *rest)]
    assert cli.main(going_on) == cli.OK
    every = 2 * len(sweep.cases)
    assert f"{every - 3} trials of {every} are left, each at most" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before
    for case, trial in ((begun, 0), *((case, trial) for case in rest for trial in range(2))):
        folder.append(make_record(case, trial=trial))
    assert cli.main(going_on) == cli.OK
    assert f"0 trials of {every} are left" in capsys.readouterr().out
    assert cli.main([*going_on, "base.steps=7"]) == cli.WRONG
    assert "made for other cases" in capsys.readouterr().err
    assert cli.main([*going_on, "base.steps=7", "resume.force=true"]) == cli.OK
    assert f"{every} trials of {every} are left" in capsys.readouterr().out
