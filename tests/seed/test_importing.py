"""Old reports to run folders and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings

from tests.conftest import DATA, make_case
from tests.makers import make_record, make_stages, sampled, with_figures
from tests.runs import wansweep
from tests.seed.old_reports import old_reports
from wansweep.case import Model
from wansweep.config import read_request
from wansweep.errors import SeedError, StoreError
from wansweep.publish import import_report, read_results
from wansweep.record import Outcome, Record, from_json, to_json
from wansweep.report import markdown, terminal
from wansweep.seed import importing
from wansweep.seed.exporting import left_out, seed_report
from wansweep.seed.parse import parse
from wansweep.seed.render import render
from wansweep.tables.results import Results, tabulate
from wansweep.telemetry.environment import environment
from wansweep.units import GIB

SEED = (DATA / "seed_report.md").read_text()


def imported(text: str) -> Results:
    """The report's records, through their JSON, as results."""
    records = [from_json(to_json(record)) for record in importing.records(parse(text, path="old.md"), file="old.md")]
    sweep = importing.sweep([record.case for record in records], file="old.md")
    return tabulate(sweep, importing.environment(file="old.md"), records, ())


def by_name(results: Results) -> dict[str, Record]:
    return {record.label: record for record in results.records}


def test_the_seed_report_comes_back_byte_for_byte_from_the_command_line(tmp_path: Path) -> None:
    done = wansweep("import", str(DATA / "seed_report.md"), "-o", str(tmp_path / "old"))
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{tmp_path / 'old'}\n")
    again = wansweep("report", str(tmp_path / "old"), "--format", "seed", "-o", str(tmp_path / "again.md"))
    assert (again.returncode, again.stderr) == (0, "")
    assert (tmp_path / "again.md").read_bytes() == (DATA / "seed_report.md").read_bytes()


def test_an_import_without_a_place_goes_under_reports_by_its_name(tmp_path: Path) -> None:
    done = wansweep("import", str(DATA / "seed_report.md"), cwd=tmp_path)
    folder = tmp_path / done.stdout.strip()
    assert folder.parent == tmp_path / "reports" / "seed_report"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            *("environment.json", "frames", "records", "report.html", "report.md", "stages.parquet"),
            *("summary.csv", "summary.parquet", "sweep.yaml", "trace.json", "traces"),
        ]
    )


@settings(max_examples=150, deadline=None)
@given(old_reports())
def test_any_report_of_the_kind_comes_back_byte_for_byte_and_none_of_it_contradicts_itself(text: str) -> None:
    results = imported(text)
    assert render(seed_report(results)) == text
    assert [record.imported.notes for record in results.records if record.imported] == [()] * len(results.records)


@settings(max_examples=10, deadline=None)
@given(old_reports())
def test_every_report_can_be_shown_of_an_imported_run(text: str) -> None:
    results = imported(text)
    assert markdown.render(results).startswith("# Wan2.2 Benchmark Report")
    assert "None" not in terminal.render(results)


def test_a_record_keeps_only_what_the_reports_arithmetic_does_not_give() -> None:
    section = by_name(imported(SEED))["02_Efficiency_Mode_720p"].imported.section
    assert (section.duration_s, section.step_s, section.peak_bytes, section.analysis, section.overview) == (147.19, None, None, None, None)
    stage = next(stage for stage in by_name(imported(SEED))["02_Efficiency_Mode_720p"].stages if stage.name == "Step_0_Inference")
    assert stage.figures["sm_active_pct"].value == 86.86


def test_a_step_that_the_analysis_calls_low_at_90_00_was_just_under_it() -> None:
    text = SEED.replace("| 86.9 |", "| 90.0 |").replace("(86.86%)", "(90.00%)")
    record = by_name(imported(text))["02_Efficiency_Mode_720p"]
    (value,) = [stage.figures["sm_active_pct"].value for stage in record.stages if stage.name == "Step_0_Inference"]
    assert 89.99 < value < 90
    assert not [note for note in record.imported.notes if "Performance Analysis" in note]


