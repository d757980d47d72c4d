from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import make_case
from tests.plan.cases import five, large
from tests.tables.test_calibration import measured
from wansweep import cli
from wansweep.config import read_request
from wansweep.errors import ConfigError
from wansweep.forecast import calibrated, card_of, here, lengths, unfit, warnings
from wansweep.levers import Cache, Offload
from wansweep.plan.planner import overdue, plan
from wansweep.plan.rates import Calibration
from wansweep.record import Outcome
from wansweep.store import RunFolder, create
from wansweep.sweep import Hardware
from wansweep.telemetry.environment import environment

AUTO = Hardware(name="auto", gpus=1)


def test_a_machine_with_one_kind_of_known_gpu_is_planned_for() -> None:
    assert card_of(AUTO, ["NVIDIA H200", "NVIDIA H200"]) == Hardware(name="h200", gpus=2)


@pytest.mark.parametrize("names", [[], ["NVIDIA H200", "NVIDIA L4"], ["NVIDIA GeForce RTX 4090 D"], [None]])
def test_none_several_kinds_or_an_unknown_gpu_are_not_guessed(names: list[str | None]) -> None:
    assert card_of(AUTO, names) == AUTO


def test_a_card_that_was_named_is_kept() -> None:
    asked = Hardware(name="l4", gpus=1)
    assert card_of(asked, ["NVIDIA H200"]) == asked


def test_what_will_not_fit_is_recorded_as_skipped_with_the_prediction_as_witness() -> None:
    rows = plan([large(offload=Offload.MODEL), five(offload=Offload.MODEL), large(vae_slicing=True)], Hardware(name="rtx4090", gpus=1))
    records = unfit(rows, [(row.case, trial) for row in rows for trial in range(2)])
    assert [(record.case, record.trial, record.outcome) for record in records] == [
        (large(offload=Offload.MODEL), trial, Outcome.SKIPPED) for trial in range(2)
    ]
    assert "will not fit by 11.9 GiB" in records[0].reason
    assert "procedure.try_anyway=true" in records[0].reason


def test_one_case_without_a_predicted_length_does_not_take_the_others_theirs() -> None:
    drawn = [large(), large(cache=Cache.FIRST_BLOCK, cache_threshold=0.1), large(weights="tiny")]
    rows = plan(drawn, Hardware(name="h200", gpus=1))
    procedure = read_request(["+sweep=quick"]).sweep.procedure
    known, by_content, miniature = (lengths(rows, procedure)[row.case.id] for row in rows)
    assert (known.total_s, known.peak_bytes) == (rows[0].predicted_total_s, rows[0].predicted_peak_bytes)
    # As long as without the cache, by the same FLOP; the miniature by its own, and nothing is known of its memory.
    assert by_content.total_s == pytest.approx(known.total_s)
    assert by_content.peak_bytes == rows[1].predicted_peak_bytes
    assert miniature.total_s < 0.01 * known.total_s
    assert miniature.peak_bytes == 0
    assert lengths(plan(drawn, AUTO), procedure) == {}


def test_a_run_is_told_of_cases_that_it_will_end_before_they_are_done() -> None:
    procedure = replace(read_request(["+sweep=quick"]).sweep.procedure, timeout_s=600)
    rows = overdue(plan([large(), five()], Hardware(name="h200", gpus=1)), procedure)
    (line,) = warnings(rows)
    assert re.fullmatch(rf"wansweep: {large().label}: over procedure.timeout_s=600: \d+ s, will time out; 1 of 2 cases are so long", line)
    assert warnings(rows[1:]) == []


def test_calibrating_needs_a_card_and_a_run_folder() -> None:
    assert calibrated(None, AUTO) == (Calibration(), [])
    with pytest.raises(ConfigError, match="hardware=auto is no card to calibrate"):
        calibrated(Path("somewhere"), AUTO)


def test_a_run_folder_on_the_same_card_corrects_a_later_plan_and_shows_the_gain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["+sweep=offload", "hardware=h100", "weights=random", "sweep.only=[t2v_a14b-1280x720x81-s40-model]"]
    folder = create(tmp_path, read_request(asked).sweep, environment())
    for case in (large(offload=Offload.EXPERT), large(frames=17), large(frames=49), five()):
        folder.append(measured(case))
    assert cli.main(["plan", *asked, "format=json"]) == 0
    before = json.loads(capsys.readouterr().out)[0]["predicted_step_s"]
    assert cli.main(["plan", *asked, f"calibrate={folder.path}", "format=json"]) == 0
    answer = capsys.readouterr()
    after = json.loads(answer.out)[0]["predicted_step_s"]
    assert "Calibrated on 4 trials" in answer.err
    assert after != pytest.approx(before, rel=0.02)
    assert cli.main(["plan", *asked, f"calibrate={folder.path}"]) == 0
    told = capsys.readouterr().out
    assert "Calibrated on 4 trials: matmul x0.800, attention x1.300" in told
    assert "On the half of the cases that was held out:" in told
    assert cli.main(["plan", *asked, "hardware=l4", f"calibrate={folder.path}"]) == cli.WRONG
    assert "no trial that ended ok on NVIDIA L4" in capsys.readouterr().err


def test_an_unknown_gpu_gives_a_warning_and_no_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="NVIDIA GeForce RTX 4090 D")
    monkeypatch.setattr("wansweep.telemetry.environment.environment", lambda: SimpleNamespace(gpus=(gpu,)))
    hardware, warning = here(AUTO)
    assert hardware == AUTO
    assert "NVIDIA GeForce RTX 4090 D is not one known GPU" in warning
    assert "hardware=rtx4090" in warning


def test_a_plan_for_no_card_says_so_beside_its_json_and_not_of_miniatures(capsys: pytest.CaptureFixture[str]) -> None:
    for weights, told in (("random", "No predictions for hardware=cpu: name a card"), ("tiny", "")):
        assert cli.main(["plan", "+sweep=seed", "hardware=cpu", f"weights={weights}", "format=json"]) == 0
        answer = capsys.readouterr()
        assert len(json.loads(answer.out)) == 7
        assert answer.err.startswith(told)
        assert bool(answer.err) is bool(told)


def test_a_folder_without_a_plan_has_no_predictions(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    assert folder.predictions() == {}
    folder.plan.write_text("[{")
    assert folder.predictions() == {}
    row = plan([make_case()], AUTO)[0].as_row()
    folder.plan.write_text(json.dumps([row]))
    assert folder.predictions() == {make_case().id: row}
