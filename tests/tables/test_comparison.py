"""Two runs held against each other."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from tests.conftest import DATA, make_case
from tests.makers import make_record, make_stages, on_gpu, with_figures
from wansweep.case import Case
from wansweep.config import read_request
from wansweep.record import Outcome, Record
from wansweep.report import comparison as rendered
from wansweep.seed import importing
from wansweep.seed.parse import parse
from wansweep.tables.changes import CaseChange, Comparison, Verdict
from wansweep.tables.comparison import Sample, compare, judge
from wansweep.tables.difference import difference, holm, two_sided_p
from wansweep.tables.results import Results, tabulate
from wansweep.tables.thresholds import CASE_THRESHOLDS
from wansweep.telemetry.environment import Environment, environment
from wansweep.units import GIB

QUICK = read_request(["+sweep=quick"]).sweep
HERE = environment()


def run(*records: Record, cases: tuple[Case, ...] | None = None, around: Environment = HERE) -> Results:
    cases = cases or tuple({record.case_id: record.case for record in records}.values())
    return tabulate(replace(QUICK, cases=cases), around, records, ())


def repeats(case: Case, steps: tuple[float, ...], **figures: float) -> list[Record]:
    """A trial for each length of a step."""
    return [
        make_record(case, trial=trial, stages=with_figures(make_stages(case, step_s=step_s), **figures)) for trial, step_s in enumerate(steps)
    ]


STEADY = (1.0, 1.001, 0.999, 1.0005, 0.9995)


def only(found: Comparison) -> CaseChange:
    (case,) = found.cases
    return case


def verdicts(base: list[Record], head: list[Record], **options: object) -> tuple[Verdict, ...]:
    return only(compare(run(*base), run(*head), **options)).verdicts  # type: ignore[arg-type]


def test_repeats_that_agree_are_the_same() -> None:
    case = make_case(label="a")
    assert verdicts(repeats(case, STEADY), repeats(case, STEADY[::-1])) == (Verdict.SAME,)


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, Verdict.SLOWER), (0.8, Verdict.FASTER)])
def test_a_change_of_time_beyond_noise_and_thresholds_is_told(factor: float, verdict: Verdict) -> None:
    case = make_case(label="a")
    found = compare(run(*repeats(case, STEADY)), run(*repeats(case, tuple(factor * step_s for step_s in STEADY))))
    assert only(found).verdicts == (verdict,)
    assert found.has_regression is (verdict is Verdict.SLOWER)
    assert not found.is_empty


@pytest.mark.parametrize(("gib", "verdict"), [(12.0, Verdict.MORE_GB), (8.0, Verdict.FEWER_GB)])
def test_a_change_of_memory_is_told_and_time_stays_out_of_it(gib: float, verdict: Verdict) -> None:
    case = make_case(label="a")
    base, head = repeats(case, STEADY, peak_allocated_bytes=10 * GIB), repeats(case, STEADY, peak_allocated_bytes=gib * GIB)
    assert verdicts(base, head) == (verdict,)


def test_a_certain_change_below_either_threshold_is_the_same() -> None:
    case = make_case(label="a", steps=40)
    assert verdicts(repeats(case, STEADY), repeats(case, tuple(1.01 * step_s for step_s in STEADY))) == (Verdict.SAME,)
    # 50 % more of next to nothing: 10 MiB on 20.
    small = [repeats(case, STEADY, peak_allocated_bytes=mib * 2**20) for mib in (20, 30)]
    assert verdicts(*small) == (Verdict.SAME,)


def test_a_large_change_in_noise_is_inconclusive() -> None:
    case = make_case(label="a")
    assert verdicts(repeats(case, (0.5, 1.0, 2.0)), repeats(case, (0.8, 1.5, 2.5))) == (Verdict.INCONCLUSIVE,)


def test_one_trial_against_one_is_never_significant_and_shows_the_difference() -> None:
    case = make_case(label="a")
    found = compare(run(*repeats(case, (1.0,))), run(*repeats(case, (3.0,), peak_allocated_bytes=GIB)))
    assert only(found).verdicts == (Verdict.INCONCLUSIVE,)
    assert not found.has_regression
    assert "+103.2 % (+8.00 s)" in rendered.terminal(found)


def test_one_trial_against_several_borrows_their_spread() -> None:
    case = make_case(label="a")
    assert Verdict.SLOWER in verdicts(repeats(case, (1.0,)), repeats(case, tuple(1.5 * step_s for step_s in STEADY)))


@pytest.mark.parametrize("outcome", [Outcome.OOM, Outcome.CRASH, Outcome.TIMEOUT, Outcome.INVALID])
def test_an_ok_case_that_fails_is_a_regression_and_the_way_back_is_none(outcome: Outcome) -> None:
    case = make_case(label="a")
    ok, failed = run(*repeats(case, (1.0,))), run(make_record(case, outcome=outcome, reason="no room"))
    worse, better = compare(ok, failed), compare(failed, ok)
    assert (only(worse).verdicts, only(worse).why, worse.has_regression) == ((Verdict.FAILS,), f"ok -> {outcome} (no room)", True)
    assert (only(better).verdicts, better.has_regression) == ((Verdict.RUNS,), False)
    assert only(compare(failed, failed)).verdicts == (Verdict.SAME,)


def test_cases_of_one_side_are_told_and_nothing_in_common_is_nothing_comparable() -> None:
    a, b = make_case(label="a"), make_case(label="b", seed=7)
    found = compare(run(*repeats(a, (1.0,))), run(*repeats(b, (1.0,))))
    assert [case.verdicts for case in found.cases] == [(Verdict.ONLY_IN_BASE,), (Verdict.ONLY_IN_HEAD,)]
    assert found.is_empty
    assert not found.has_regression
    assert only(compare(run(*repeats(a, (1.0,))), run(cases=(a,)))).verdicts == (Verdict.ONLY_IN_BASE,)


def test_equal_labels_of_different_settings_are_not_one_case() -> None:
    found = compare(run(*repeats(make_case(label="a"), (1.0,))), run(*repeats(make_case(label="a", seed=7), (1.0,))))
    assert len(found.cases) == 2


def test_another_torch_is_not_comparable_unless_it_is_what_is_compared() -> None:
    case = make_case(label="a")
    other = replace(HERE, packages={**HERE.packages, "torch": "9.9"})
    base, head = run(*repeats(case, STEADY)), run(*repeats(case, STEADY), around=other)
    found = compare(base, head)
    assert only(found).verdicts == (Verdict.NOT_COMPARABLE,)
    assert only(found).why == f"environment differs: torch {HERE.packages['torch']} -> 9.9"
    assert found.is_empty
    assert "add --across torch" in rendered.markdown(found, base="a", head="b")
    assert only(compare(base, head, across=["torch"])).verdicts == (Verdict.SAME,)


def test_another_card_is_not_comparable_and_another_python_is_noted() -> None:
    case = make_case(label="a")
    h100, h200 = ([on_gpu(record, name) for record in repeats(case, STEADY)] for name in ("NVIDIA H100", "NVIDIA H200"))
    assert only(compare(run(*h100), run(*h200))).why == "environment differs: device NVIDIA H100 -> NVIDIA H200"
    found = compare(run(*h100), run(*h100, around=replace(HERE, python="3.99")))
    assert only(found).verdicts == (Verdict.SAME,)
    assert found.surroundings.noted == {"python": f"{HERE.python} -> 3.99"}


def test_warm_trials_against_cold_ones_are_not_comparable() -> None:
    case = make_case(label="a")
    warm = [replace(record, warm=True) for record in repeats(case, STEADY)]
    assert only(compare(run(*repeats(case, STEADY)), run(*warm))).why == "cold trials -> warm ones"


def imported() -> Results:
    records = importing.records(parse((DATA / "seed_report.md").read_text(), path="old.md"), file="old.md")
    sweep = importing.sweep([record.case for record in records], file="old.md")
    return tabulate(sweep, importing.environment(file="old.md"), records, ())


def test_an_imported_run_is_matched_by_name_and_its_stated_settings_have_to_agree() -> None:
    name = "02_Efficiency_Mode_720p"
    case = make_case(label=name, name=name, steps=10, offload="model", weights="hub")
    new = repeats(case, (6.0, 6.01, 5.99))
    found = compare(imported(), run(*new))
    (matched,) = [one for one in found.cases if one.matched_by]
    assert (matched.label, matched.matched_by, matched.verdicts) == (name, "name", (Verdict.FASTER,))
    assert "1 case(s) matched by name" in rendered.markdown(found, base="a", head="b")
    assert "torch" in found.surroundings.unknown
    longer = make_case(label=name, name=name, steps=20, offload="model", weights="hub")
    (matched,) = [one for one in compare(imported(), run(*repeats(longer, (6.0,)))).cases if one.matched_by]
    assert (matched.verdicts, matched.why) == ((Verdict.NOT_COMPARABLE,), "settings differ: steps 10 -> 20")
    tiny = make_case(label=name, name=name, steps=10, offload="model")
    (matched,) = [one for one in compare(imported(), run(*repeats(tiny, (6.0,)))).cases if one.matched_by]
    assert matched.why == "a miniature (weights=tiny) against a real model"


def test_an_imported_run_against_itself_is_matched_by_id() -> None:
    assert {case.matched_by for case in compare(imported(), imported()).cases} == {"case id"}


def test_a_stage_that_changed_is_told_beside_the_case() -> None:
    case = make_case(label="a")
    found = compare(run(*repeats(case, STEADY)), run(*repeats(case, tuple(1.5 * step_s for step_s in STEADY))))
    stages = {one.stage: one.change.verdict for one in only(found).stages if one.change.metric.name == "duration_s"}
    assert (stages["Step_0_Inference"], stages["VAE_Decoding"], stages["T5_Encoding"]) == (Verdict.SLOWER, Verdict.SAME, Verdict.SAME)


def test_the_markdown_has_the_summary_first_the_changes_next_and_the_rest_folded() -> None:
    case = make_case(label="a")
    found = compare(run(*repeats(case, STEADY)), run(*repeats(case, tuple(1.5 * step_s for step_s in STEADY))))
    text = rendered.markdown(found, base="old", head="new")
    assert text.startswith("**Regression: 1 slower; total time x1.258 (geometric mean)**\n\n`old` -> `new`\n\n| Case | Verdict |")
    assert "| a | slower | Step (s) | 1.000 | 1.500 | +50.0 % +-0.2 (+0.500 s) | 5, 5 |" in text
    assert text.index("| a | slower") < text.index("<details><summary>Every case (1)</summary>\n\n| Case")
    assert "<details><summary>Stages of a</summary>" in text
    assert "| Step_0_Inference | slower |" in text
    assert "| VAE_Decoding | same |" not in text


def test_one_trial_against_one_is_undecided_and_its_large_changes_stand_at_the_top() -> None:
    case = make_case(label="a")
    text = rendered.markdown(compare(run(*repeats(case, (1.0,))), run(*repeats(case, (3.0,)))), base="a", head="b")
    assert text.startswith("**Undecided: 1 inconclusive; total time x2.032")
    seen, _, folded = text.partition("<details>")
    assert "| a | inconclusive | Step (s) | 1.000 | 3.000 | +200.0 % (+2.000 s) | 1, 1 |" in seen
    assert "T5" not in seen
    assert "| a | inconclusive | T5 (s) | 1.00 | 1.00 | +0.0 % (+0.00 s) | 1, 1 |" in folded
    assert "more trials decide: procedure.repeats=5" in seen


def test_a_comment_has_no_more_than_its_site_takes() -> None:
    cases = [make_case(label=f"case-{seed}", seed=seed, steps=40) for seed in range(20)]
    sides = [run(*[record for case in cases for record in repeats(case, tuple(f * s for s in STEADY))]) for f in (1.0, 1.5)]
    found = compare(*sides)
    text = rendered.markdown(found, base="a", head="b", most=20_000)
    assert len(text) < 20_500
    assert text.startswith("**Regression: 20 slower")
    assert text.endswith("`wansweep compare --format json` has every case, figure and stage.\n")
    assert "| case-19 | slower |" in text
    assert len(rendered.markdown(found, base="a", head="b")) < 65_536


def test_students_distribution_agrees_with_its_tables_and_holm_with_his_example() -> None:
    for t, freedom, p in (
        (12.706, 1, 0.05),
        (4.303, 2, 0.05),
        (2.306, 8, 0.05),
        (3.355, 8, 0.01),
        (1.984, 100, 0.05),
        (1.972, 1e6, 0.05),
        (0.0, 3, 1.0),
    ):
        assert two_sided_p(t, freedom) == pytest.approx(p, rel=2e-3)
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06), pytest.approx(0.02)]


def test_the_interval_is_welchs() -> None:
    found = difference([10.0, 12.0, 11.0], [14.0, 15.0, 13.0, 14.0])
    assert found.change == pytest.approx(3.0)
    error = math.sqrt(1 / 3 + (2 / 3) / 4)
    assert found.half_width == pytest.approx(3.182 * error)  # of 3 degrees of freedom, Welch's 3.86 rounded down
    # 3.86 degrees of freedom: between the tables' 0.0132 of 4 and 0.0240 of 3.
    assert 0.0132 < found.p < 0.0160


def test_false_alarms_are_rare_and_a_slow_down_of_5_percent_is_found() -> None:
    rng = random.Random(1)
    total = CASE_THRESHOLDS[0]

    def sample(noise: float, factor: float = 1.0) -> Sample:
        base, head = (tuple(100 * f * rng.gauss(1, noise) for _ in range(5)) for f in (1.0, factor))
        return Sample(threshold=total, base=base, head=head)

    alarms = sum(
        any(change.verdict in (Verdict.SLOWER, Verdict.FASTER) for change in judge([sample(0.05) for _ in range(20)])) for _ in range(60)
    )
    assert alarms <= 7  # 5 % of 60 are 3; 8 or more of them have a chance of 1 %
    assert sum(judge([sample(0.01, 1.05)])[0].verdict is Verdict.SLOWER for _ in range(60)) >= 57