def test_what_was_not_sampled_is_null_and_what_the_report_does_not_say_is_assumed_and_null_in_tables() -> None:
    results = imported(SEED)
    record = by_name(results)["01_5B_Speed_Preview_704p"]
    first = record.stages[0].figures
    assert (first["host_bytes"].value, first["host_bytes"].why, first["cpu_pct"].why) == (None, "no_sample", "no_sample")
    assert first["sm_active_pct"].value == 0
    assert (record.case.model, record.case.steps, record.case.frames) == (Model.TI2V_5B, 5, 121)
    assert {"width", "frames", "dtype", "offload"} <= set(record.imported.assumed)
    row = results.summary.row(by_predicate=pl.col("label") == record.label, named=True)
    assert (row["width"], row["frames"], row["dtype"], row["offload"], row["model"], row["warm"]) == (None, None, None, None, "ti2v_5b", None)
    assert row["peak_allocated_bytes"] == pytest.approx(31.27 * GIB)


def test_a_case_of_the_summary_alone_has_its_stated_figures_but_not_the_doubled_load() -> None:
    row = imported(SEED).summary.row(0, named=True)
    assert (row["label"], row["total_s"], row["step_s"], row["sm_active_pct"]) == ("01_Speed_Preview_480p", 114.94, 6.87, 99.8)
    assert row["compute_load"] is None


@pytest.mark.parametrize(
    ("there", "instead", "note"),
    [
        (
            "- **Total Compute Load**: 11546",
            "- **Total Compute Load**: 12000",
            "Total Compute Load: the report says 12000, the stages give 11546",
        ),
        (
            "| Step_1_Inference | 6.84 | 31.22 | 0.0 | 0.00 | 100.0 | 684 |",
            "| Step_1_Inference | 6.84 | 31.22 | 0.0 | 0.00 | 100.0 | 700 |",
            "x 100.0",
        ),
        ("- **Avg SM Activity**: 99.4 %", "- **Avg SM Activity**: 98.4 %", "Avg SM Activity: the report says 98.4, the stages give 99.4"),
        ("|   147.19 |", "|   147.20 |", "Time(s): the report says 147.20, the section says 147.19"),
        ("VRAM usage is within safe margins.", "VRAM is fine.", "Resource Usage Overview: not what the report's own rules say"),
        (
            "No significant bottlenecks detected. GPU utilization is healthy.",
            "**Bottlenecks Detected:**\n- Something else.",
            "Performance Analysis: not what the report's own rules say",
        ),
        ("(86.86%)", "(81.00%)", "Performance Analysis"),
    ],
)
def test_a_report_that_contradicts_itself_is_kept_as_it_is_and_the_contradiction_noted(there: str, instead: str, note: str) -> None:
    text = SEED.replace(there, instead, 1)
    results = imported(text)
    assert render(seed_report(results)) == text
    notes = [line for record in results.records for line in record.imported.notes]
    assert any(note in line for line in notes), notes
    assert "- **Contradiction**: " in markdown.render(results)


@pytest.mark.parametrize(
    ("there", "instead", "told"),
    [
        ("| Step_1_Loading | 0.00 | 21.48 | 0.0 | 0.00 | 0.0 | 0 |\n", "", "line 26: the seed format has the row of Step_1_Loading here"),
        (
            "| T5_Encoding | 14.34 | 2.63 | 0.0 | 0.00 | 0.0 | 0 |",
            "| T5_Encoding | 14.34 | 2.63 | 0.0 | 0.00 | 0 |",
            "line 23: the seed format has a stage's row",
        ),
        ("| Total_Execution | 143.10 | 31.27 | 0.0 | 0.00 | 40.6 | 5813 |\n", "", "has the row of Total_Execution, which ends the table"),
        ("| TI2V_Preprocess | 0.00 | 2.63 | 0.0 | 0.00 | 0.0 | 0 |\n", "", "a table with one of TI2V_Preprocess"),
        (
            "- **Avg CPU Utilization**: 0.0 %\n",
            "",
            "line 41: the seed format has '- **Avg CPU Utilization**: 0.0 %' here, found '- **Total Inf",
        ),
        ("|   114.94 |", "|  114.940 |", "line 5: the seed format has a summary row"),
        ("| True    |   114.94", "| True |   114.94", "line 5: the seed format has '| 01_Speed"),
        ("| SM(%) |", "|", "line 3"),
        ("## Case: 02_Efficiency_Mode_720p", "## Case: 01_5B_Speed_Preview_704p", "one section a case"),
        ("VAE_Decoding", "Model_Initialization", "no second row of Model_Initialization"),
        ("T5_Encoding", "T6_Encoding", "one of its stages"),
        (
            "# Wan2.2 Benchmark Report\n",
            "# Some Report\n",
            "line 1: the seed format has '# Wan2.2 Benchmark Report' here, found '# Some Report'",
        ),
        ("\n", "\r\n", "line 1: the seed format has a line that ends in LF alone here"),
        ("# Wan2.2 Benchmark Report\n", "\ufeff# Wan2.2 Benchmark Report\n", "line 1: the seed format has no byte order mark here"),
    ],
)
def test_a_damaged_report_is_one_error_with_its_line_the_rule_and_the_way_out(there: str, instead: str, told: str) -> None:
    assert there in SEED
    damaged = SEED.replace(there, instead) if instead == "\r\n" else SEED.replace(there, instead, 1)
    with pytest.raises(SeedError) as error:
        parse(damaged, path="old.md")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "nothing was written" in str(error.value)


