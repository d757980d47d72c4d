from __future__ import annotations

from dataclasses import replace

from tests.conftest import make_case
from tests.makers import make_record, make_stages
from wansweep.case import Preset
from wansweep.config import read_request
from wansweep.levers import Solver
from wansweep.record import Outcome, Record
from wansweep.report import terminal
from wansweep.report.markdown import cell, render, sections, table
from wansweep.store import Unreadable
from wansweep.tables.results import Results, tabulate
from wansweep.telemetry.environment import environment


def report(records: list[Record], *, unreadable: tuple[Unreadable, ...] = ()) -> str:
    return render(tabulated(records, unreadable=unreadable))


def tabulated(records: list[Record], *, unreadable: tuple[Unreadable, ...] = ()) -> Results:
    sweep = read_request(["+sweep=quick"]).sweep
    cases = tuple({record.case.id: record.case for record in records}.values())
    return tabulate(replace(sweep, cases=cases), environment(), records, unreadable)


def test_text_cannot_leave_its_cell_nor_become_markup() -> None:
    assert cell("a|b\n<script>*x*`y`[z](u)") == "a\\|b &lt;script>\\*x\\*\\`y\\`\\[z](u)"


def test_a_table_has_a_column_a_heading() -> None:
    assert table(["a", "b"], [["x", "1"]], numeric_from=1).splitlines() == ["| a | b |", "| :--- | ---: |", "| x | 1 |"]


def test_a_failed_case_stands_in_the_report_with_its_reason_and_a_command_to_run_it_again() -> None:
    case = make_case(label="ti2v_5b", name="ti2v_5b")
    text = report([make_record(case, outcome=Outcome.OOM, reason="Step_1_Inference: CUDA out of memory", stages=make_stages(case)[1:3])])
    assert "- **ti2v_5b** oom: Step_1_Inference: CUDA out of memory" in text
    assert "| Model_Initialization | 2.000 |" in text
    assert "`python -m wansweep +sweep=quick 'sweep.only=[ti2v_5b]'`" in text
    assert "### Inference Statistics" not in text


def test_the_breakdown_of_a_case_is_the_median_over_trials_of_the_slowest_rank() -> None:
    case = make_case(label="ti2v_5b", gpus=2, ulysses=2)
    trials = [
        make_record(case, trial=trial, stages=make_stages(case, step_s=0.1) + make_stages(case, step_s=step_s, rank=1))
        for trial, step_s in enumerate((1.0, 5.0, 3.0))
    ]
    text = report(trials)
    assert "| Step_0_Inference | 3.000 |" in text
    assert "Each figure is the highest over the ranks, and the median over the trials" in text


def test_a_file_that_could_not_be_read_is_told() -> None:
    text = report([make_record(make_case())], unreadable=(Unreadable(name="x-0.json", why="cut short"),))
    assert "Files in records/ that could not be read:\n\n- x-0.json: cut short" in text


def test_nothing_significant_is_said_only_when_every_rule_had_its_data() -> None:
    text = report([make_record(make_case(steps=30))])
    assert "Nothing found by the rules that had their data. Not checked: low SM activity" in text or "Not checked: low SM activity" in text
    assert "No significant bottlenecks" not in text


def test_cases_of_two_presets_never_stand_in_one_table_without_their_names() -> None:
    official = make_case(label="a", seed=1, preset=Preset.OFFICIAL, weights="hub")
    mlperf, own = make_case(label="b", seed=2, preset=Preset.MLPERF_LIKE), make_case(label="c", seed=3)
    text = report([make_record(case) for case in (official, mlperf, own)])
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith(("| Case |", "| a |", "| b |", "| c |"))]
    assert rows == [["| Case", "Preset"], ["| a", "official"], ["| b", "mlperf-like (miniature)"], ["| c", "custom"]]
    assert "- **Settings**: official in 1, mlperf-like (miniature) in 1, custom in 1" in text
    assert "not an MLPerf result" in text
    assert "Preset" in terminal.render(tabulated([make_record(case) for case in (official, own)]))


def test_one_preset_needs_no_column_and_settings_of_their_own_no_word() -> None:
    official = make_case(preset=Preset.OFFICIAL, weights="hub")
    text = report([make_record(official)])
    assert "- **Settings**: official in 1" in text
    assert ", seed 42, official" in text
    assert "| Preset |" not in text
    assert "MLPerf" not in text
    plain = report([make_record(make_case())])
    assert "**Settings**" not in plain
    assert "seed 42\n" in plain


def test_a_solver_and_a_batch_are_told() -> None:
    text = report([make_record(make_case(solver=Solver.EULER, batch=2))])
    assert "seed 42, solver euler, 2 videos at once\n" in text


def test_of_too_many_cases_the_accidents_keep_their_breakdowns_and_every_case_its_row() -> None:
    ran, fell, other = (make_case(label=label, name=label) for label in ("ran", "fell", "other"))
    results = tabulated([make_record(ran), make_record(fell, outcome=Outcome.CRASH, reason="its process died"), make_record(other)])
    told = sections(results, most=2)
    assert list(told) == [ran.id, fell.id]
    text = render(results, told)
    summary = text.partition("# Choosing")[0].splitlines()
    assert [line.split(" | ")[0] for line in summary if line.startswith(("| ran ", "| fell ", "| other "))] == [
        "| ran",
        "| fell",
        "| other",
    ]
    assert "## Case: other" not in text
    assert "Without a breakdown here: 1 more case. `wansweep report RUN_DIR --case LABEL` prints one; `" in text
    assert "Without a breakdown" not in render(results)