def test_a_report_cut_short_anywhere_is_an_error_or_whole_up_to_there() -> None:
    for end in range(0, len(SEED), 7):
        try:
            report = parse(SEED[:end], path="old.md")
        except SeedError as error:
            assert "the seed format has" in str(error)  # noqa: PT017
        else:
            assert render(report) == SEED[:end]
            assert SEED[:end].rstrip().endswith(("---", "# Detailed Breakdown"))


def test_a_bad_report_leaves_nothing_behind_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text(SEED[:3000])
    done = wansweep("import", "old.md", "-o", "runs/old", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("wansweep: old.md, line ")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.md"]


def test_an_import_never_writes_over_a_folder(tmp_path: Path) -> None:
    import_report(DATA / "seed_report.md", tmp_path / "old")
    before = json.loads((tmp_path / "old" / "environment.json").read_text())
    with pytest.raises(StoreError, match="is there already"):
        import_report(DATA / "seed_report.md", tmp_path / "old")
    assert before["imported"] == "seed_report.md"
    with pytest.raises(SeedError, match="cannot be read"):
        import_report(tmp_path / "none.md", tmp_path / "new")
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe")
    with pytest.raises(SeedError, match="no UTF-8"):
        import_report(tmp_path / "binary.md", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_imported_folder_is_read_like_any_other(tmp_path: Path) -> None:
    results = read_results(import_report(DATA / "seed_report.md", tmp_path / "old"))
    assert results.environment.imported == "seed_report.md"
    assert render(seed_report(results)) == SEED


def test_a_native_run_is_told_in_the_seeds_layout_with_its_arithmetic() -> None:
    case = make_case(label="mine", steps=2, offload="model")
    figures = {"sm_active_pct": sampled(89.0), "peak_allocated_bytes": 41 * GIB}
    failed = make_case(label="failed", seed=7)
    records = [make_record(case, stages=with_figures(make_stages(case), **figures)), make_record(failed, outcome=Outcome.OOM, reason="too big")]
    sweep = replace(read_request(["+sweep=quick"]).sweep, cases=(case, failed))
    results = tabulate(sweep, environment(), records, ())
    text = render(seed_report(results))
    # 2 + 1 + 2 x 1 + 0.5 s in stages and 5.75 s of Total_Execution that contains them.
    load = (5.5 + 5.75) * 89
    assert f"| mine                   | 128*64     | True    |     5.75 |   1.00 |   41.00 |  89.0 | {load:6.0f} |" in text
    assert "- Inference stage 'Step_0_Inference' has low SM activity (89.00%), check kernel efficiency." in text
    assert "High VRAM usage, close to 48GB limit on L40S." in text
    assert "| T5_Encoding | 1.00 | 41.00 | 0.0 | 0.00 | 89.0 | 89 |" in text
    assert "Save" not in text
    assert left_out(results) == ["failed: oom; the seed format has no place for it"]
    assert render(parse(text, path="again.md")) == text
